// The in-memory store of finished trajectories.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "core/random.h"
#include "core/schema.h"
#include "core/trajectory.h"

namespace twohot {

// At least one of the two is given; both hold where both are.
struct Capacity {
  std::optional<std::int64_t> steps;
  std::optional<std::int64_t> bytes;
};

// How a trajectory is drawn: uniformly, or in proportion to its number of steps.
enum class Law : std::uint8_t { trajectory, step };

// `steps` steps of a trajectory from step `start` on; keeps the trajectory alive, also after its eviction.
struct Window {
  std::shared_ptr<const Trajectory> trajectory;
  std::int64_t start;
  std::int64_t steps;
};

// What was ever counted, as opposed to what is held now. Ids count from 0 in the order of commits.
struct Counters {
  std::int64_t next_id = 0;
  std::int64_t evicted_trajectories = 0;
  std::int64_t evicted_steps = 0;
};

struct Stats {
  std::int64_t trajectories;
  std::int64_t steps;
  std::int64_t bytes;
  std::int64_t open_trajectories;
  Counters counters;
};

// All that a store holds at one moment, oldest trajectory first.
struct Snapshot {
  std::vector<std::shared_ptr<const Trajectory>> trajectories;
  RandomState random;
  Counters counters;
};

// Thread-safe: one mutex guards the index and the random stream, and no memory of a trajectory is copied or freed while
// it is held. Held by shared_ptr, so that writers and samplers keep it alive. n is the number of stored trajectories.
class Store {
 public:
  // Throws std::invalid_argument for a bad schema (see Layout), for no capacity, and for one that holds no step.
  Store(Schema schema, Capacity capacity, std::uint64_t seed);

  const Layout& layout() const noexcept { return layout_; }
  const Capacity& capacity() const noexcept { return capacity_; }

  // The steps of the longest trajectory that fits into the whole capacity.
  std::int64_t longest() const noexcept { return longest_; }

  // Adds finished trajectories in order, gives them their ids, and evicts the oldest ones until the capacity holds; a
  // sampler sees all of this or nothing. Throws std::length_error when one of them alone exceeds the capacity, and
  // std::bad_alloc; both leave the store as it was. Amortised O(1) for each trajectory added or evicted.
  void commit(std::span<const std::shared_ptr<Trajectory>> finished);

  // Copies and commits one trajectory of `steps` steps, given as one pointer for each column of the layout, and returns
  // its id. Throws std::invalid_argument for a NaN in a float column, a reward that is not finite, fewer steps than 1,
  // a last step that is neither terminated nor truncated, or an earlier one that is, and what commit() throws; all
  // leave the store as it was. O(bytes).
  std::int64_t insert(std::span<const std::byte* const> columns, std::int64_t steps, std::int32_t task);

  // Draws `count` windows of at most `length` steps: a trajectory by `law`, then a start uniform over
  // 0 .. max(0, T - length). Throws std::invalid_argument for a count or length below 1 and std::runtime_error for an
  // empty store; the random stream is then as before. Each draw is O(1) by trajectory and O(log n) by step.
  std::vector<Window> draw(std::int64_t count, std::int64_t length, Law law);

  // The stored trajectory with this id, or null. O(1).
  std::shared_ptr<const Trajectory> find(std::int64_t id) const;

  // O(n).
  Snapshot snapshot() const;

  // O(1).
  Stats stats() const;

  // Forgets all stored trajectories, which do not count as evicted. Open ones, ids and the random stream go on. O(n).
  void clear();

  RandomState random_state() const;
  void set_random_state(const RandomState& state);

  // Continues the counting of an earlier store. Throws std::runtime_error when trajectories are stored already and
  // std::invalid_argument for a negative count; both leave the store as it was.
  void resume(const Counters& counters);

  // Writers report how many more trajectories are open.
  void count_open(std::int64_t change) noexcept { open_.fetch_add(change, std::memory_order_relaxed); }

 private:
  // `end` counts the steps of this trajectory and of all committed before it since the store was built.
  struct Entry {
    std::shared_ptr<const Trajectory> trajectory;
    std::int64_t end;
  };

  bool fits(std::int64_t steps, std::int64_t bytes) const noexcept;

  const Layout layout_;
  const Capacity capacity_;
  std::int64_t longest_ = 0;
  std::atomic<std::int64_t> open_{0};
  mutable std::mutex mutex_;
  std::deque<Entry> entries_;
  std::int64_t begin_ = 0;
  std::int64_t end_ = 0;
  std::int64_t bytes_ = 0;
  Counters counters_;
  RandomStream random_;
};

}  // namespace twohot
