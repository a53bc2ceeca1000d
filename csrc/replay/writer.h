// Collects the steps of many environments and commits each trajectory when it finishes.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "replay/block_pool.h"
#include "replay/store.h"
#include "replay/trajectory.h"

namespace twohot {

// How a long trial is stored: in chunks of `length` steps, each of which begins with the last `overlap` of the one
// before. A length of 0: whole.
struct Chunking {
  std::int64_t length = 0;
  std::int64_t overlap = 0;
};

// Serves one thread at a time: a call that meets another in progress throws std::runtime_error, and so does every call
// where the store may not be used (Store::require_usable). Several writers may
// share a store. E is the number of environments; an array argument has E rows, and `mask` (null for all environments)
// says which of them take part: rows of the others are ignored.
//
// begin(), append() and cut() are all or nothing: any exception leaves the store and the open trajectories as they
// were. Open trajectories are no part of the store's capacity; each holds memory of BlockPool, which is handed to the
// store when it is full and reused for the next trajectory when it is not.
class Writer {
 public:
  // Throws std::invalid_argument below 1 environment, and for chunks that do not exceed their overlap or an overlap
  // below 1.
  Writer(std::shared_ptr<Store> store, std::int64_t environments, Chunking chunking = {});
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  const Store& store() const noexcept { return *store_; }
  std::int64_t environments() const noexcept { return static_cast<std::int64_t>(open_.size()); }

  // Opens a trajectory with its first observation (one pointer for each observation field) and task (null: 0) in each
  // active environment. Throws std::runtime_error where one is open already and std::invalid_argument for a NaN.
  // O(bytes).
  void begin(std::span<const std::byte* const> observation, const std::uint8_t* mask, const std::int32_t* task);

  // Adds one step to each active environment. `columns` has one pointer for each column of the layout; the observation
  // is the one that the step led to. Where terminated or truncated is set, the trajectory is finished and committed,
  // all of one call at once and in the order of their environments; so is a chunk that has its steps, marked truncated.
  // Throws std::runtime_error where none is open, std::invalid_argument for a NaN where none may be or a reward that is
  // not finite, std::length_error where the trajectory would exceed the whole capacity of the store (cut() then keeps
  // what the open trajectories hold and discard() drops it), and what Store::commit throws. O(bytes), and a copy of
  // less than a block of each finished trajectory.
  void append(std::span<const std::byte* const> columns, const std::uint8_t* mask);

  // Finishes every open trajectory of at least one step (in a later chunk: one beyond the overlap) by marking its last
  // step truncated, commits them, and drops the other open ones. O(bytes).
  void cut();

  // Drops the open trajectories of the active environments. O(E).
  void discard(const std::uint8_t* mask = nullptr);

 private:
  struct Open {
    std::vector<MemoryBlock> blocks;
    std::int64_t length = 0;
    std::int64_t origin = 0;
    std::int32_t task = 0;
    bool active = false;
    bool ends = false;  // with the step that is being appended
  };

  void check(std::span<const std::byte* const> columns, const std::uint8_t* mask) const;
  void reserve(Open& open, std::int64_t rows) const;
  std::byte* at(const Open& open, std::size_t column, std::int64_t row) const noexcept;
  void commit(std::span<const std::size_t> environments, bool truncate);
  std::shared_ptr<Trajectory> finish(const Open& open) const;
  std::vector<MemoryBlock> carried(const Open& open) const;
  void close(Open& open) noexcept;

  std::shared_ptr<Store> store_;
  const Chunking chunking_;
  const RowCounts block_rows_;
  std::vector<std::size_t> offsets_;  // of each column in a block
  std::vector<Open> open_;
  std::vector<std::size_t> finishing_;
  std::atomic_flag busy_;
};

}  // namespace twohot
