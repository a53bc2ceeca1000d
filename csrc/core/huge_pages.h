// Large memory in huge pages, where the system offers them.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

namespace twohot {

inline constexpr std::size_t huge_page = std::size_t{1} << 21;

// Uninitialised memory that std::free() frees, aligned to a huge page; `bytes` is a multiple of that. Throws
// std::bad_alloc.
void* allocate_huge(std::size_t bytes);

// Slabs of huge pages one after the other. The first write to memory that the system gives costs more than the copy
// that it is for, so from the second slab on a thread makes the next one meanwhile, and writes to it. Serves one thread
// at a time.
class SlabSource {
 public:
  explicit SlabSource(std::size_t bytes) noexcept : bytes_(bytes) {}

  // Memory with undefined content that std::free() frees. Throws std::bad_alloc. Does not wait for the thread: where
  // that has not finished, the memory is untouched.
  void* take();

 private:
  // What the thread leaves; it holds this too, so that nobody has to wait for it.
  struct Next {
    ~Next();
    std::atomic<void*> memory{nullptr};
    std::atomic<bool> failed{false};
  };

  void prepare() noexcept;

  const std::size_t bytes_;
  std::shared_ptr<Next> next_;
  bool first_ = true;
};

}  // namespace twohot
