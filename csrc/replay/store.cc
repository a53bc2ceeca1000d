#include "replay/store.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>

#include "replay/checks.h"

namespace twohot {
namespace {

constexpr std::size_t block_bytes = std::size_t{1} << 19;
constexpr std::int64_t max_time = (std::int64_t{1} << 31) - 1;  // times in a batch are int32
constexpr auto refresh_period = std::chrono::milliseconds(100);

std::string describe(const Capacity& capacity) {
  std::string text;
  const auto add = [&](const std::optional<std::int64_t>& value, const char* unit) {
    if (value) text += (text.empty() ? "" : " and ") + std::to_string(*value) + unit;
  };
  add(capacity.steps, " steps");
  add(capacity.bytes, " bytes");
  add(capacity.trajectories, " trajectories");
  return text;
}

}  // namespace

Store::Store(Schema schema, Capacity capacity, std::uint64_t seed, std::optional<DirectoryOptions> options)
    : layout_(std::move(schema)),
      capacity_(capacity),
      options_(std::move(options)),
      process_(process_generation()),
      random_(seed) {
  if (!capacity.steps && !capacity.bytes && !capacity.trajectories) {
    throw std::invalid_argument("expected a capacity in steps, bytes or trajectories; got none");
  }
  if (capacity.trajectories.value_or(1) < 1) {
    throw std::invalid_argument("expected a capacity of at least one trajectory, got " + describe(capacity));
  }
  std::int64_t low = 0;
  std::int64_t high = capacity.steps.value_or(std::int64_t{1} << 40);
  const bool sized = capacity.bytes && !layout_.compresses();  // else commit() knows how many bytes a trajectory takes
  if (sized) high = std::min(high, *capacity.bytes / static_cast<std::int64_t>(layout_.row_bytes()));
  while (low < high) {
    const std::int64_t middle = high - (high - low) / 2;
    const bool fitting = !sized || layout_.bytes(middle) <= static_cast<std::size_t>(*capacity.bytes);
    (fitting ? low : high) = fitting ? middle : middle - 1;
  }
  max_trajectory_steps_ = low;
  if (max_trajectory_steps_ < 1) {
    throw std::invalid_argument("expected a capacity of at least one step (" + std::to_string(layout_.bytes(1)) +
                                " bytes), got " + describe(capacity));
  }
  // Whatever the rounding of the columns adds, so that blocks fill the slabs of their pool.
  const std::size_t rounding = Layout::alignment * layout_.columns().size();
  const auto max_rows =
      static_cast<std::int64_t>((block_bytes - std::min(block_bytes, rounding)) / layout_.row_bytes());
  block_rows_ = std::clamp<std::int64_t>(max_rows, 1, max_trajectory_steps_ + 1);
  block_pool_ = std::make_shared<BlockPool>(layout_.bytes(RowCounts{block_rows_, block_rows_}));
  if (options_) {
    directory_.emplace(options_->directory, options_->segment_bytes, options_->durable, options_->made);
    if (options_->mode != Mode::write) refresh();
  }
}

void Store::require_usable() const {
  if (process_ != process_generation()) {
    throw std::runtime_error("this replay was made before a fork and belongs to the parent process; " +
                             std::string(options_ ? "open its directory again in this process"
                                                  : "one in a directory can be opened by several"));
  }
  if (closed_) throw std::runtime_error("the replay is closed");
}

bool Store::fits(std::int64_t trajectories, std::int64_t steps, std::int64_t bytes) const noexcept {
  return (!capacity_.steps || steps <= *capacity_.steps) && (!capacity_.bytes || bytes <= *capacity_.bytes) &&
         (!capacity_.trajectories || trajectories <= *capacity_.trajectories);
}

void Store::commit(std::span<std::shared_ptr<Trajectory>> finished) {
  require_usable();
  if (options_ && options_->mode == Mode::read) {
    throw std::runtime_error("'" + options_->directory + "' was opened for reading: nothing can be added");
  }
  if (layout_.compresses()) {
    for (const auto& trajectory : finished) trajectory->data = trajectory->data.packed(layout_, arena_.get());
  }
  const std::lock_guard files(files_);
  require_usable();  // close() may have come first
  {
    const std::lock_guard lock(mutex_);
    std::int64_t trajectories = index_.protected_count();
    std::int64_t steps = index_.protected_steps();
    std::int64_t bytes = protected_bytes_;
    for (const auto& trajectory : finished) {
      const auto more = static_cast<std::int64_t>(trajectory->data.bytes(layout_));
      if (trajectory->length > max_trajectory_steps_) {
        throw std::length_error("a trajectory of " + std::to_string(trajectory->length) +
                                " steps exceeds the whole capacity of " + describe(capacity_) +
                                ", which holds at most " + std::to_string(max_trajectory_steps_) +
                                " steps in one trajectory; nothing was stored");
      }
      if (!fits(trajectories + 1, steps + trajectory->length, bytes + more)) {
        throw std::length_error("a trajectory of " + std::to_string(trajectory->length) +
                                " steps does not fit beside the protected ones into the whole capacity of " +
                                describe(capacity_) + "; nothing was stored");
      }
      if (!trajectory->is_protected) continue;
      ++trajectories;
      steps += trajectory->length;
      bytes += more;
    }
  }
  if (directory_) directory_->append(finished, layout_);
  if (!options_ || options_->mode != Mode::write) ingest(finished);
}

// Called with files_ held.
void Store::ingest(std::span<const std::shared_ptr<Trajectory>> finished, bool shrunk) {
  std::vector<std::shared_ptr<const Trajectory>> leaving;  // freed after the lock
  bool reclaimable = false;
  {
    const std::lock_guard lock(mutex_);  // once, so that who draws sees all of it or nothing
    if (shrunk) leaving = drop_uncounted();
    for (const auto& trajectory : finished) {
      const auto bytes = static_cast<std::int64_t>(trajectory->data.bytes(layout_));
      if (!directory_ && trajectory->id < 0) trajectory->id = counters_.next_id;
      counters_.next_id = directory_ ? std::max(counters_.next_id, trajectory->id + 1) : trajectory->id + 1;
      index_.push(trajectory);
      bytes_ += bytes;
      stored_steps_ += trajectory->length;
      if (trajectory->is_protected) protected_bytes_ += bytes;
      while (!fits(index_.size(), stored_steps_, bytes_) && index_.size() > index_.protected_count()) {
        leaving.push_back(index_.pop());
        const Trajectory& evicted = *leaving.back();
        bytes_ -= static_cast<std::int64_t>(evicted.data.bytes(layout_));
        stored_steps_ -= evicted.length;
        ++counters_.evicted_trajectories;
        counters_.evicted_steps += evicted.length;
        if (evicted.segment) evicted.segment->let_go();
        reclaimable = reclaimable || evicted.segment;
      }
    }
  }
  if (reclaimable && options_->mode == Mode::append && !options_->keep_evicted) {
    try {
      const std::vector<std::string> names = directory_->gone(layout_);
      if (!names.empty()) directory_->reclaim(names, layout_);
    } catch (
        const FileError&) {  // what was committed stays so; the files wait for the next time, or reclaim() says why
    }
  }
}

// Called with files_ and mutex_ held.
std::vector<std::shared_ptr<const Trajectory>> Store::drop_uncounted() {
  std::vector<std::shared_ptr<const Trajectory>> leaving =
      index_.remove_unless([](const Trajectory& trajectory) { return trajectory.segment->counts(trajectory); });
  for (const auto& trajectory : leaving) {
    const auto bytes = static_cast<std::int64_t>(trajectory->data.bytes(layout_));
    bytes_ -= bytes;
    stored_steps_ -= trajectory->length;
    if (trajectory->is_protected) protected_bytes_ -= bytes;
    trajectory->segment->let_go();
  }
  return leaving;
}

// Called with files_ held.
void Store::ingest_new() {
  std::vector<std::shared_ptr<Trajectory>> found = directory_->scan(layout_);
  std::unordered_set<std::int64_t> ids;
  std::erase_if(found, [&](const std::shared_ptr<Trajectory>& trajectory) {
    const auto known = find(trajectory->id);
    const bool fresh = ids.insert(trajectory->id).second && (known == nullptr || !known->segment->counts(*known));
    const bool fitting = trajectory->length <= max_trajectory_steps_ && fresh;
    if (!fitting) trajectory->segment->let_go();
    return !fitting;
  });
  ingest(found, directory_->shrunk());
  refreshed_ = std::chrono::steady_clock::now();
  problems_ = static_cast<std::int64_t>(directory_->problems().size());
  if (reported_ == directory_->problems().size() || options_->skip_corrupt) return;
  const std::size_t count = directory_->problems().size() - std::exchange(reported_, directory_->problems().size());
  const Problem& first = directory_->problems()[reported_ - count];
  throw CorruptionError(first.file + ": " + first.what +
                        (count == 1 ? "" : " (and " + std::to_string(count - 1) + " more)"));
}

void Store::refresh() {
  require_usable();
  const std::lock_guard files(files_);
  if (directory_ && options_->mode != Mode::write) ingest_new();
}

std::shared_ptr<Trajectory> Store::copied(std::span<const std::byte* const> columns, std::int64_t steps,
                                          const TrajectoryInfo& info) const {
  if (steps < 1) throw std::invalid_argument("expected a trajectory of at least 1 step, got " + std::to_string(steps));
  if (info.origin < 0 || steps > max_time - info.origin) {
    throw std::invalid_argument("expected steps at times from 0 to 2^31 - 1, got " + std::to_string(steps) + " from " +
                                std::to_string(info.origin) + " on");
  }
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
    const bool done =
        columns[layout_.terminated()][t] != std::byte{0} || columns[layout_.truncated()][t] != std::byte{0};
    if (done != last) {
      throw std::invalid_argument("expected the last step, and no other, to be terminated or truncated; step " +
                                  std::to_string(t) + " of " + std::to_string(steps) + (last ? " is not" : " is"));
    }
  }
  auto trajectory =
      std::make_shared<Trajectory>(TrajectoryData(layout_, steps, info.protect ? nullptr : arena_.get()), info.task);
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const Column& column = layout_.columns()[c];
    const auto rows = static_cast<std::size_t>(steps + column.extra_rows);
    std::memcpy(trajectory->data.owned_column(layout_, c), columns[c], rows * column.row_bytes);
  }
  trajectory->sum_rewards(layout_);
  trajectory->is_protected = info.protect;
  trajectory->origin = info.origin;
  trajectory->id = info.id.value_or(-1);
  return trajectory;
}

std::int64_t Store::add(std::span<const std::byte* const> columns, std::int64_t steps, const TrajectoryInfo& info) {
  require_usable();
  std::shared_ptr<Trajectory> trajectory = copied(columns, steps, info);
  commit(std::span(&trajectory, 1));
  return trajectory->id;
}

void Store::extend(std::span<const std::byte* const> columns, std::span<const std::int64_t> lengths,
                   std::span<const TrajectoryInfo> info) {
  require_usable();
  std::vector<std::shared_ptr<Trajectory>> finished;
  finished.reserve(lengths.size());
  std::vector<const std::byte*> at(columns.begin(), columns.end());
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    try {
      finished.push_back(copied(at, lengths[i], info[i]));
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument("trajectory " + std::to_string(i) + ": " + error.what() + "; nothing was stored");
    }
    for (std::size_t c = 0; c < at.size(); ++c) {
      const Column& column = layout_.columns()[c];
      at[c] += static_cast<std::size_t>(lengths[i] + column.extra_rows) * column.row_bytes;
    }
  }
  commit(finished);
}

std::vector<Window> Store::draw(const Request& request) {
  require_usable();
  if (request.count < 1) {
    throw std::invalid_argument("expected a batch size of at least 1, got " + std::to_string(request.count));
  }
  if (request.length < 1 || request.lookahead < 0) {
    throw std::invalid_argument("expected a length of at least 1 and at least 0 steps lookahead, got " +
                                std::to_string(request.length) + " and " + std::to_string(request.lookahead));
  }
  if (request.half_life && !(*request.half_life > 0 && std::isfinite(*request.half_life))) {
    throw std::invalid_argument("expected a half-life above 0, got " + std::to_string(*request.half_life));
  }
  if (options_ && options_->mode == Mode::write) {
    throw std::runtime_error("'" + options_->directory + "' was opened for writing only: open it to sample from it");
  }
  if (options_) {
    const std::unique_lock files(files_, std::try_to_lock);
    if (files && directory_ && std::chrono::steady_clock::now() - refreshed_ > refresh_period) ingest_new();
  }
  std::vector<Window> windows;
  windows.reserve(static_cast<std::size_t>(request.count));
  const std::lock_guard lock(mutex_);
  require_usable();
  if (index_.size() == 0)
    throw std::runtime_error("the replay is empty: no trajectory has been finished yet, or all have left it");
  const double half_life = request.half_life.value_or(static_cast<double>(index_.size()) / 4);
  // All trajectories before all starts, so that the memory of all is waited for at once.
  const std::vector<Draw> drawn = index_.draw(request.count, request.by, half_life, random_);
  for (const Draw& each : drawn) {
    const std::shared_ptr<const Trajectory>& trajectory = *each.trajectory;
    const std::int64_t first = trajectory->first_start();
    const std::int64_t last = std::max(first, trajectory->length - request.length);
    std::int64_t start = request.window == WindowAnchor::end ? last : first;
    if (request.window == WindowAnchor::anywhere) {
      start += static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(last - first) + 1));
    }
    const std::int64_t steps = std::min(trajectory->length - start, request.length);
    const std::int64_t lookahead = std::min(trajectory->length - start - steps, request.lookahead);
    windows.push_back({trajectory, start, steps, lookahead, each.probability});
  }
  return windows;
}

std::int64_t Store::set_priorities(std::span<const std::int64_t> ids, std::span<const double> priorities) {
  require_usable();
  for (const double priority : priorities) {
    if (!(priority >= 0 && std::isfinite(priority))) {
      throw std::invalid_argument("expected priorities that are finite and at least 0, got " +
                                  std::to_string(priority) + "; none was set");
    }
  }
  const std::lock_guard lock(mutex_);
  std::int64_t found = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) found += index_.set_priority(ids[i], priorities[i]) ? 1 : 0;
  return found;
}

std::shared_ptr<const Trajectory> Store::find(std::int64_t id) const {
  require_usable();
  const std::lock_guard lock(mutex_);
  const auto* found = index_.find(id);
  return found == nullptr ? nullptr : *found;
}

Snapshot Store::snapshot() const {
  require_usable();
  const std::lock_guard lock(mutex_);
  Snapshot result{{}, index_.priorities(), random_.state(), counters_};
  result.trajectories.reserve(static_cast<std::size_t>(index_.size()));
  for (std::int64_t i = 0; i < index_.size(); ++i) result.trajectories.push_back(index_.at(i));
  return result;
}

Stats Store::stats() const {
  require_usable();
  const std::lock_guard lock(mutex_);
  return {index_.size(),
          index_.protected_count(),
          stored_steps_,
          bytes_,
          open_.load(std::memory_order_relaxed),
          problems_.load(std::memory_order_relaxed),
          counters_};
}

bool Store::clear(std::optional<std::span<const std::shared_ptr<const Trajectory>>> these) {
  require_usable();
  std::vector<std::shared_ptr<const Trajectory>> leaving;  // freed after the lock
  const std::lock_guard lock(mutex_);
  leaving.reserve(static_cast<std::size_t>(index_.size()));
  for (std::int64_t i = 0; i < index_.size(); ++i) leaving.push_back(index_.at(i));
  if (these && !std::ranges::equal(*these, leaving)) return false;
  for (const auto& trajectory : leaving) {
    if (trajectory->segment) trajectory->segment->let_go();
  }
  index_.clear();
  bytes_ = 0;
  protected_bytes_ = 0;
  stored_steps_ = 0;
  return true;
}

RandomState Store::random_state() const {
  require_usable();
  const std::lock_guard lock(mutex_);
  return random_.state();
}

void Store::set_random_state(const RandomState& state) {
  require_usable();
  const std::lock_guard lock(mutex_);
  random_.set_state(state);
}

void Store::resume(const Counters& counters) {
  require_usable();
  if (counters.next_id < 0 || counters.evicted_trajectories < 0 || counters.evicted_steps < 0) {
    throw std::invalid_argument("expected counts of at least 0, got a negative one");
  }
  const std::lock_guard lock(mutex_);
  for (std::int64_t i = 0; i < index_.size(); ++i) {
    if (index_.at(i)->id >= counters.next_id) throw std::invalid_argument("expected a next id above every stored one");
  }
  counters_ = counters;
}

// Called with files_ held, as writable().
const Directory& Store::directory() const {
  require_usable();
  if (!directory_) throw std::runtime_error("this replay is in memory: it has no directory");
  return *directory_;
}

Directory& Store::writable() {
  directory();
  if (options_->mode == Mode::read) {
    throw std::runtime_error("'" + options_->directory + "' was opened for reading: nothing in it can be changed");
  }
  return *directory_;
}

std::vector<std::string> Store::evicted_files() const {
  const std::lock_guard files(files_);
  return directory().gone(layout_);
}

std::int64_t Store::reclaim(const std::vector<std::string>& names) {
  const std::lock_guard files(files_);
  return writable().reclaim(names, layout_);
}

void Store::sync() {
  require_usable();
  const std::lock_guard files(files_);
  writable().sync();
}

Position Store::position() const {
  const std::lock_guard files(files_);
  return directory().position(layout_);
}

std::vector<Problem> Store::verify() const {
  std::vector<Problem> problems;
  for (const auto& trajectory : snapshot().trajectories) {
    if (!trajectory->segment || trajectory->segment->intact(*trajectory, layout_)) continue;
    problems.push_back({trajectory->segment->data_path(),
                        "the trajectory with id " + std::to_string(trajectory->id) + " does not have its checksum"});
  }
  const std::lock_guard files(files_);
  if (directory_) problems.insert(problems.begin(), directory_->problems().begin(), directory_->problems().end());
  return problems;
}

void Store::close() {
  if (process_ != process_generation() || closed_.exchange(true)) return;
  const std::lock_guard files(files_);
  Index leaving;  // freed after the lock
  {
    const std::lock_guard lock(mutex_);
    std::swap(index_, leaving);
    bytes_ = 0;
    protected_bytes_ = 0;
    stored_steps_ = 0;
  }
  directory_.reset();
}

}  // namespace twohot
