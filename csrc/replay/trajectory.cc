#include "replay/trajectory.h"

#include <algorithm>
#include <limits>
#include <new>
#include <stdexcept>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "core/non_temporal_copy.h"
#include "core/prefetch.h"
#include "replay/codec.h"

namespace twohot {
namespace {

// From this many bytes on non-temporal stores pay.
constexpr std::size_t min_non_temporal = 4096;

// The hardware prefetches what follows.
constexpr std::size_t max_prefetched = 512;

// A call of the system pays from here on.
[[maybe_unused]] constexpr std::size_t min_read_ahead = std::size_t{256} << 10;

std::size_t aligned(std::size_t bytes) noexcept {
  return (bytes + Layout::alignment - 1) / Layout::alignment * Layout::alignment;
}

std::int64_t groups(const Column& column, std::int64_t rows) noexcept {
  const std::int64_t each = TrajectoryData::packed_rows(column);
  return (rows + each - 1) / each;
}

template <typename Word>
Word load(const std::byte* at) noexcept {
  Word word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

}  // namespace

std::shared_ptr<std::byte> TrajectoryData::allocate(std::size_t bytes, BlockArena* arena) {
  if (arena != nullptr) return arena->take(bytes);
  const std::align_val_t alignment{Layout::alignment};
  return {static_cast<std::byte*>(::operator new(bytes, alignment)),
          [](std::byte* memory) { ::operator delete(memory, std::align_val_t{Layout::alignment}); }};
}

TrajectoryData::TrajectoryData(const Layout& layout, std::int64_t steps, const std::vector<MemoryBlock>& blocks,
                               std::int64_t block_rows, BlockArena* arena)
    : block_rows_(block_rows), steps_(steps) {
  const std::int64_t observations = steps + 1;
  const std::int64_t used = arena != nullptr ? observations / block_rows : (observations + block_rows - 1) / block_rows;
  blocks_.assign(blocks.begin(), blocks.begin() + used);
  const std::int64_t before = used * block_rows;
  if (observations <= before) return;
  const RowCounts rest = last_counts();
  owned_ = allocate(layout.bytes(rest), arena);
  last_ = owned_.get();
  const std::byte* source = blocks[static_cast<std::size_t>(used)].get();
  for (std::size_t c = 0; c < layout.columns().size(); ++c) {
    const Column& column = layout.columns()[c];
    std::memcpy(owned_column(layout, c), source + layout.offset(c, {block_rows, block_rows}),
                static_cast<std::size_t>(Layout::rows(column, rest)) * column.row_bytes);
  }
}

TrajectoryData TrajectoryData::packed(const Layout& layout, BlockArena* arena) const {
  const std::size_t columns = layout.columns().size();
  std::vector<std::byte> block(aligned((columns + 1) * sizeof(std::uint64_t)));
  std::vector<std::byte> group;
  const auto set_offset = [&](std::size_t column) {
    const std::uint64_t offset = block.size();
    std::memcpy(block.data() + column * sizeof offset, &offset, sizeof offset);
  };
  for (std::size_t c = 0; c < columns; ++c) {
    set_offset(c);
    const Column& column = layout.columns()[c];
    const std::int64_t rows = steps_ + column.extra_rows;
    const std::size_t begin = block.size();
    if (column.codec == nullptr) {
      block.resize(begin + aligned(static_cast<std::size_t>(rows) * column.row_bytes));
      read(layout, c, 0, rows, block.data() + begin);
      continue;
    }
    const std::int64_t each = packed_rows(column);
    const std::int64_t count = groups(column, rows);
    const std::size_t first = begin + static_cast<std::size_t>(count) * sizeof(std::uint32_t);
    std::size_t end = first;
    group.resize(static_cast<std::size_t>(std::min(each, rows)) * column.row_bytes);
    for (std::int64_t g = 0; g < count; ++g) {
      const std::int64_t held = std::min(each, rows - g * each);
      const std::size_t bytes = static_cast<std::size_t>(held) * column.row_bytes;
      read(layout, c, g * each, held, group.data());
      block.resize(end + column.codec->bound(bytes));
      end += column.codec->compress(group.data(), bytes, block.data() + end);
      if (end - first > std::numeric_limits<std::uint32_t>::max()) {
        throw std::runtime_error("field '" + column.field.name + "': a trajectory exceeds 4 GiB when compressed");
      }
      const auto group_end = static_cast<std::uint32_t>(end - first);
      std::memcpy(block.data() + begin + static_cast<std::size_t>(g) * sizeof group_end, &group_end, sizeof group_end);
    }
    block.resize(aligned(end));
  }
  set_offset(columns);
  TrajectoryData result(steps_, nullptr, block.size(), nullptr);
  result.owned_ = allocate(block.size(), arena);
  std::memcpy(result.owned_.get(), block.data(), block.size());
  result.last_ = result.owned_.get();
  return result;
}

std::span<const std::byte> TrajectoryData::packed_column(const Layout& layout, std::size_t column) const noexcept {
  if ((layout.columns().size() + 1) * sizeof(std::uint64_t) > packed_bytes_) return {};
  const auto begin = load<std::uint64_t>(last_ + column * sizeof(std::uint64_t));
  const auto end = load<std::uint64_t>(last_ + (column + 1) * sizeof(std::uint64_t));
  if (begin > end || end > packed_bytes_ || begin % Layout::alignment != 0) return {};
  return {last_ + begin, last_ + end};
}

bool TrajectoryData::read(const Layout& layout, std::size_t column, std::int64_t first, std::int64_t count,
                          std::byte* target, bool non_temporal) const {
  const Column& which = layout.columns()[column];
  if (packed_bytes_ != 0 && which.codec != nullptr) {
    return unpack(which, packed_column(layout, column), first, count, target);
  }
  return visit(layout, column, first, count, [&](const std::byte* source, std::int64_t rows) {
    const std::size_t bytes = static_cast<std::size_t>(rows) * which.row_bytes;
    if (non_temporal && bytes >= min_non_temporal) {
      non_temporal_copy(target, source, bytes);
    } else {
      std::memcpy(target, source, bytes);
    }
    target += bytes;
  });
}

void TrajectoryData::prefetch(const Layout& layout, std::int64_t first, std::int64_t count) const noexcept {
  if (packed_bytes_ != 0) return;
  const auto full = static_cast<std::int64_t>(blocks_.size()) * block_rows_;
  const bool in_block = first < full;
  const std::byte* at = in_block ? blocks_[static_cast<std::size_t>(first / block_rows_)].get() : last_;
  const RowCounts counts = in_block ? RowCounts{block_rows_, block_rows_} : last_counts();
  const auto row = static_cast<std::size_t>(in_block ? first % block_rows_ : first - full);
  for (const Column& column : layout.columns()) {
    const std::size_t bytes = static_cast<std::size_t>(count) * column.row_bytes;
    twohot::prefetch(at + row * column.row_bytes, std::min(bytes, max_prefetched));
    at += Layout::bytes(column, counts);
  }
}

void TrajectoryData::read_ahead(const Layout& layout, std::int64_t first, std::int64_t count) const noexcept {
#if defined(__linux__)
  if (owner_ == nullptr || packed_bytes_ != 0) return;
  for (std::size_t c = 0; c < layout.columns().size(); ++c) {
    const std::size_t row_bytes = layout.columns()[c].row_bytes;
    const std::size_t bytes = static_cast<std::size_t>(count) * row_bytes;
    if (bytes < min_read_ahead) continue;
    const auto begin = reinterpret_cast<std::uintptr_t>(last_ + layout.offset(c, last_counts())) +
                       static_cast<std::size_t>(first) * row_bytes;
    static const auto page_bytes = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));  // 64 KiB on some of arm64
    const std::uintptr_t page = begin / page_bytes * page_bytes;
    ::madvise(reinterpret_cast<void*>(page), begin + bytes - page, MADV_WILLNEED);  // advice
  }
#else
  (void)layout, (void)first, (void)count;
#endif
}

bool TrajectoryData::unpack(const Column& column, std::span<const std::byte> stored, std::int64_t first,
                            std::int64_t count, std::byte* target) const {
  thread_local std::vector<std::byte> scratch;
  const std::int64_t rows = steps_ + column.extra_rows;
  const std::int64_t each = packed_rows(column);
  const auto table = static_cast<std::size_t>(groups(column, rows)) * sizeof(std::uint32_t);
  if (table > stored.size()) return false;
  const std::span<const std::byte> payload = stored.subspan(table);
  const auto end_of = [&](std::int64_t group) -> std::size_t {
    return group < 0 ? 0 : load<std::uint32_t>(stored.data() + static_cast<std::size_t>(group) * sizeof(std::uint32_t));
  };
  while (count > 0) {
    const std::int64_t group = first / each;
    const std::int64_t held = std::min(each, rows - group * each);
    const std::int64_t from = first - group * each;
    const std::int64_t taken = std::min(count, held - from);
    const std::size_t begin = end_of(group - 1);
    const std::size_t end = end_of(group);
    if (begin > end || end > payload.size()) return false;
    const std::size_t whole = static_cast<std::size_t>(held) * column.row_bytes;
    const std::size_t bytes = static_cast<std::size_t>(taken) * column.row_bytes;
    const bool direct = taken == held;
    if (!direct) scratch.resize(std::max(scratch.size(), whole));
    std::byte* unpacked = direct ? target : scratch.data();
    if (!column.codec->decompress(payload.data() + begin, end - begin, unpacked, whole)) return false;
    if (!direct) std::memcpy(target, unpacked + static_cast<std::size_t>(from) * column.row_bytes, bytes);
    target += bytes;
    first += taken;
    count -= taken;
  }
  return true;
}

}  // namespace twohot
