// The stored trajectories in the order of their commits, and the laws by which they are drawn.
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
enum class Law : std::uint8_t { trajectory, step, recency, priority, task };

struct Drawn {
  const std::shared_ptr<const Trajectory>* trajectory;
  double probability;
};

// Kept trajectories (which are never evicted) and the others, each oldest first; positions count the kept ones, then
// the others. n is the number of trajectories. Not thread-safe: its owner locks.
class Index {
 public:
  std::int64_t size() const noexcept { return kept_count() + static_cast<std::int64_t>(passing_.size()); }
  std::int64_t kept_count() const noexcept { return static_cast<std::int64_t>(kept_.size()); }
  std::int64_t steps() const noexcept { return kept_steps() + end_ - begin_; }
  std::int64_t kept_steps() const noexcept { return kept_.empty() ? 0 : kept_.back().end; }

  // Adds one, which is `kept` or not, with the largest priority so far. Its id must be new. Throws std::bad_alloc and
  // is then as before. Amortised O(1), or O(log n) once priorities are in use.
  void push(std::shared_ptr<const Trajectory> trajectory);

  // Removes the oldest one that is not kept; there must be one. O(1), or O(log n) once priorities are in use.
  std::shared_ptr<const Trajectory> pop() noexcept;

  // Removes all but those that `keeps` holds for, in one pass, and returns them; their order and priorities stay.
  // Throws std::bad_alloc and is then as before. O(n).
  std::vector<std::shared_ptr<const Trajectory>> remove_unless(const std::function<bool(const Trajectory&)>& keeps);

  // Forgets all and keeps the counting of places, so that the same pushes lead to the same draws.
  void clear() noexcept;

  // The trajectory at a position 0 .. n - 1. O(1).
  const std::shared_ptr<const Trajectory>& at(std::int64_t position) const noexcept;

  // The trajectory with this id, or null. O(1).
  const std::shared_ptr<const Trajectory>* find(std::int64_t id) const noexcept;

  // Draws `count` of n >= 1 trajectories, independently, and asks for their memory. `half_life` > 0 matters to
  // Law::recency. Throws std::runtime_error where all priorities are 0. O(1) each; by priority O(log n).
  std::vector<Drawn> draw(std::int64_t count, Law law, double half_life, RandomStream& random);

  // The priority of a trajectory, >= 0 and finite, from now on; false where none has this id. O(log n), and O(n) when
  // it is the first.
  bool set_priority(std::int64_t id, double priority);

  // By position; empty as long as all are 1. O(n).
  std::vector<double> priorities() const;

 private:
  static constexpr std::int64_t guide_steps = 1024;

  // `end` counts the steps of this trajectory and of all before it.
  struct Entry {
    std::shared_ptr<const Trajectory> trajectory;
    std::int64_t end;
  };

  // Places: 0, 1, ... for those that pass, in the order of their coming; -1, -2, ... for the kept ones.
  struct Task {
    std::int32_t label;
    std::vector<std::int64_t> kept;
    std::deque<std::int64_t> passing;
    std::size_t size() const noexcept { return kept.size() + passing.size(); }
  };

  const std::shared_ptr<const Trajectory>& placed(std::int64_t place) const noexcept;
  Drawn draw_one(Law law, double half_life, RandomStream& random);
  void draw_by_steps(std::vector<Drawn>& drawn, std::int64_t count, RandomStream& random);
  std::int64_t guide_of_step(std::int64_t step) const noexcept;
  std::int64_t place_of_step(std::int64_t step) const noexcept;
  void use_priorities();
  void make_room();
  std::size_t leaf(std::int64_t place) const noexcept { return static_cast<std::size_t>(place) & (tree_->size() - 1); }

  std::vector<Entry> kept_;
  std::deque<Entry> passing_;
  std::int64_t first_ = 0;  // place of passing_.front()
  std::int64_t begin_ = 0;
  std::int64_t end_ = 0;
  std::deque<std::int64_t> guide_;  // for each multiple of guide_steps in [begin_, end_), the place it falls into
  std::unordered_map<std::int64_t, std::int64_t> places_;
  std::map<std::int32_t, Task> tasks_;
  std::vector<Task*> present_;  // in the order of their labels
  std::optional<SumTree> tree_;
  std::optional<SumTree> kept_tree_;
  double largest_priority_ = 1;
};

}  // namespace twohot
