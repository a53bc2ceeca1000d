#include "replay/block_arena.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace twohot {

BlockArena::~BlockArena() {
  for (const auto& slab : slabs_) std::free(slab->memory);
}

std::shared_ptr<std::byte> BlockArena::take(std::size_t bytes) {
  const std::size_t whole = (bytes + 63) / 64 * 64;
  if (whole > max_block_bytes) {
    return {static_cast<std::byte*>(::operator new(whole, std::align_val_t{64})),
            [](std::byte* memory) { ::operator delete(memory, std::align_val_t{64}); }};
  }
  std::unique_lock lock(mutex_);
  if (current_ == nullptr || current_->used + whole > slab_bytes) {
    Slab* next = spare_;
    if (next == nullptr) {
      slabs_.reserve(slabs_.size() + 1);
      auto slab = std::make_unique<Slab>();
      slab->memory = static_cast<std::byte*>(source_.take());
      next = slab.get();
      slabs_.push_back(std::move(slab));
    }
    spare_ = nullptr;
    Slab* full = current_;
    current_ = next;
    if (full != nullptr && full->blocks == 0) {  // its blocks left before it was full
      full->used = 0;
      spare_ = full;
    }
  }
  Slab* slab = current_;
  std::byte* memory = slab->memory + slab->used;
  slab->used += whole;
  ++slab->blocks;
  lock.unlock();
  return {memory, [arena = shared_from_this(), slab](std::byte*) { arena->give(slab); }};
}

void BlockArena::give(Slab* slab) noexcept {
  std::unique_ptr<Slab> leaving;
  {
    const std::lock_guard lock(mutex_);
    if (--slab->blocks != 0) return;
    if (slab == current_ || spare_ == nullptr) {
      slab->used = 0;
      if (slab != current_) spare_ = slab;
      return;
    }
    const auto found =
        std::find_if(slabs_.begin(), slabs_.end(), [slab](const auto& each) { return each.get() == slab; });
    leaving = std::move(*found);
    *found = std::move(slabs_.back());
    slabs_.pop_back();
  }
  std::free(leaving->memory);
}

}  // namespace twohot
