// Equal blocks of memory for trajectories that grow, recycled so that steady writing touches no fresh pages.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "core/huge_pages.h"

namespace twohot {

// One block, aligned to 64 bytes; goes back to its pool, which it keeps alive, when the last owner lets go.
using MemoryBlock = std::shared_ptr<std::byte>;

// Blocks are cut from slabs of at least a huge page. A slab without used blocks goes back to the system once more than
// `retained_bytes` are free. Thread-safe. Held by shared_ptr.
class BlockPool : public std::enable_shared_from_this<BlockPool> {
 public:
  static constexpr std::size_t retained_bytes = std::size_t{64} << 20;

  // `bytes` of each block are rounded up to a multiple of 64; at least 1.
  explicit BlockPool(std::size_t bytes);
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // Uninitialised memory. Throws std::bad_alloc. O(1), and a new slab where no block is free.
  MemoryBlock take();

 private:
  struct Slab {
    std::byte* memory;
    std::vector<std::byte*> free;
  };

  void give(Slab* slab, std::byte* block) noexcept;

  const std::size_t block_bytes_;
  const std::size_t slab_bytes_;
  const std::size_t per_slab_;
  std::mutex mutex_;
  SlabSource source_;
  std::vector<std::unique_ptr<Slab>> slabs_;
  std::vector<Slab*> available_;  // those with a free block; room for all of them
  std::size_t free_bytes_ = 0;
};

}  // namespace twohot
