// The stored trajectories in the order of their commits, and the distributions that they are drawn from.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/random.h"
#include "replay/sum_tree.h"
#include "replay/trajectory.h"

namespace twohot {

// How a trajectory is drawn: uniformly; in proportion to its steps; newest first, halving with every `half_life`
// trajectories of age; in proportion to its priority; or a task uniformly, then one of its trajectories uniformly.
enum class Sampling : std::uint8_t { trajectory, step, recency, priority, task };

struct Draw {
  const std::shared_ptr<const Trajectory>* trajectory;
  double probability;
};

// Protected trajectories, which are never evicted, and evictable ones, each oldest first; indices count the protected
// ones, then the evictable ones. n is the number of trajectories. Not thread-safe: its owner locks.
class Index {
 public:
  std::int64_t size() const noexcept { return protected_count() + static_cast<std::int64_t>(evictable_.size()); }
  std::int64_t protected_count() const noexcept { return static_cast<std::int64_t>(protected_.size()); }
  std::int64_t steps() const noexcept { return protected_steps() + end_ - begin_; }
  std::int64_t protected_steps() const noexcept { return protected_.empty() ? 0 : protected_.back().end; }

  // Adds one, protected or not, with the largest priority so far. Its id must be new. Throws std::bad_alloc and
  // is then as before. Amortised O(1), or O(log n) once priorities are in use.
  void push(std::shared_ptr<const Trajectory> trajectory);

  // Removes the oldest evictable one; there must be one. O(1), or O(log n) once priorities are in use.
  std::shared_ptr<const Trajectory> pop() noexcept;

  // Removes all but those that `keeps` holds for, in one pass, and returns them; their order and priorities stay.
  // Throws std::bad_alloc and is then as before. O(n).
  std::vector<std::shared_ptr<const Trajectory>> remove_unless(const std::function<bool(const Trajectory&)>& keeps);

  // Forgets all and keeps the counting of ordinals, so that the same pushes lead to the same draws.
  void clear() noexcept;

  // The trajectory at an index 0 .. n - 1. O(1).
  const std::shared_ptr<const Trajectory>& at(std::int64_t index) const noexcept;

  // The trajectory with this id, or null. O(1).
  const std::shared_ptr<const Trajectory>* find(std::int64_t id) const noexcept;

  // Draws `count` of n >= 1 trajectories, independently, and asks for their memory. `half_life` > 0 matters to
  // Sampling::recency. Throws std::runtime_error where all priorities are 0. O(1) each; by priority O(log n).
  std::vector<Draw> draw(std::int64_t count, Sampling by, double half_life, RandomStream& random);

  // The priority of a trajectory, >= 0 and finite, from now on; false where none has this id. O(log n), and O(n) when
  // it is the first.
  bool set_priority(std::int64_t id, double priority);

  // By index; empty as long as all are 1. O(n).
  std::vector<double> priorities() const;

 private:
  static constexpr std::int64_t guide_steps = 1024;

  // `end` counts the steps of this trajectory and of all before it.
  struct Entry {
    std::shared_ptr<const Trajectory> trajectory;
    std::int64_t end;
  };

  // Ordinals: 0, 1, ... for the evictable ones, in the order of their coming; -1, -2, ... for the protected ones.
  struct Task {
    std::int32_t label;
    std::vector<std::int64_t> protected_ordinals;
    std::deque<std::int64_t> evictable_ordinals;
    std::size_t size() const noexcept { return protected_ordinals.size() + evictable_ordinals.size(); }
  };

  const std::shared_ptr<const Trajectory>& at_ordinal(std::int64_t ordinal) const noexcept;
  Draw draw_one(Sampling by, double half_life, RandomStream& random);
  void draw_by_steps(std::vector<Draw>& drawn, std::int64_t count, RandomStream& random);
  std::int64_t guide_of_step(std::int64_t step) const noexcept;
  std::int64_t ordinal_of_step(std::int64_t step) const noexcept;
  void use_priorities();
  void make_room();
  std::size_t leaf(std::int64_t ordinal) const noexcept {
    return static_cast<std::size_t>(ordinal) & (tree_->size() - 1);
  }

  std::vector<Entry> protected_;
  std::deque<Entry> evictable_;
  std::int64_t first_ = 0;  // ordinal of evictable_.front()
  std::int64_t begin_ = 0;
  std::int64_t end_ = 0;
  std::deque<std::int64_t> guide_;  // for each multiple of guide_steps in [begin_, end_), the ordinal it falls into
  std::unordered_map<std::int64_t, std::int64_t> ordinals_;
  std::map<std::int32_t, Task> tasks_;
  std::vector<Task*> present_;  // in the order of their labels
  std::optional<SumTree> tree_;
  std::optional<SumTree> protected_tree_;
  double max_priority_ = 1;
};

}  // namespace twohot
