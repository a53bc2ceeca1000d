// The memory of one trajectory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "core/schema.h"

namespace twohot {

// One aligned allocation with room for all columns of `steps` steps; its content starts undefined. Owns the memory.
// Construction throws std::bad_alloc.
class Block {
 public:
  Block(const Layout& layout, std::int64_t steps)
      : bytes_(layout.bytes(steps)),
        memory_(static_cast<std::byte*>(::operator new(bytes_, std::align_val_t{Layout::alignment}))) {
    std::byte* at = memory_.get();
    columns_.reserve(layout.columns().size());
    for (const Column& column : layout.columns()) {
      columns_.push_back(at);
      at += Layout::bytes(column, steps);
    }
  }

  std::byte* column(std::size_t index) noexcept { return columns_[index]; }
  const std::byte* column(std::size_t index) const noexcept { return columns_[index]; }
  std::size_t bytes() const noexcept { return bytes_; }

  // Copies the first `steps` steps of `source`, which has the same layout. O(bytes).
  void copy_steps(const Block& source, const Layout& layout, std::int64_t steps) noexcept {
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      const Column& column = layout.columns()[c];
      const auto rows = static_cast<std::size_t>(steps + column.extra_rows);
      std::memcpy(columns_[c], source.columns_[c], rows * column.row_bytes);
    }
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const noexcept {
      ::operator delete(memory, std::align_val_t{Layout::alignment});
    }
  };

  std::size_t bytes_;
  std::unique_ptr<std::byte, Free> memory_;
  std::vector<std::byte*> columns_;
};

// A finished trajectory. Built by one thread, given its id by Store::commit, and never changed after that, so that any
// thread that holds a shared_ptr to it may read it without a lock.
struct Trajectory {
  Trajectory(const Layout& layout, std::int64_t steps, std::int32_t label)
      : task(label), length(steps), block(layout, steps) {}

  // Sums the reward column into `total_reward`, which the builder calls once the columns are filled. O(length).
  void sum_rewards(const Layout& layout) noexcept {
    const auto* reward = reinterpret_cast<const float*>(block.column(layout.reward()));
    for (std::int64_t t = 0; t < length; ++t) total_reward += static_cast<double>(reward[t]);
  }

  std::int64_t id = -1;
  std::int32_t task;
  std::int64_t length;
  double total_reward = 0;
  Block block;
};

}  // namespace twohot
