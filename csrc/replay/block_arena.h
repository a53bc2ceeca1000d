// Memory for trajectories that come and go in about the same order: blocks of any size, one after the other in large
// slabs of huge pages, so that reading far-apart trajectories misses few translations and writing touches no fresh
// pages.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "core/huge_pages.h"

namespace twohot {

// Thread-safe. Held by shared_ptr; every block keeps it alive. A slab is used again when all of its blocks are gone;
// one that is not in use goes back to the system when another is spare already.
class BlockArena : public std::enable_shared_from_this<BlockArena> {
 public:
  static constexpr std::size_t slab_bytes = std::size_t{4} << 20;

  // Larger blocks get memory of their own.
  static constexpr std::size_t max_block_bytes = slab_bytes / 8;

  BlockArena() = default;
  ~BlockArena();
  BlockArena(const BlockArena&) = delete;
  BlockArena& operator=(const BlockArena&) = delete;

  // Uninitialised memory, aligned to 64 bytes. Throws std::bad_alloc. Amortised O(1).
  std::shared_ptr<std::byte> take(std::size_t bytes);

 private:
  struct Slab {
    std::byte* memory;
    std::size_t used = 0;
    std::size_t blocks = 0;
  };

  void give(Slab* slab) noexcept;

  std::mutex mutex_;
  SlabSource source_{slab_bytes};
  std::vector<std::unique_ptr<Slab>> slabs_;
  Slab* current_ = nullptr;
  Slab* spare_ = nullptr;
};

}  // namespace twohot
