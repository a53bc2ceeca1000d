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
  const std::size_t needed = passing_.size() + 1;
  if (needed > tree_->size()) {
    SumTree larger(2 * tree_->size());
    for (std::size_t i = 0; i < passing_.size(); ++i) {
      const auto place = static_cast<std::size_t>(first_) + i;
      larger.set(place & (larger.size() - 1), (*tree_)[leaf(static_cast<std::int64_t>(place))]);
    }
    tree_ = std::move(larger);
  }
  if (kept_.size() + 1 > kept_tree_->size()) {
    SumTree larger(2 * kept_tree_->size());
    for (std::size_t i = 0; i < kept_.size(); ++i) larger.set(i, (*kept_tree_)[i]);
    kept_tree_ = std::move(larger);
  }
}

void Index::push(std::shared_ptr<const Trajectory> trajectory) {
  const bool kept = trajectory->kept;
  const std::int64_t id = trajectory->id;
  const std::int64_t length = trajectory->length;
  const std::int64_t place = kept ? -1 - kept_count() : first_ + static_cast<std::int64_t>(passing_.size());
  // What may throw comes first, and what it leaves behind changes nothing.
  if (tree_) make_room();
  const std::int64_t guides =
      kept ? 0 : (end_ + length + guide_steps - 1) / guide_steps - (end_ + guide_steps - 1) / guide_steps;
  Task& task = tasks_.try_emplace(trajectory->task, Task{trajectory->task, {}, {}}).first->second;
  const bool absent = task.size() == 0;
  if (absent) make_space(present_);
  if (kept) make_space(kept_);
  std::int64_t guided = 0;
  bool listed = false;
  bool mapped = false;
  try {
    mapped = places_.emplace(id, place).second;
    if (kept) {
      task.kept.push_back(place);
    } else {
      task.passing.push_back(place);
    }
    listed = true;
    for (; guided < guides; ++guided) guide_.push_back(place);
    if (kept) {
      kept_.push_back({std::move(trajectory), kept_steps() + length});
    } else {
      passing_.push_back({std::move(trajectory), end_ + length});
    }
  } catch (...) {
    for (; guided > 0; --guided) guide_.pop_back();
    if (listed && kept) task.kept.pop_back();
    if (listed && !kept) task.passing.pop_back();
    if (mapped) places_.erase(id);
    throw;
  }
  if (absent) {
    const auto after = std::upper_bound(present_.begin(), present_.end(), task.label,
                                        [](std::int32_t label, const Task* other) { return label < other->label; });
    present_.insert(after, &task);
  }
  if (!kept) end_ += length;
  if (tree_) {
    (kept ? *kept_tree_ : *tree_).set(kept ? kept_.size() - 1 : leaf(place), largest_priority_);
  }
}

std::shared_ptr<const Trajectory> Index::pop() noexcept {
  std::shared_ptr<const Trajectory> leaving = std::move(passing_.front().trajectory);
  begin_ = passing_.front().end;
  passing_.pop_front();
  if (tree_) tree_->set(leaf(first_), 0);
  while (!guide_.empty() && guide_.front() == first_) guide_.pop_front();
  places_.erase(leaving->id);
  const auto found = tasks_.find(leaving->task);
  Task& task = found->second;
  task.passing.pop_front();
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
  for (std::int64_t position = 0; position < size(); ++position) {
    const std::shared_ptr<const Trajectory>& trajectory = at(position);
    if (!keeps(*trajectory)) {
      leaving.push_back(trajectory);
      continue;
    }
    rest.push(trajectory);
    if (tree_) rest.set_priority(trajectory->id, priorities[static_cast<std::size_t>(position)]);
  }
  if (leaving.empty()) return leaving;
  rest.largest_priority_ = largest_priority_;
  std::swap(*this, rest);
  return leaving;
}

void Index::clear() noexcept {
  first_ += static_cast<std::int64_t>(passing_.size());
  begin_ = end_;
  kept_.clear();
  passing_.clear();
  guide_.clear();
  places_.clear();
  present_.clear();
  tasks_.clear();
  tree_.reset();
  kept_tree_.reset();
  largest_priority_ = 1;
}

const std::shared_ptr<const Trajectory>& Index::placed(std::int64_t place) const noexcept {
  return place < 0 ? kept_[static_cast<std::size_t>(-1 - place)].trajectory
                   : passing_[static_cast<std::size_t>(place - first_)].trajectory;
}

const std::shared_ptr<const Trajectory>& Index::at(std::int64_t position) const noexcept {
  return placed(position < kept_count() ? -1 - position : first_ + position - kept_count());
}

const std::shared_ptr<const Trajectory>* Index::find(std::int64_t id) const noexcept {
  const auto found = places_.find(id);
  return found == places_.end() ? nullptr : &placed(found->second);
}

// The last guide at or before a step, or -1 where there is none; `step` counts the kept steps, then the others.
std::int64_t Index::guide_of_step(std::int64_t step) const noexcept {
  if (step < kept_steps()) return -1;
  const std::int64_t first_guide = (begin_ + guide_steps - 1) / guide_steps;
  return std::max<std::int64_t>(-1, (begin_ + step - kept_steps()) / guide_steps - first_guide);
}

std::int64_t Index::place_of_step(std::int64_t step) const noexcept {
  const auto before = [](std::int64_t value, const Entry& entry) { return value < entry.end; };
  if (step < kept_steps()) {
    return -1 - (std::upper_bound(kept_.begin(), kept_.end(), step, before) - kept_.begin());
  }
  const std::int64_t absolute = begin_ + step - kept_steps();
  const std::int64_t guide = guide_of_step(step);
  const std::int64_t low = guide >= 0 ? guide_[static_cast<std::size_t>(guide)] - first_ : 0;
  const std::int64_t high = guide + 1 < static_cast<std::int64_t>(guide_.size())
                                ? guide_[static_cast<std::size_t>(guide + 1)] - first_ + 1
                                : static_cast<std::int64_t>(passing_.size());
  return first_ +
         (std::upper_bound(passing_.begin() + low, passing_.begin() + high, absolute, before) - passing_.begin());
}

std::vector<Drawn> Index::draw(std::int64_t count, Law law, double half_life, RandomStream& random) {
  std::vector<Drawn> drawn;
  drawn.reserve(static_cast<std::size_t>(count));
  if (law == Law::step) {
    draw_by_steps(drawn, count, random);
  } else {
    for (std::int64_t i = 0; i < count; ++i) {
      drawn.push_back(draw_one(law, half_life, random));
      prefetch(drawn.back().trajectory);
    }
  }
  for (const Drawn& each : drawn) prefetch(each.trajectory->get(), sizeof(Trajectory));
  return drawn;
}

// In passes, so that what all draws look up is waited for at once.
void Index::draw_by_steps(std::vector<Drawn>& drawn, std::int64_t count, RandomStream& random) {
  std::vector<std::int64_t> chosen(static_cast<std::size_t>(count));
  for (std::int64_t& step : chosen) {
    step = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(steps())));
    const std::int64_t guide = guide_of_step(step);
    if (guide >= 0) prefetch(&guide_[static_cast<std::size_t>(guide)]);
  }
  for (const std::int64_t step : chosen) {
    const std::int64_t guide = guide_of_step(step);
    if (guide >= 0)
      prefetch(&passing_[static_cast<std::size_t>(guide_[static_cast<std::size_t>(guide)] - first_)], 128);
  }
  for (const std::int64_t step : chosen) drawn.push_back({&placed(place_of_step(step)), 0});
  for (const Drawn& each : drawn) prefetch(each.trajectory->get(), sizeof(Trajectory));
  for (Drawn& each : drawn) {
    each.probability = static_cast<double>((*each.trajectory)->length) / static_cast<double>(steps());
  }
}

// Law::step is drawn by draw_by_steps.
Drawn Index::draw_one(Law law, double half_life, RandomStream& random) {
  const auto count = static_cast<double>(size());
  const auto below = [&](std::int64_t bound) {
    return static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(bound)));
  };
  switch (law) {
    case Law::trajectory:
    case Law::step: break;
    case Law::recency: {
      // P(age a) = q^a (1 - q) / (1 - q^n), drawn by inverting its distribution function.
      const double log_q = -std::log(2.0) / half_life;
      const double mass = -std::expm1(count * log_q);
      const double age = std::floor(std::log1p(-unit(random) * mass) / log_q);
      const auto whole = static_cast<std::int64_t>(std::clamp(age, 0.0, count - 1));
      return {&at(size() - 1 - whole), std::exp(static_cast<double>(whole) * log_q) * -std::expm1(log_q) / mass};
    }
    case Law::priority: {
      use_priorities();
      const double total = kept_tree_->total() + tree_->total();
      if (!(total > 0)) throw std::runtime_error("all priorities are 0: there is nothing to draw from");
      const double target = unit(random) * total;
      if (kept_tree_->total() > 0 && (target < kept_tree_->total() || tree_->total() <= 0)) {
        const std::size_t found = kept_tree_->find(target);
        return {&kept_[found].trajectory, (*kept_tree_)[found] / total};
      }
      const std::size_t found = tree_->find(target - kept_tree_->total());
      const std::size_t offset = (found - leaf(first_)) & (tree_->size() - 1);
      return {&passing_[offset].trajectory, (*tree_)[found] / total};
    }
    case Law::task: {
      const Task& task = *present_[static_cast<std::size_t>(below(static_cast<std::int64_t>(present_.size())))];
      const auto place = static_cast<std::size_t>(below(static_cast<std::int64_t>(task.size())));
      const double probability = 1 / (static_cast<double>(present_.size()) * static_cast<double>(task.size()));
      return {&placed(place < task.kept.size() ? task.kept[place] : task.passing[place - task.kept.size()]),
              probability};
    }
  }
  return {&at(below(size())), 1 / count};
}

void Index::use_priorities() {
  if (tree_) return;
  SumTree tree(passing_.size() + 1);
  SumTree kept(kept_.size() + 1);
  for (std::size_t i = 0; i < passing_.size(); ++i) {
    tree.set((static_cast<std::size_t>(first_) + i) & (tree.size() - 1), 1);
  }
  for (std::size_t i = 0; i < kept_.size(); ++i) kept.set(i, 1);
  tree_ = std::move(tree);
  kept_tree_ = std::move(kept);
}

bool Index::set_priority(std::int64_t id, double priority) {
  use_priorities();
  const auto found = places_.find(id);
  if (found == places_.end()) return false;
  const std::int64_t place = found->second;
  if (place < 0) {
    kept_tree_->set(static_cast<std::size_t>(-1 - place), priority);
  } else {
    tree_->set(leaf(place), priority);
  }
  largest_priority_ = std::max(largest_priority_, priority);
  return true;
}

std::vector<double> Index::priorities() const {
  std::vector<double> result;
  if (!tree_) return result;
  result.reserve(static_cast<std::size_t>(size()));
  for (std::size_t i = 0; i < kept_.size(); ++i) result.push_back((*kept_tree_)[i]);
  for (std::size_t i = 0; i < passing_.size(); ++i) {
    result.push_back((*tree_)[leaf(first_ + static_cast<std::int64_t>(i))]);
  }
  return result;
}

}  // namespace twohot
