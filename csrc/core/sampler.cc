#include "core/sampler.h"

#include <cstring>

namespace twohot {
namespace {

// Writes `rows` rows into the window `window` of a column that gives `places` rows to each: the source rows from
// `first` on, where rows before row 0 are zero, and zeros behind them.
void copy_rows(std::byte* column, std::size_t window, std::size_t places, const std::byte* source, std::int64_t first,
               std::size_t rows, std::size_t row_bytes) noexcept {
  std::byte* at = column + window * places * row_bytes;
  const std::size_t missing = first < 0 ? 1 : 0;
  std::memset(at, 0, missing * row_bytes);
  const auto from = static_cast<std::size_t>(first + static_cast<std::int64_t>(missing));
  std::memcpy(at + missing * row_bytes, source + from * row_bytes, (rows - missing) * row_bytes);
  std::memset(at + rows * row_bytes, 0, (places - rows) * row_bytes);
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

void Sampler::sample(Law law, const BatchMemory& batch) {
  const std::vector<Window> windows = store_->draw(batch.batch_size, batch.length, law);
  const std::size_t bytes = windows.size() * (first_bytes_ + static_cast<std::size_t>(batch.length) * step_bytes_);
  const auto pack_row = [&](std::int64_t row) {
    const auto index = static_cast<std::size_t>(row);
    pack(windows[index], batch, index);
  };
  if (bytes < inline_bytes || pool_.threads() == 1) {
    for (std::int64_t row = 0; row < batch.batch_size; ++row) pack_row(row);
  } else {
    pool_.run(batch.batch_size, pack_row);
  }
}

void Sampler::pack(const Window& window, const BatchMemory& batch, std::size_t row) const noexcept {
  const Layout& layout = store_->layout();
  const Block& block = window.trajectory->block;
  const auto length = static_cast<std::size_t>(batch.length);
  const auto steps = static_cast<std::size_t>(window.steps);
  const auto copy = [&](std::byte* target, std::size_t column, std::size_t places, std::int64_t first,
                        std::size_t rows) {
    copy_rows(target, row, places, block.column(column), first, rows, layout.columns()[column].row_bytes);
  };
  for (std::size_t c = 0; c < layout.observations(); ++c) {
    copy(batch.observation[c], c, length + 1, window.start, steps + 1);
  }
  copy(batch.previous_action, layout.action(), length + 1, window.start - 1, steps + 1);
  copy(batch.previous_reward, layout.reward(), length + 1, window.start - 1, steps + 1);
  copy(batch.action, layout.action(), length, window.start, steps);
  copy(batch.reward, layout.reward(), length, window.start, steps);
  copy(batch.terminated, layout.terminated(), length, window.start, steps);
  copy(batch.truncated, layout.truncated(), length, window.start, steps);
  std::memset(batch.mask + row * length, 1, steps);
  std::memset(batch.mask + row * length + steps, 0, length - steps);
  std::int32_t* time = batch.time + row * (length + 1);
  for (std::size_t l = 0; l <= length; ++l) {
    time[l] = l <= steps ? static_cast<std::int32_t>(window.start + static_cast<std::int64_t>(l)) : 0;
  }
  batch.task[row] = window.trajectory->task;
  batch.trajectory[row] = window.trajectory->id;
  batch.start[row] = window.start;
}

}  // namespace twohot
