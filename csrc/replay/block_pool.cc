#include "replay/block_pool.h"

#include <algorithm>
#include <cstdlib>

namespace twohot {
namespace {

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

BlockPool::BlockPool(std::size_t bytes)
    : block_bytes_(round_up(std::max<std::size_t>(bytes, 1), 64)),
      slab_bytes_(round_up(block_bytes_, huge_page)),
      per_slab_(slab_bytes_ / block_bytes_),
      source_(slab_bytes_) {}

BlockPool::~BlockPool() {
  for (const auto& slab : slabs_) std::free(slab->memory);
}

MemoryBlock BlockPool::take() {
  std::unique_lock lock(mutex_);
  if (available_.empty()) {
    slabs_.reserve(slabs_.size() + 1);
    available_.reserve(slabs_.size() + 1);
    auto slab = std::make_unique<Slab>();
    slab->free.reserve(per_slab_);
    slab->memory = static_cast<std::byte*>(source_.take());
    for (std::size_t i = per_slab_; i-- > 0;) slab->free.push_back(slab->memory + i * block_bytes_);
    free_bytes_ += per_slab_ * block_bytes_;
    available_.push_back(slab.get());
    slabs_.push_back(std::move(slab));
  }
  Slab* slab = available_.back();
  std::byte* block = slab->free.back();
  slab->free.pop_back();
  free_bytes_ -= block_bytes_;
  if (slab->free.empty()) available_.pop_back();
  lock.unlock();
  return MemoryBlock(block, [pool = shared_from_this(), slab](std::byte* memory) { pool->give(slab, memory); });
}

void BlockPool::give(Slab* slab, std::byte* block) noexcept {
  std::unique_ptr<Slab> leaving;
  {
    const std::lock_guard lock(mutex_);
    if (slab->free.empty()) available_.push_back(slab);
    slab->free.push_back(block);
    free_bytes_ += block_bytes_;
    if (slab->free.size() < per_slab_ || free_bytes_ <= retained_bytes) return;
    free_bytes_ -= per_slab_ * block_bytes_;
    available_.erase(std::find(available_.begin(), available_.end(), slab));
    const auto found =
        std::find_if(slabs_.begin(), slabs_.end(), [slab](const auto& each) { return each.get() == slab; });
    leaving = std::move(*found);
    *found = std::move(slabs_.back());
    slabs_.pop_back();
  }
  std::free(leaving->memory);
}

}  // namespace twohot
