// A finished trajectory and the memory that holds its columns.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "core/chunk_pool.h"
#include "core/schema.h"

namespace twohot {

// The columns of a trajectory of `steps` steps, in parts: chunks with `chunk_rows` rows of every column each, and a last
// block with the rows that remain. Either may be missing. Shares the chunks, owns the block or shares its owner.
class Rows {
 public:
  // One block of its own; its content starts undefined. Throws std::bad_alloc.
  Rows(const Layout& layout, std::int64_t steps)
      : owned_(allocate(layout.bytes(steps))), last_(owned_.get()), steps_(steps) {}

  // A block that lives as long as `owner`.
  Rows(std::int64_t steps, const std::byte* block, std::shared_ptr<const void> owner)
      : owner_(std::move(owner)), last_(block), steps_(steps) {}

  // As many of `chunks` as the rows need; with `compact`, those that are full, and a copy of the other rows. Throws
  // std::bad_alloc.
  Rows(const Layout& layout, std::int64_t steps, const std::vector<Chunk>& chunks, std::int64_t chunk_rows,
       bool compact);

  std::int64_t steps() const noexcept { return steps_; }

  // Calls visit(source, rows) for pieces of memory that make up `count` rows of a column from row `first` on, in order.
  template <typename Visit>
  void visit(const Layout& layout, std::size_t column, std::int64_t first, std::int64_t count, Visit visit) const {
    const std::size_t row_bytes = layout.columns()[column].row_bytes;
    const auto full = static_cast<std::int64_t>(chunks_.size()) * chunk_rows_;
    while (count > 0) {
      const bool in_chunk = first < full;
      const std::int64_t row = in_chunk ? first % chunk_rows_ : first - full;
      const std::int64_t rows = in_chunk ? std::min(count, chunk_rows_ - row) : count;
      const Extent extent = in_chunk ? Extent{chunk_rows_, chunk_rows_} : last_extent();
      const std::byte* base = in_chunk ? chunks_[static_cast<std::size_t>(first / chunk_rows_)].get() : last_;
      visit(base + layout.offset(column, extent) + static_cast<std::size_t>(row) * row_bytes, rows);
      first += rows;
      count -= rows;
    }
  }

  // Copies those rows to `target`. O(bytes).
  void copy(const Layout& layout, std::size_t column, std::int64_t first, std::int64_t count,
            std::byte* target) const {
    const std::size_t row_bytes = layout.columns()[column].row_bytes;
    visit(layout, column, first, count, [&](const std::byte* source, std::int64_t rows) {
      std::memcpy(target, source, static_cast<std::size_t>(rows) * row_bytes);
      target += static_cast<std::size_t>(rows) * row_bytes;
    });
  }

  // The start of a column in a block of its own, for who fills it.
  std::byte* owned_column(const Layout& layout, std::size_t column) noexcept {
    return owned_.get() + layout.offset(column, last_extent());
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const noexcept {
      ::operator delete(memory, std::align_val_t{Layout::alignment});
    }
  };

  static std::byte* allocate(std::size_t bytes) {
    return static_cast<std::byte*>(::operator new(bytes, std::align_val_t{Layout::alignment}));
  }

  Extent last_extent() const noexcept {
    const std::int64_t before = static_cast<std::int64_t>(chunks_.size()) * chunk_rows_;
    return {std::max<std::int64_t>(0, steps_ - before), steps_ + 1 - before};
  }

  std::vector<Chunk> chunks_;
  std::unique_ptr<std::byte, Free> owned_;
  std::shared_ptr<const void> owner_;
  const std::byte* last_ = nullptr;
  std::int64_t chunk_rows_ = 0;
  std::int64_t steps_;
};

class Segment;

// Given its id by Store::commit and never changed after that, so that any thread that holds a shared_ptr to it may read
// it without a lock. `origin` is the time of its first step in the trial that it is a piece of, 0 where it is whole.
struct Trajectory {
  Trajectory(Rows memory, std::int32_t label) : task(label), length(memory.steps()), rows(std::move(memory)) {}

  // Sums the reward column into `total_reward`, which the builder calls once the columns are filled. O(length).
  void sum_rewards(const Layout& layout) {
    total_reward = 0;
    rows.visit(layout, layout.reward(), 0, length, [this](const std::byte* source, std::int64_t count) {
      const auto* reward = reinterpret_cast<const float*>(source);
      for (std::int64_t t = 0; t < count; ++t) total_reward += static_cast<double>(reward[t]);
    });
  }

  // The first step at which a window may start: the first step of a later piece serves as the previous one only.
  std::int64_t first_start() const noexcept { return origin > 0 && length > 1 ? 1 : 0; }

  std::int64_t id = -1;
  std::int32_t task;
  bool kept = false;  // never evicted
  std::int64_t length;
  std::int64_t origin = 0;
  double total_reward = 0;
  std::shared_ptr<Segment> segment;  // that it is stored in, or null
  std::uint64_t checksum = 0;        // of its block there
  Rows rows;
};

}  // namespace twohot
