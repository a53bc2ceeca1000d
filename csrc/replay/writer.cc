#include "replay/writer.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "core/busy.h"
#include "core/non_temporal_copy.h"
#include "replay/checks.h"

namespace twohot {
namespace {

// Rows of this size are written by non-temporal stores: caches hold more urgent things than what was just stored.
constexpr std::size_t non_temporal_row = 4096;

std::string environment(std::int64_t index) { return "environment " + std::to_string(index); }

bool takes_part(const std::uint8_t* mask, std::size_t index) noexcept { return mask == nullptr || mask[index] != 0; }

bool set(const std::byte* flags, std::size_t index) noexcept { return flags[index] != std::byte{0}; }

}  // namespace

Writer::Writer(std::shared_ptr<Store> store, std::int64_t environments, Chunking chunking)
    : store_(std::move(store)), chunking_(chunking), block_rows_{store_->block_rows(), store_->block_rows()} {
  if (environments < 1) {
    throw std::invalid_argument("expected at least 1 environment, got " + std::to_string(environments));
  }
  if (chunking.length != 0 && (chunking.overlap < 1 || chunking.length <= chunking.overlap)) {
    throw std::invalid_argument("expected chunks of more steps than their overlap of at least 1, got " +
                                std::to_string(chunking.length) + " and " + std::to_string(chunking.overlap));
  }
  const Layout& layout = store_->layout();
  for (std::size_t c = 0; c < layout.columns().size(); ++c) offsets_.push_back(layout.offset(c, block_rows_));
  open_.resize(static_cast<std::size_t>(environments));
  finishing_.reserve(open_.size());
}

Writer::~Writer() {
  for (Open& open : open_) close(open);
}

void Writer::close(Open& open) noexcept {
  if (open.active) store_->count_open(-1);
  open.active = false;
  open.length = 0;
  open.origin = 0;
  if (open.blocks.size() > 1) open.blocks.resize(1);
}

void Writer::reserve(Open& open, std::int64_t rows) const {
  while (static_cast<std::int64_t>(open.blocks.size()) * block_rows_.steps < rows) {
    open.blocks.push_back(store_->block_pool()->take());
  }
}

std::byte* Writer::at(const Open& open, std::size_t column, std::int64_t row) const noexcept {
  std::byte* block = open.blocks[static_cast<std::size_t>(row / block_rows_.steps)].get();
  const auto within = static_cast<std::size_t>(row % block_rows_.steps);
  return block + offsets_[column] + within * store_->layout().columns()[column].row_bytes;
}

void Writer::check(std::span<const std::byte* const> columns, const std::uint8_t* mask) const {
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const Column& column = store_->layout().columns()[c];
    const std::int64_t row = c == store_->layout().reward() ? first_not_finite(columns[c], environments(), mask)
                                                            : first_nan(column, columns[c], environments(), mask);
    if (row < 0) continue;
    const std::string kind = column.extra_rows != 0 ? "observation '" + column.field.name + "'" : column.field.name;
    const std::string fault = c == store_->layout().reward() ? " is not finite" : " is NaN";
    throw std::invalid_argument(kind + " of " + environment(row) + fault + "; nothing of this call was stored");
  }
}

void Writer::begin(std::span<const std::byte* const> observation, const std::uint8_t* mask, const std::int32_t* task) {
  store_->require_usable();
  const Busy busy(busy_, "a writer");
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (takes_part(mask, e) && open_[e].active) {
      throw std::runtime_error("begin: " + environment(static_cast<std::int64_t>(e)) +
                               " has an open trajectory; finish it by append() or cut(), or drop it by discard()");
    }
  }
  check(observation, mask);
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (takes_part(mask, e)) reserve(open_[e], 1);
  }
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (!takes_part(mask, e)) continue;
    Open& open = open_[e];
    for (std::size_t c = 0; c < observation.size(); ++c) {
      const std::size_t bytes = store_->layout().columns()[c].row_bytes;
      std::memcpy(at(open, c, 0), observation[c] + e * bytes, bytes);
    }
    open.task = task == nullptr ? 0 : task[e];
    open.active = true;
    store_->count_open(1);
  }
}

void Writer::append(std::span<const std::byte* const> columns, const std::uint8_t* mask) {
  store_->require_usable();
  const Busy busy(busy_, "a writer");
  const Layout& layout = store_->layout();
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (!takes_part(mask, e)) continue;
    if (!open_[e].active) {
      throw std::runtime_error("append: " + environment(static_cast<std::int64_t>(e)) +
                               " has no open trajectory; call begin() first; nothing of this call was stored");
    }
    if (open_[e].length >= store_->max_trajectory_steps()) {
      throw std::length_error("append: the trajectory of " + environment(static_cast<std::int64_t>(e)) + " holds " +
                              std::to_string(open_[e].length) +
                              " steps and one more would exceed the whole capacity of the replay; nothing of this "
                              "call was stored: cut() keeps what the open trajectories hold, discard() drops it");
    }
  }
  check(columns, mask);
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (takes_part(mask, e)) reserve(open_[e], open_[e].length + 2);
  }
  // Column by column: the rows of one column of all environments lie side by side in the arguments.
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const Column& column = layout.columns()[c];
    for (std::size_t e = 0; e < open_.size(); ++e) {
      if (!takes_part(mask, e)) continue;
      std::byte* target = at(open_[e], c, open_[e].length + column.extra_rows);
      const std::byte* source = columns[c] + e * column.row_bytes;
      if (column.row_bytes >= non_temporal_row) {
        non_temporal_copy(target, source, column.row_bytes);
      } else {
        std::memcpy(target, source, column.row_bytes);
      }
    }
  }
  non_temporal_fence();
  finishing_.clear();
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (!takes_part(mask, e)) continue;
    open_[e].ends = set(columns[layout.terminated()], e) || set(columns[layout.truncated()], e);
    if (open_[e].ends || open_[e].length + 1 == chunking_.length) finishing_.push_back(e);
  }
  for (const std::size_t e : finishing_) ++open_[e].length;
  try {
    commit(finishing_, false);
  } catch (...) {
    for (const std::size_t e : finishing_) --open_[e].length;
    throw;
  }
  std::size_t next = 0;
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (next < finishing_.size() && finishing_[next] == e) {
      ++next;
    } else if (takes_part(mask, e)) {
      ++open_[e].length;
    }
  }
}

std::shared_ptr<Trajectory> Writer::finish(const Open& open) const {
  const Layout& layout = store_->layout();
  const bool copied = store_->on_disk() || layout.compresses();  // by the store, so that a copy here would be in vain
  auto trajectory = std::make_shared<Trajectory>(
      TrajectoryData(layout, open.length, open.blocks, block_rows_.steps, copied ? nullptr : store_->arena().get()),
      open.task);
  trajectory->origin = open.origin;
  trajectory->sum_rewards(layout);
  return trajectory;
}

// The rows of the last `overlap` steps, and the observation after them, in blocks of their own.
std::vector<MemoryBlock> Writer::carried(const Open& open) const {
  const Layout& layout = store_->layout();
  Open target;
  reserve(target, chunking_.overlap + 1);
  for (std::size_t c = 0; c < layout.columns().size(); ++c) {
    const Column& column = layout.columns()[c];
    for (std::int64_t row = 0; row < chunking_.overlap + column.extra_rows; ++row) {
      std::memcpy(at(target, c, row), at(open, c, open.length - chunking_.overlap + row), column.row_bytes);
    }
  }
  return std::move(target.blocks);
}

// Commits the open trajectories of these environments; then each is closed, or goes on as the next chunk.
void Writer::commit(std::span<const std::size_t> environments, bool truncate) {
  if (environments.empty()) return;
  std::vector<std::shared_ptr<Trajectory>> finished;
  std::vector<std::vector<MemoryBlock>> next(environments.size());
  finished.reserve(environments.size());
  const auto mark = [&](const Open& open, std::byte truncated) {
    if (truncate || !open.ends) *at(open, store_->layout().truncated(), open.length - 1) = truncated;
  };
  try {
    for (std::size_t i = 0; i < environments.size(); ++i) {
      const Open& open = open_[environments[i]];
      if (!truncate && !open.ends) next[i] = carried(open);
      mark(open, std::byte{1});
      finished.push_back(finish(open));
    }
    store_->commit(finished);
  } catch (...) {
    for (const std::size_t e : environments) mark(open_[e], std::byte{0});
    throw;
  }
  for (std::size_t i = 0; i < environments.size(); ++i) {
    Open& open = open_[environments[i]];
    if (!next[i].empty()) {
      open.origin += open.length - chunking_.overlap;
      open.length = chunking_.overlap;
      open.blocks = std::move(next[i]);
      continue;
    }
    // The store has the full blocks of its own trajectories; the last one is free for the next.
    const auto used = static_cast<std::size_t>((open.length + 1) / block_rows_.steps);
    if (!store_->on_disk() && !store_->layout().compresses())
      open.blocks.erase(open.blocks.begin(), open.blocks.begin() + static_cast<long>(used));
    close(open);
  }
}

void Writer::cut() {
  store_->require_usable();
  const Busy busy(busy_, "a writer");
  finishing_.clear();
  for (std::size_t e = 0; e < open_.size(); ++e) {
    const std::int64_t carried = open_[e].origin > 0 ? chunking_.overlap : 0;
    if (open_[e].active && open_[e].length > carried) finishing_.push_back(e);
  }
  commit(finishing_, true);
  for (Open& open : open_) close(open);
}

void Writer::discard(const std::uint8_t* mask) {
  store_->require_usable();
  const Busy busy(busy_, "a writer");
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (mask == nullptr || mask[e] != 0) close(open_[e]);
  }
}

}  // namespace twohot
