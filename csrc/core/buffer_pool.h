// Large blocks of memory that are kept for the next user: touching fresh pages costs more than filling them.
#pragma once

#include <cstddef>
#include <list>
#include <mutex>

namespace twohot {

// Keeps blocks that were given back, newest first, up to a number of bytes; beyond it the oldest go to the system.
// Thread-safe. Every operation is O(number of kept blocks).
class BufferPool {
 public:
  // One block, aligned to at least 64 bytes; goes back to its pool when destroyed. The pool must outlive it.
  class Block {
   public:
    Block(BufferPool& pool, void* data, std::size_t bytes, bool borrowed) noexcept
        : pool_(&pool), data_(data), bytes_(bytes), borrowed_(borrowed) {}
    Block(Block&& other) noexcept
        : pool_(other.pool_), data_(other.data_), bytes_(other.bytes_), borrowed_(other.borrowed_) {
      other.data_ = nullptr;
    }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    Block& operator=(Block&&) = delete;
    ~Block();

    void* data() const noexcept { return data_; }

   private:
    BufferPool* pool_;
    void* data_;
    std::size_t bytes_;  // of the block, at least what was asked for
    bool borrowed_;
  };

  explicit BufferPool(std::size_t max_bytes) noexcept : max_bytes_(max_bytes) {}
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // The pool of the process. Never destroyed: arrays may outlive statics. It keeps TWOHOT_POOL_MB megabytes (512
  // without that variable, which is read once; 0 keeps nothing).
  static BufferPool& global();

  // At least `bytes` of uninitialised memory: a kept block that is at most a quarter and a huge page too large, or a
  // fresh one, in huge pages where the system offers them. Throws std::bad_alloc.
  Block take(std::size_t bytes);

  // The same for scratch memory that comes back before long: the smallest kept block that is large enough, however
  // large. A fresh one takes the place of those that were borrowed before and are too small.
  Block borrow(std::size_t bytes);

  // Gives every kept block back to the system.
  void release() noexcept;

  // Bytes of the blocks that it keeps.
  std::size_t cached_bytes() const noexcept;

 private:
  struct Kept {
    void* data;
    std::size_t bytes;
    bool borrowed;
  };

  // Of a block that is kept, which leaves the list.
  Block lend(std::list<Kept>::iterator kept, bool borrowed) noexcept;
  Block fresh(std::size_t bytes, bool borrowed);
  void give(const Kept& block) noexcept;

  const std::size_t max_bytes_;
  mutable std::mutex mutex_;
  std::list<Kept> blocks_;
  std::size_t cached_bytes_ = 0;
};

}  // namespace twohot
