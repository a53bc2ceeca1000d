#include "core/trajectory.h"

#include <algorithm>

namespace twohot {

Rows::Rows(const Layout& layout, std::int64_t steps, const std::vector<Chunk>& chunks, std::int64_t chunk_rows,
           bool compact)
    : chunk_rows_(chunk_rows), steps_(steps) {
  const std::int64_t observations = steps + 1;
  const std::int64_t used = compact ? observations / chunk_rows : (observations + chunk_rows - 1) / chunk_rows;
  chunks_.assign(chunks.begin(), chunks.begin() + used);
  const std::int64_t before = used * chunk_rows;
  if (observations <= before) return;
  const Extent rest = last_extent();
  owned_.reset(allocate(layout.bytes(rest)));
  last_ = owned_.get();
  const std::byte* source = chunks[static_cast<std::size_t>(used)].get();
  for (std::size_t c = 0; c < layout.columns().size(); ++c) {
    const Column& column = layout.columns()[c];
    std::memcpy(owned_column(layout, c), source + layout.offset(c, {chunk_rows, chunk_rows}),
                static_cast<std::size_t>(Layout::rows(column, rest)) * column.row_bytes);
  }
}

}  // namespace twohot
