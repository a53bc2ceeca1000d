#include "replay/sampler.h"

#include <atomic>
#include <cstring>
#include <string>

#include "core/non_temporal_copy.h"

namespace twohot {
namespace {

// Windows whose memory is prefetched before they are packed.
constexpr std::size_t prefetched = 4;

// The part of a column of the batch that one window fills: `capacity` rows, of which `rows` from `offset` on are real.
struct Target {
  std::byte* memory;
  std::size_t capacity;
  std::size_t offset;
  std::size_t rows;
  bool non_temporal;
};

// Fills a target with the rows of a column from `first` on, where rows before row 0 are zero, and zeros around them.
// False where they cannot be read.
bool fill(const Target& target, const TrajectoryData& source, const Layout& layout, std::size_t column,
          std::int64_t first) {
  const std::size_t row_bytes = layout.columns()[column].row_bytes;
  const std::size_t missing = first < 0 ? 1 : 0;
  const std::size_t before = (target.offset + missing) * row_bytes;
  const std::size_t rows = target.rows - missing;
  const std::size_t end = before + rows * row_bytes;
  std::memset(target.memory, 0, before);
  std::memset(target.memory + end, 0, target.capacity * row_bytes - end);
  return source.read(layout, column, first + static_cast<std::int64_t>(missing), static_cast<std::int64_t>(rows),
                     target.memory + before, target.non_temporal);
}

}  // namespace

Sampler::Sampler(std::shared_ptr<Store> store, int threads) : store_(std::move(store)), pool_(threads) {
  const Layout& layout = store_->layout();
  for (const Column& column : layout.columns()) {
    first_bytes_ += column.extra_rows != 0 ? column.row_bytes : 0;
    step_bytes_ += column.row_bytes;
  }
  const std::size_t action_bytes = layout.columns()[layout.action()].row_bytes;
  const std::size_t previous = action_bytes + layout.columns()[layout.reward()].row_bytes;
  first_bytes_ += previous + sizeof(std::int32_t);
  step_bytes_ += previous + sizeof(std::int32_t) + 1;
}

void Sampler::sample(const Request& request, const BatchMemory& batch) { pack(store_->draw(request), batch); }

void Sampler::pack(std::span<const Window> windows, const BatchMemory& batch) {
  const auto steps = static_cast<std::size_t>(batch.length + batch.lookahead);
  const std::size_t bytes = windows.size() * (first_bytes_ + steps * step_bytes_);
  const bool non_temporal = bytes >= non_temporal_bytes;
  const auto hint = [&](std::size_t index) {
    if (index >= windows.size()) return;
    const Window& window = windows[index];
    window.trajectory->data.prefetch(store_->layout(), window.start, window.steps + window.lookahead);
  };
  if (bytes >= inline_bytes) {
    for (const Window& window : windows) {
      window.trajectory->data.read_ahead(store_->layout(), window.start, window.steps + window.lookahead);
    }
  }
  for (std::size_t i = 0; i < prefetched; ++i) hint(i);
  std::atomic<std::int64_t> corrupt{-1};
  const auto pack_one = [&](std::int64_t row) {
    const auto index = static_cast<std::size_t>(row);
    hint(index + prefetched);
    if (!pack_row(windows[index], batch, index, non_temporal)) corrupt = row;
    if (non_temporal) non_temporal_fence();
  };
  if (bytes < inline_bytes || pool_.threads() == 1) {
    for (std::int64_t row = 0; row < batch.batch_size; ++row) pack_one(row);
  } else {
    pool_.run(batch.batch_size, pack_one);
  }
  if (corrupt >= 0) {
    const Trajectory& trajectory = *windows[static_cast<std::size_t>(corrupt.load())].trajectory;
    throw CorruptionError((trajectory.segment ? trajectory.segment->data_path() + ": " : "") +
                          "the trajectory with id " + std::to_string(trajectory.id) + " cannot be decompressed");
  }
}

bool Sampler::pack_row(const Window& window, const BatchMemory& batch, std::size_t row, bool non_temporal) const {
  const Layout& layout = store_->layout();
  const TrajectoryData& source = window.trajectory->data;
  const auto capacity = static_cast<std::size_t>(batch.length + batch.lookahead);
  const auto steps = static_cast<std::size_t>(window.steps + window.lookahead);
  const auto counted = static_cast<std::size_t>(window.steps);
  const std::size_t offset = batch.pad_left ? capacity - steps : 0;
  bool whole = true;
  const auto copy = [&](std::byte* memory, std::size_t column, std::size_t extra, std::int64_t first) {
    std::byte* at = memory + row * (capacity + extra) * layout.columns()[column].row_bytes;
    whole = fill({at, capacity + extra, offset, steps + extra, non_temporal}, source, layout, column, first) && whole;
  };
  for (std::size_t c = 0; c < layout.observations(); ++c) copy(batch.observation[c], c, 1, window.start);
  copy(batch.previous_action, layout.action(), 1, window.start - 1);
  copy(batch.previous_reward, layout.reward(), 1, window.start - 1);
  copy(batch.action, layout.action(), 0, window.start);
  copy(batch.reward, layout.reward(), 0, window.start);
  copy(batch.terminated, layout.terminated(), 0, window.start);
  copy(batch.truncated, layout.truncated(), 0, window.start);
  for (std::size_t c = 0; c < batch.step.size(); ++c) copy(batch.step[c], layout.step_fields() + c, 0, window.start);
  std::byte* mask = batch.mask + row * capacity;
  std::memset(mask, 0, capacity);
  std::memset(mask + offset, 1, counted);
  std::int32_t* time = batch.time + row * (capacity + 1);
  std::memset(time, 0, (capacity + 1) * sizeof *time);
  const auto first = static_cast<std::int32_t>(window.trajectory->origin + window.start);
  for (std::size_t l = 0; l <= steps; ++l) time[offset + l] = first + static_cast<std::int32_t>(l);
  batch.task[row] = window.trajectory->task;
  batch.trajectory[row] = window.trajectory->id;
  batch.start[row] = window.start;
  batch.probability[row] = window.probability;
  return whole;
}

}  // namespace twohot
