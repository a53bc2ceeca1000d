#include "core/buffer_pool.h"

#include <cstdlib>
#include <iterator>
#include <new>

#include "core/files.h"
#include "core/huge_pages.h"

namespace twohot {
namespace {

constexpr std::size_t default_megabytes = 512;

std::size_t limit_from_environment() {
  const char* text = std::getenv("TWOHOT_POOL_MB");
  if (text == nullptr) text = std::getenv("TWOHOT_RECYCLED_MB");  // its name in 0.1
  if (text == nullptr || *text == '\0') return default_megabytes << 20;
  char* end = nullptr;
  const unsigned long long megabytes = std::strtoull(text, &end, 10);
  return (*end == '\0' ? static_cast<std::size_t>(megabytes) : default_megabytes) << 20;
}

}  // namespace

BufferPool::Block::~Block() {
  if (data_ != nullptr) pool_->give(data_, bytes_);
}

BufferPool::~BufferPool() { release(); }

BufferPool& BufferPool::global() {
  static BufferPool* const pool = [] {
    auto* made = new BufferPool(limit_from_environment());
    hold_while_forking(made->mutex_);
    return made;
  }();
  return *pool;
}

BufferPool::Block BufferPool::take(std::size_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    for (auto it = blocks_.begin(); it != blocks_.end(); ++it) {
      if (it->bytes < bytes || it->bytes - bytes > bytes / 4 + huge_page) continue;
      const Kept found = *it;
      cached_bytes_ -= found.bytes;
      blocks_.erase(it);
      return {*this, found.data, found.bytes};
    }
  }
  const std::size_t whole = (bytes + huge_page - 1) / huge_page * huge_page;
  if (whole < bytes) throw std::bad_alloc();
  return {*this, allocate_huge(whole), whole};
}

void BufferPool::give(void* data, std::size_t bytes) noexcept {
  std::list<Kept> leaving;
  {
    const std::lock_guard lock(mutex_);
    try {
      blocks_.push_front({data, bytes});
      cached_bytes_ += bytes;
    } catch (const std::bad_alloc&) {
      std::free(data);
      return;
    }
    while (cached_bytes_ > max_bytes_) {
      cached_bytes_ -= blocks_.back().bytes;
      leaving.splice(leaving.begin(), blocks_, std::prev(blocks_.end()));
    }
  }
  for (const Kept& block : leaving) std::free(block.data);
}

void BufferPool::release() noexcept {
  std::list<Kept> leaving;
  {
    const std::lock_guard lock(mutex_);
    leaving.swap(blocks_);
    cached_bytes_ = 0;
  }
  for (const Kept& block : leaving) std::free(block.data);
}

std::size_t BufferPool::cached_bytes() const noexcept {
  const std::lock_guard lock(mutex_);
  return cached_bytes_;
}

}  // namespace twohot
