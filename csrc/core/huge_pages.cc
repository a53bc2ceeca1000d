#include "core/huge_pages.h"

#include <cstdlib>
#include <exception>
#include <new>
#include <thread>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace twohot {

void* allocate_huge(std::size_t bytes) {
  void* data = std::aligned_alloc(huge_page, bytes);
  if (data == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  madvise(data, bytes, MADV_HUGEPAGE);  // advice: a refusal costs time, not correctness
#endif
  return data;
}

SlabSource::Next::~Next() { std::free(memory.load()); }

void* SlabSource::take() {
  void* ready = next_ == nullptr ? nullptr : next_->memory.exchange(nullptr, std::memory_order_acquire);
  if (ready != nullptr || (next_ != nullptr && next_->failed.load(std::memory_order_relaxed))) next_.reset();
  void* memory = ready != nullptr ? ready : allocate_huge(bytes_);
  if (!first_ && next_ == nullptr) prepare();
  first_ = false;
  return memory;
}

void SlabSource::prepare() noexcept {
  constexpr std::size_t page = 4096;
  try {
    next_ = std::make_shared<Next>();
    std::thread([next = next_, bytes = bytes_] {
      try {
        auto* memory = static_cast<volatile char*>(allocate_huge(bytes));
        for (std::size_t at = 0; at < bytes; at += page) memory[at] = 0;
        next->memory.store(const_cast<char*>(memory), std::memory_order_release);
      } catch (const std::bad_alloc&) {
        next->failed.store(true, std::memory_order_relaxed);
      }
    }).detach();
  } catch (const std::exception&) {  // without a thread, slabs are made when they are needed
    next_.reset();
  }
}

}  // namespace twohot
