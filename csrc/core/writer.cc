#include "core/writer.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "core/checks.h"

namespace twohot {
namespace {

std::string environment(std::int64_t index) { return "environment " + std::to_string(index); }

bool takes_part(const std::uint8_t* mask, std::size_t index) noexcept { return mask == nullptr || mask[index] != 0; }

bool set(const std::byte* flags, std::size_t index) noexcept { return flags[index] != std::byte{0}; }

}  // namespace

class Writer::Busy {
 public:
  explicit Busy(std::atomic_flag& flag) : flag_(flag) {
    if (flag_.test_and_set(std::memory_order_acquire)) {
      throw std::runtime_error("a writer serves one thread at a time: another call is in progress");
    }
  }
  ~Busy() { flag_.clear(std::memory_order_release); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  std::atomic_flag& flag_;
};

Writer::Writer(std::shared_ptr<Store> store, std::int64_t environments) : store_(std::move(store)) {
  if (environments < 1) {
    throw std::invalid_argument("expected at least 1 environment, got " + std::to_string(environments));
  }
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
}

void Writer::reserve(Open& open, std::int64_t steps) {
  if (steps <= open.capacity) return;
  const Layout& layout = store_->layout();
  const std::int64_t capacity = std::min(std::max<std::int64_t>({steps, 16, 2 * open.capacity}), store_->longest());
  Block block(layout, capacity);
  if (open.active) block.copy_steps(*open.block, layout, open.length);
  open.block = std::move(block);
  open.capacity = capacity;
}

void Writer::put(Open& open, std::size_t column, std::int64_t row, const std::byte* source) noexcept {
  const std::size_t bytes = store_->layout().columns()[column].row_bytes;
  std::memcpy(open.block->column(column) + static_cast<std::size_t>(row) * bytes, source, bytes);
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
  const Busy busy(busy_);
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
      put(open, c, 0, observation[c] + e * store_->layout().columns()[c].row_bytes);
    }
    open.task = task == nullptr ? 0 : task[e];
    open.active = true;
    store_->count_open(1);
  }
}

void Writer::append(std::span<const std::byte* const> columns, const std::uint8_t* mask) {
  const Busy busy(busy_);
  const Layout& layout = store_->layout();
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (!takes_part(mask, e)) continue;
    if (!open_[e].active) {
      throw std::runtime_error("append: " + environment(static_cast<std::int64_t>(e)) +
                               " has no open trajectory; call begin() first; nothing of this call was stored");
    }
    if (open_[e].length >= store_->longest()) {
      throw std::length_error("append: the trajectory of " + environment(static_cast<std::int64_t>(e)) + " holds " +
                              std::to_string(open_[e].length) +
                              " steps and one more would exceed the whole capacity of the replay; nothing of this "
                              "call was stored: cut() keeps what the open trajectories hold, discard() drops it");
    }
  }
  check(columns, mask);
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (takes_part(mask, e)) reserve(open_[e], open_[e].length + 1);
  }
  finishing_.clear();
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (!takes_part(mask, e)) continue;
    Open& open = open_[e];
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const Column& column = layout.columns()[c];
      put(open, c, open.length + column.extra_rows, columns[c] + e * column.row_bytes);
    }
    if (set(columns[layout.terminated()], e) || set(columns[layout.truncated()], e)) finishing_.push_back(e);
  }
  for (const std::size_t e : finishing_) ++open_[e].length;
  try {
    commit(finishing_, false);
  } catch (...) {
    for (const std::size_t e : finishing_) --open_[e].length;
    throw;
  }
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (takes_part(mask, e)) ++open_[e].length;
  }
  for (const std::size_t e : finishing_) close(open_[e]);
}

void Writer::commit(std::span<const std::size_t> environments, bool truncate) {
  if (environments.empty()) return;
  std::vector<std::shared_ptr<Trajectory>> finished;
  finished.reserve(environments.size());
  for (const std::size_t e : environments) {
    const Open& open = open_[e];
    const auto trajectory = std::make_shared<Trajectory>(store_->layout(), open.length, open.task);
    trajectory->block.copy_steps(*open.block, store_->layout(), open.length);
    if (truncate) trajectory->block.column(store_->layout().truncated())[open.length - 1] = std::byte{1};
    trajectory->sum_rewards(store_->layout());
    finished.push_back(trajectory);
  }
  store_->commit(finished);
}

void Writer::cut() {
  const Busy busy(busy_);
  finishing_.clear();
  for (std::size_t e = 0; e < open_.size(); ++e) {
    if (open_[e].active && open_[e].length > 0) finishing_.push_back(e);
  }
  commit(finishing_, true);
  for (Open& open : open_) close(open);
}

void Writer::discard() {
  const Busy busy(busy_);
  for (Open& open : open_) close(open);
}

}  // namespace twohot
