// A finished trajectory and the memory that holds its columns.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "replay/block_arena.h"
#include "replay/block_pool.h"
#include "replay/schema.h"

namespace twohot {

// The columns of a trajectory of `steps` steps: shared blocks with `block_rows` rows of every column each, and a last
// one with the rows that remain, which it owns or whose owner it shares. Either may be missing.
//
// Where the layout compresses columns, what is stored is one packed block instead: the offsets of all columns and the
// end (64 bits each), then the columns, each on a multiple of Layout::alignment. A compressed column is the end of each
// of its groups of packed_rows() rows (32 bits each, from the first group on), then the groups.
class TrajectoryData {
 public:
  // One block of its own, from `arena` where there is one; its content starts undefined. Throws std::bad_alloc.
  TrajectoryData(const Layout& layout, std::int64_t steps, BlockArena* arena = nullptr)
      : owned_(allocate(layout.bytes(steps), arena)), last_(owned_.get()), steps_(steps) {}

  // A block that lives as long as `owner`; packed where `packed_bytes`, its size, is not 0.
  TrajectoryData(std::int64_t steps, const std::byte* block, std::size_t packed_bytes,
                 std::shared_ptr<const void> owner)
      : owner_(std::move(owner)), last_(block), packed_bytes_(packed_bytes), steps_(steps) {}

  // As many of `blocks` as the rows need; with an arena, those that are full, and a copy of the other rows in a block
  // from there. Throws std::bad_alloc.
  TrajectoryData(const Layout& layout, std::int64_t steps, const std::vector<MemoryBlock>& blocks,
                 std::int64_t block_rows, BlockArena* arena);

  // The same rows in a packed block from `arena`. Throws std::bad_alloc, and std::runtime_error where a codec refuses.
  // O(bytes).
  TrajectoryData packed(const Layout& layout, BlockArena* arena) const;

  // The rows of each group of a compressed column but the last: as many as stay below 64 KiB, at least one.
  static std::int64_t packed_rows(const Column& column) noexcept {
    return std::max<std::int64_t>(1, static_cast<std::int64_t>((std::size_t{1} << 16) / column.row_bytes));
  }

  std::int64_t steps() const noexcept { return steps_; }

  // The bytes of these rows when they stand in one block: as packed, or as the layout has it.
  std::size_t bytes(const Layout& layout) const noexcept {
    return packed_bytes_ != 0 ? packed_bytes_ : layout.bytes(steps_);
  }

  // The packed block, or null.
  const std::byte* packed_block() const noexcept { return packed_bytes_ != 0 ? last_ : nullptr; }

  // Calls visit(source, rows) for the parts of memory that make up `count` rows of a column from row `first` on, in
  // order. The column is not compressed here. False, with nothing visited, where a packed block is corrupt.
  template <typename Visit>
  bool visit(const Layout& layout, std::size_t column, std::int64_t first, std::int64_t count, Visit visit) const {
    const std::size_t row_bytes = layout.columns()[column].row_bytes;
    if (packed_bytes_ != 0) {
      const std::span<const std::byte> stored = packed_column(layout, column);
      const auto from = static_cast<std::size_t>(first) * row_bytes;
      const auto bytes = static_cast<std::size_t>(count) * row_bytes;
      if (from > stored.size() || bytes > stored.size() - from) return false;
      visit(stored.data() + from, count);
      return true;
    }
    const auto full = static_cast<std::int64_t>(blocks_.size()) * block_rows_;
    while (count > 0) {
      const bool in_block = first < full;
      const std::int64_t row = in_block ? first % block_rows_ : first - full;
      const std::int64_t rows = in_block ? std::min(count, block_rows_ - row) : count;
      const RowCounts counts = in_block ? RowCounts{block_rows_, block_rows_} : last_counts();
      const std::byte* base = in_block ? blocks_[static_cast<std::size_t>(first / block_rows_)].get() : last_;
      visit(base + layout.offset(column, counts) + static_cast<std::size_t>(row) * row_bytes, rows);
      first += rows;
      count -= rows;
    }
    return true;
  }

  // Writes those rows to `target`, by non-temporal stores with `non_temporal`. False where a packed block is corrupt;
  // what `target` then holds is undefined. O(bytes), and the groups of a compressed column that they lie in.
  bool read(const Layout& layout, std::size_t column, std::int64_t first, std::int64_t count, std::byte* target,
            bool non_temporal = false) const;

  // Asks for the first cache lines of those rows in every column, without a promise.
  void prefetch(const Layout& layout, std::int64_t first, std::int64_t count) const noexcept;

  // Asks the system to read those rows of a large window from the disk, where they lie in a file.
  void read_ahead(const Layout& layout, std::int64_t first, std::int64_t count) const noexcept;

  // The start of a column in a block of its own, for its caller to fill.
  std::byte* owned_column(const Layout& layout, std::size_t column) noexcept {
    return owned_.get() + layout.offset(column, last_counts());
  }

 private:
  static std::shared_ptr<std::byte> allocate(std::size_t bytes, BlockArena* arena);

  RowCounts last_counts() const noexcept {
    const std::int64_t before = static_cast<std::int64_t>(blocks_.size()) * block_rows_;
    return {std::max<std::int64_t>(0, steps_ - before), steps_ + 1 - before};
  }

  // What a packed block has of a column; empty where it is corrupt.
  std::span<const std::byte> packed_column(const Layout& layout, std::size_t column) const noexcept;
  bool unpack(const Column& column, std::span<const std::byte> stored, std::int64_t first, std::int64_t count,
              std::byte* target) const;

  std::vector<MemoryBlock> blocks_;
  std::shared_ptr<std::byte> owned_;
  std::shared_ptr<const void> owner_;
  const std::byte* last_ = nullptr;
  std::size_t packed_bytes_ = 0;
  std::int64_t block_rows_ = 0;
  std::int64_t steps_;
};

class Segment;

// Given its id by Store::commit and never changed after that, so that any thread that holds a shared_ptr to it may read
// it without a lock. `origin` is the time of its first step in the trial that it is a chunk of, 0 where it is whole.
struct Trajectory {
  Trajectory(TrajectoryData memory, std::int32_t label)
      : task(label), length(memory.steps()), data(std::move(memory)) {}

  // Sums the reward column into `total_reward`, which the builder calls once the columns are filled. O(length).
  void sum_rewards(const Layout& layout) {
    total_reward = 0;
    data.visit(layout, layout.reward(), 0, length, [this](const std::byte* source, std::int64_t count) {
      const auto* reward = reinterpret_cast<const float*>(source);
      for (std::int64_t t = 0; t < count; ++t) total_reward += static_cast<double>(reward[t]);
    });
  }

  // The first step at which a window may start: the first step of a later chunk serves as the previous one only.
  std::int64_t first_start() const noexcept { return origin > 0 && length > 1 ? 1 : 0; }

  std::int64_t id = -1;
  std::int32_t task;
  bool is_protected = false;  // never evicted
  std::int64_t length;
  std::int64_t origin = 0;
  double total_reward = 0;
  std::shared_ptr<Segment> segment;  // that it is stored in, or null
  std::int64_t offset = 0;           // of its block there
  std::uint64_t checksum = 0;        // of its block there
  TrajectoryData data;
};

}  // namespace twohot
