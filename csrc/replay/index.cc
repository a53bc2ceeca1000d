#include "replay/index.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "core/prefetch.h"

namespace twohot {
namespace {

// Uniform over [0, 1).
double unit(RandomStream& random) noexcept { return static_cast<double>(random.next() >> 11) * 0x1p-53; }

// Room for one more, so that adding it throws nothing. Amortised O(1).
template <typename Vector>
void make_space(Vector& vector) {
  if (vector.size() == vector.capacity()) vector.reserve(std::max<std::size_t>(8, 2 * vector.size()));
}

}  // namespace

void Index::make_room() {
  const std::size_t needed = evictable_.size() + 1;
  if (needed > tree_->size()) {
    SumTree larger(2 * tree_->size());
    for (std::size_t i = 0; i < evictable_.size(); ++i) {
      const auto ordinal = static_cast<std::size_t>(first_) + i;
      larger.set(ordinal & (larger.size() - 1), (*tree_)[leaf(static_cast<std::int64_t>(ordinal))]);
    }
    tree_ = std::move(larger);
  }
  if (protected_.size() + 1 > protected_tree_->size()) {
    SumTree larger(2 * protected_tree_->size());
    for (std::size_t i = 0; i < protected_.size(); ++i) larger.set(i, (*protected_tree_)[i]);
    protected_tree_ = std::move(larger);
  }
}

void Index::push(std::shared_ptr<const Trajectory> trajectory) {
  const bool is_protected = trajectory->is_protected;
  const std::int64_t id = trajectory->id;
  const std::int64_t length = trajectory->length;
  const std::int64_t ordinal =
      is_protected ? -1 - protected_count() : first_ + static_cast<std::int64_t>(evictable_.size());
  // What may throw comes first, and what it leaves behind changes nothing.
  if (tree_) make_room();
  const std::int64_t guides =
      is_protected ? 0 : (end_ + length + guide_steps - 1) / guide_steps - (end_ + guide_steps - 1) / guide_steps;
  Task& task = tasks_.try_emplace(trajectory->task, Task{trajectory->task, {}, {}}).first->second;
  const bool absent = task.size() == 0;
  if (absent) make_space(present_);
  if (is_protected) make_space(protected_);
  std::int64_t guided = 0;
  bool listed = false;
  bool mapped = false;
  try {
    mapped = ordinals_.emplace(id, ordinal).second;
    if (is_protected) {
      task.protected_ordinals.push_back(ordinal);
    } else {
      task.evictable_ordinals.push_back(ordinal);
    }
    listed = true;
    for (; guided < guides; ++guided) guide_.push_back(ordinal);
    if (is_protected) {
      protected_.push_back({std::move(trajectory), protected_steps() + length});
    } else {
      evictable_.push_back({std::move(trajectory), end_ + length});
    }
  } catch (...) {
    for (; guided > 0; --guided) guide_.pop_back();
    if (listed && is_protected) task.protected_ordinals.pop_back();
    if (listed && !is_protected) task.evictable_ordinals.pop_back();
    if (mapped) ordinals_.erase(id);
    throw;
  }
  if (absent) {
    const auto after = std::upper_bound(present_.begin(), present_.end(), task.label,
                                        [](std::int32_t label, const Task* other) { return label < other->label; });
    present_.insert(after, &task);
  }
  if (!is_protected) end_ += length;
  if (tree_) {
    (is_protected ? *protected_tree_ : *tree_).set(is_protected ? protected_.size() - 1 : leaf(ordinal), max_priority_);
  }
}

std::shared_ptr<const Trajectory> Index::pop() noexcept {
  std::shared_ptr<const Trajectory> leaving = std::move(evictable_.front().trajectory);
  begin_ = evictable_.front().end;
  evictable_.pop_front();
  if (tree_) tree_->set(leaf(first_), 0);
  while (!guide_.empty() && guide_.front() == first_) guide_.pop_front();
  ordinals_.erase(leaving->id);
  const auto found = tasks_.find(leaving->task);
  Task& task = found->second;
  task.evictable_ordinals.pop_front();
  if (task.size() == 0) {
    present_.erase(std::find(present_.begin(), present_.end(), &task));
    tasks_.erase(found);
  }
  ++first_;
  return leaving;
}

std::vector<std::shared_ptr<const Trajectory>> Index::remove_unless(
    const std::function<bool(const Trajectory&)>& keeps) {
  std::vector<std::shared_ptr<const Trajectory>> leaving;
  const std::vector<double> priorities = this->priorities();
  Index rest;
  if (tree_) rest.use_priorities();
  for (std::int64_t index = 0; index < size(); ++index) {
    const std::shared_ptr<const Trajectory>& trajectory = at(index);
    if (!keeps(*trajectory)) {
      leaving.push_back(trajectory);
      continue;
    }
    rest.push(trajectory);
    if (tree_) rest.set_priority(trajectory->id, priorities[static_cast<std::size_t>(index)]);
  }
  if (leaving.empty()) return leaving;
  rest.max_priority_ = max_priority_;
  std::swap(*this, rest);
  return leaving;
}

void Index::clear() noexcept {
  first_ += static_cast<std::int64_t>(evictable_.size());
  begin_ = end_;
  protected_.clear();
  evictable_.clear();
  guide_.clear();
  ordinals_.clear();
  present_.clear();
  tasks_.clear();
  tree_.reset();
  protected_tree_.reset();
  max_priority_ = 1;
}

const std::shared_ptr<const Trajectory>& Index::at_ordinal(std::int64_t ordinal) const noexcept {
  return ordinal < 0 ? protected_[static_cast<std::size_t>(-1 - ordinal)].trajectory
                     : evictable_[static_cast<std::size_t>(ordinal - first_)].trajectory;
}

const std::shared_ptr<const Trajectory>& Index::at(std::int64_t index) const noexcept {
  return at_ordinal(index < protected_count() ? -1 - index : first_ + index - protected_count());
}

const std::shared_ptr<const Trajectory>* Index::find(std::int64_t id) const noexcept {
  const auto found = ordinals_.find(id);
  return found == ordinals_.end() ? nullptr : &at_ordinal(found->second);
}

// The last guide at or before a step, or -1 where there is none; `step` counts the protected steps, then the evictable
// ones.
std::int64_t Index::guide_of_step(std::int64_t step) const noexcept {
  if (step < protected_steps()) return -1;
  const std::int64_t first_guide = (begin_ + guide_steps - 1) / guide_steps;
  return std::max<std::int64_t>(-1, (begin_ + step - protected_steps()) / guide_steps - first_guide);
}

std::int64_t Index::ordinal_of_step(std::int64_t step) const noexcept {
  const auto before = [](std::int64_t value, const Entry& entry) { return value < entry.end; };
  if (step < protected_steps()) {
    return -1 - (std::upper_bound(protected_.begin(), protected_.end(), step, before) - protected_.begin());
  }
  const std::int64_t absolute = begin_ + step - protected_steps();
  const std::int64_t guide = guide_of_step(step);
  const std::int64_t low = guide >= 0 ? guide_[static_cast<std::size_t>(guide)] - first_ : 0;
  const std::int64_t high = guide + 1 < static_cast<std::int64_t>(guide_.size())
                                ? guide_[static_cast<std::size_t>(guide + 1)] - first_ + 1
                                : static_cast<std::int64_t>(evictable_.size());
  return first_ +
         (std::upper_bound(evictable_.begin() + low, evictable_.begin() + high, absolute, before) - evictable_.begin());
}

std::vector<Draw> Index::draw(std::int64_t count, Sampling by, double half_life, RandomStream& random) {
  std::vector<Draw> drawn;
  drawn.reserve(static_cast<std::size_t>(count));
  if (by == Sampling::step) {
    draw_by_steps(drawn, count, random);
  } else {
    for (std::int64_t i = 0; i < count; ++i) {
      drawn.push_back(draw_one(by, half_life, random));
      prefetch(drawn.back().trajectory);
    }
  }
  for (const Draw& each : drawn) prefetch(each.trajectory->get(), sizeof(Trajectory));
  return drawn;
}

// In passes, so that what all draws look up is waited for at once.
void Index::draw_by_steps(std::vector<Draw>& drawn, std::int64_t count, RandomStream& random) {
  std::vector<std::int64_t> chosen(static_cast<std::size_t>(count));
  for (std::int64_t& step : chosen) {
    step = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(steps())));
    const std::int64_t guide = guide_of_step(step);
    if (guide >= 0) prefetch(&guide_[static_cast<std::size_t>(guide)]);
  }
  for (const std::int64_t step : chosen) {
    const std::int64_t guide = guide_of_step(step);
    if (guide >= 0)
      prefetch(&evictable_[static_cast<std::size_t>(guide_[static_cast<std::size_t>(guide)] - first_)], 128);
  }
  for (const std::int64_t step : chosen) drawn.push_back({&at_ordinal(ordinal_of_step(step)), 0});
  for (const Draw& each : drawn) prefetch(each.trajectory->get(), sizeof(Trajectory));
  for (Draw& each : drawn) {
    each.probability = static_cast<double>((*each.trajectory)->length) / static_cast<double>(steps());
  }
}

// Sampling::step is drawn by draw_by_steps.
Draw Index::draw_one(Sampling by, double half_life, RandomStream& random) {
  const auto count = static_cast<double>(size());
  const auto below = [&](std::int64_t bound) {
    return static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(bound)));
  };
  switch (by) {
    case Sampling::trajectory:
    case Sampling::step: break;
    case Sampling::recency: {
      // P(age a) = q^a (1 - q) / (1 - q^n), drawn by inverting its distribution function.
      const double log_q = -std::log(2.0) / half_life;
      const double mass = -std::expm1(count * log_q);
      const double age = std::floor(std::log1p(-unit(random) * mass) / log_q);
      const auto whole = static_cast<std::int64_t>(std::clamp(age, 0.0, count - 1));
      return {&at(size() - 1 - whole), std::exp(static_cast<double>(whole) * log_q) * -std::expm1(log_q) / mass};
    }
    case Sampling::priority: {
      use_priorities();
      const double total = protected_tree_->total() + tree_->total();
      if (!(total > 0)) throw std::runtime_error("all priorities are 0: there is nothing to draw from");
      const double target = unit(random) * total;
      if (protected_tree_->total() > 0 && (target < protected_tree_->total() || tree_->total() <= 0)) {
        const std::size_t found = protected_tree_->find(target);
        return {&protected_[found].trajectory, (*protected_tree_)[found] / total};
      }
      const std::size_t found = tree_->find(target - protected_tree_->total());
      const std::size_t offset = (found - leaf(first_)) & (tree_->size() - 1);
      return {&evictable_[offset].trajectory, (*tree_)[found] / total};
    }
    case Sampling::task: {
      const Task& task = *present_[static_cast<std::size_t>(below(static_cast<std::int64_t>(present_.size())))];
      const auto chosen = static_cast<std::size_t>(below(static_cast<std::int64_t>(task.size())));
      const double probability = 1 / (static_cast<double>(present_.size()) * static_cast<double>(task.size()));
      return {&at_ordinal(chosen < task.protected_ordinals.size()
                              ? task.protected_ordinals[chosen]
                              : task.evictable_ordinals[chosen - task.protected_ordinals.size()]),
              probability};
    }
  }
  return {&at(below(size())), 1 / count};
}

void Index::use_priorities() {
  if (tree_) return;
  SumTree tree(evictable_.size() + 1);
  SumTree protected_tree(protected_.size() + 1);
  for (std::size_t i = 0; i < evictable_.size(); ++i) {
    tree.set((static_cast<std::size_t>(first_) + i) & (tree.size() - 1), 1);
  }
  for (std::size_t i = 0; i < protected_.size(); ++i) protected_tree.set(i, 1);
  tree_ = std::move(tree);
  protected_tree_ = std::move(protected_tree);
}

bool Index::set_priority(std::int64_t id, double priority) {
  use_priorities();
  const auto found = ordinals_.find(id);
  if (found == ordinals_.end()) return false;
  const std::int64_t ordinal = found->second;
  if (ordinal < 0) {
    protected_tree_->set(static_cast<std::size_t>(-1 - ordinal), priority);
  } else {
    tree_->set(leaf(ordinal), priority);
  }
  max_priority_ = std::max(max_priority_, priority);
  return true;
}

std::vector<double> Index::priorities() const {
  std::vector<double> result;
  if (!tree_) return result;
  result.reserve(static_cast<std::size_t>(size()));
  for (std::size_t i = 0; i < protected_.size(); ++i) result.push_back((*protected_tree_)[i]);
  for (std::size_t i = 0; i < evictable_.size(); ++i) {
    result.push_back((*tree_)[leaf(first_ + static_cast<std::int64_t>(i))]);
  }
  return result;
}

}  // namespace twohot
