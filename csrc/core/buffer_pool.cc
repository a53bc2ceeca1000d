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
  if (data_ != nullptr) pool_->give({data_, bytes_, borrowed_});
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

BufferPool::Block BufferPool::lend(std::list<Kept>::iterator kept, bool borrowed) noexcept {
  const Kept found = *kept;
  cached_bytes_ -= found.bytes;
  blocks_.erase(kept);
  return {*this, found.data, found.bytes, borrowed};
}

BufferPool::Block BufferPool::fresh(std::size_t bytes, bool borrowed) {
  const std::size_t whole = (bytes + huge_page - 1) / huge_page * huge_page;
  if (whole < bytes) throw std::bad_alloc();
  return {*this, allocate_huge(whole), whole, borrowed};
}

BufferPool::Block BufferPool::take(std::size_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    for (auto it = blocks_.begin(); it != blocks_.end(); ++it) {
      if (it->bytes >= bytes && it->bytes - bytes <= bytes / 4 + huge_page) return lend(it, false);
    }
  }
  return fresh(bytes, false);
}

BufferPool::Block BufferPool::borrow(std::size_t bytes) {
  std::list<Kept> leaving;
  {
    const std::lock_guard lock(mutex_);
    auto best = blocks_.end();
    for (auto it = blocks_.begin(); it != blocks_.end(); ++it) {
      if (it->bytes >= bytes && (best == blocks_.end() || it->bytes < best->bytes)) best = it;
    }
    if (best != blocks_.end()) return lend(best, true);
    for (auto it = blocks_.begin(); it != blocks_.end();) {
      const auto next = std::next(it);
      if (it->borrowed) {
        cached_bytes_ -= it->bytes;
        leaving.splice(leaving.begin(), blocks_, it);
      }
      it = next;
    }
  }
  for (const Kept& block : leaving) std::free(block.data);
  return fresh(bytes, true);
}

void BufferPool::give(const Kept& block) noexcept {
  std::list<Kept> leaving;
  {
    const std::lock_guard lock(mutex_);
    try {
      blocks_.push_front(block);
      cached_bytes_ += block.bytes;
    } catch (const std::bad_alloc&) {
      std::free(block.data);
      return;
    }
    while (cached_bytes_ > max_bytes_) {
      cached_bytes_ -= blocks_.back().bytes;
      leaving.splice(leaving.begin(), blocks_, std::prev(blocks_.end()));
    }
  }
  for (const Kept& each : leaving) std::free(each.data);
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
