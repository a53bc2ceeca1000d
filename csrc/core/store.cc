#include "core/store.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "core/checks.h"

namespace twohot {
namespace {

std::string describe(const Capacity& capacity) {
  std::string text;
  if (capacity.steps) text += std::to_string(*capacity.steps) + " steps";
  if (capacity.steps && capacity.bytes) text += " and ";
  if (capacity.bytes) text += std::to_string(*capacity.bytes) + " bytes";
  return text;
}

}  // namespace

Store::Store(Schema schema, Capacity capacity, std::uint64_t seed)
    : layout_(std::move(schema)), capacity_(capacity), random_(seed) {
  if (!capacity.steps && !capacity.bytes) {
    throw std::invalid_argument("expected a capacity in steps, in bytes or both; got neither");
  }
  std::int64_t low = 0;
  std::int64_t high = capacity.steps.value_or(std::numeric_limits<std::int64_t>::max());
  if (capacity.bytes) {
    std::size_t step_bytes = 0;
    for (const Column& column : layout_.columns()) step_bytes += column.row_bytes;
    high = std::min(high, *capacity.bytes / static_cast<std::int64_t>(step_bytes));
  }
  while (low < high) {
    const std::int64_t middle = high - (high - low) / 2;
    const bool fitting = !capacity.bytes || layout_.bytes(middle) <= static_cast<std::size_t>(*capacity.bytes);
    (fitting ? low : high) = fitting ? middle : middle - 1;
  }
  longest_ = low;
  if (longest_ < 1) {
    throw std::invalid_argument("expected a capacity of at least one step (" + std::to_string(layout_.bytes(1)) +
                                " bytes), got " + describe(capacity));
  }
}

bool Store::fits(std::int64_t steps, std::int64_t bytes) const noexcept {
  return (!capacity_.steps || steps <= *capacity_.steps) && (!capacity_.bytes || bytes <= *capacity_.bytes);
}

void Store::commit(std::span<const std::shared_ptr<Trajectory>> finished) {
  for (const auto& trajectory : finished) {
    if (trajectory->length > longest_) {
      throw std::length_error("a trajectory of " + std::to_string(trajectory->length) +
                              " steps exceeds the whole capacity of " + describe(capacity_) + ", which holds at most " +
                              std::to_string(longest_) + " steps in one trajectory; nothing was stored");
    }
  }
  std::vector<Entry> leaving;  // freed after the lock
  std::lock_guard lock(mutex_);
  const std::size_t before = entries_.size();
  std::int64_t begin = begin_;
  std::int64_t end = end_;
  std::int64_t bytes = bytes_;
  std::size_t evicted = 0;
  try {
    for (const auto& trajectory : finished) {
      end += trajectory->length;
      bytes += static_cast<std::int64_t>(trajectory->block.bytes());
      entries_.push_back({trajectory, end});
    }
    for (; !fits(end - begin, bytes); ++evicted) {
      begin = entries_[evicted].end;
      bytes -= static_cast<std::int64_t>(entries_[evicted].trajectory->block.bytes());
    }
    leaving.reserve(evicted);
  } catch (...) {
    while (entries_.size() > before) entries_.pop_back();
    throw;
  }
  for (const auto& trajectory : finished) trajectory->id = counters_.next_id++;
  for (std::size_t i = 0; i < evicted; ++i) {
    leaving.push_back(std::move(entries_.front()));
    entries_.pop_front();
  }
  counters_.evicted_trajectories += static_cast<std::int64_t>(evicted);
  counters_.evicted_steps += begin - begin_;
  begin_ = begin;
  end_ = end;
  bytes_ = bytes;
}

std::int64_t Store::insert(std::span<const std::byte* const> columns, std::int64_t steps, std::int32_t task) {
  if (steps < 1) throw std::invalid_argument("expected a trajectory of at least 1 step, got " + std::to_string(steps));
  const auto row = first_not_finite(columns[layout_.reward()], steps, nullptr);
  if (row >= 0) throw std::invalid_argument("reward of step " + std::to_string(row) + " is not finite");
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const Column& column = layout_.columns()[c];
    const auto bad = first_nan(column, columns[c], steps + column.extra_rows, nullptr);
    if (bad >= 0) {
      throw std::invalid_argument((column.extra_rows == 0 ? "'" : "observation '") + column.field.name +
                                  "' is NaN in row " + std::to_string(bad));
    }
  }
  for (std::int64_t t = 0; t < steps; ++t) {
    const bool last = t + 1 == steps;
    const bool done = columns[layout_.terminated()][t] != std::byte{0} ||
                      columns[layout_.truncated()][t] != std::byte{0};
    if (done != last) {
      throw std::invalid_argument("expected the last step, and no other, to be terminated or truncated; step " +
                                  std::to_string(t) + " of " + std::to_string(steps) + (last ? " is not" : " is"));
    }
  }
  const auto trajectory = std::make_shared<Trajectory>(layout_, steps, task);
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const Column& column = layout_.columns()[c];
    const auto rows = static_cast<std::size_t>(steps + column.extra_rows);
    std::memcpy(trajectory->block.column(c), columns[c], rows * column.row_bytes);
  }
  trajectory->sum_rewards(layout_);
  commit(std::span(&trajectory, 1));
  return trajectory->id;
}

std::vector<Window> Store::draw(std::int64_t count, std::int64_t length, Law law) {
  if (count < 1) throw std::invalid_argument("expected a batch size of at least 1, got " + std::to_string(count));
  if (length < 1) throw std::invalid_argument("expected a length of at least 1, got " + std::to_string(length));
  std::vector<Window> windows;
  windows.reserve(static_cast<std::size_t>(count));
  std::lock_guard lock(mutex_);
  if (entries_.empty()) throw std::runtime_error("the replay is empty: no trajectory has been finished yet");
  for (std::int64_t i = 0; i < count; ++i) {
    auto entry = entries_.begin();
    if (law == Law::trajectory) {
      entry += static_cast<std::ptrdiff_t>(random_.below(entries_.size()));
    } else {
      const auto steps = static_cast<std::uint64_t>(end_ - begin_);
      const std::int64_t step = begin_ + static_cast<std::int64_t>(random_.below(steps));
      entry = std::upper_bound(entries_.begin(), entries_.end(), step,
                               [](std::int64_t value, const Entry& candidate) { return value < candidate.end; });
    }
    const std::int64_t steps = entry->trajectory->length;
    const std::int64_t last_start = std::max<std::int64_t>(0, steps - length);
    const auto start = static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(last_start) + 1));
    windows.push_back({entry->trajectory, start, std::min(steps, length)});
  }
  return windows;
}

std::shared_ptr<const Trajectory> Store::find(std::int64_t id) const {
  std::lock_guard lock(mutex_);
  const std::int64_t oldest = counters_.next_id - static_cast<std::int64_t>(entries_.size());
  if (id < oldest || id >= counters_.next_id) return nullptr;
  return entries_[static_cast<std::size_t>(id - oldest)].trajectory;
}

Snapshot Store::snapshot() const {
  std::lock_guard lock(mutex_);
  Snapshot result{{}, random_.state(), counters_};
  result.trajectories.reserve(entries_.size());
  for (const Entry& entry : entries_) result.trajectories.push_back(entry.trajectory);
  return result;
}

Stats Store::stats() const {
  std::lock_guard lock(mutex_);
  return {static_cast<std::int64_t>(entries_.size()), end_ - begin_, bytes_, open_.load(std::memory_order_relaxed),
          counters_};
}

void Store::clear() {
  std::deque<Entry> leaving;  // freed after the lock
  std::lock_guard lock(mutex_);
  leaving.swap(entries_);
  begin_ = end_;
  bytes_ = 0;
}

RandomState Store::random_state() const {
  std::lock_guard lock(mutex_);
  return random_.state();
}

void Store::set_random_state(const RandomState& state) {
  std::lock_guard lock(mutex_);
  random_.set_state(state);
}

void Store::resume(const Counters& counters) {
  if (counters.next_id < 0 || counters.evicted_trajectories < 0 || counters.evicted_steps < 0) {
    throw std::invalid_argument("expected counts of at least 0, got a negative one");
  }
  std::lock_guard lock(mutex_);
  if (!entries_.empty()) throw std::runtime_error("only an empty replay can resume the counting of another");
  counters_ = counters;
}

}  // namespace twohot
