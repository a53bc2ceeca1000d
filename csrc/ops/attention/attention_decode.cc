#include "ops/attention/attention_decode.h"

#include <algorithm>

#include "core/thread_pool.h"
#include "ops/attention/attention_kernels.h"
#include "ops/simd/dispatch.h"

namespace twohot::ops {
namespace {

// Parts of the work that a thread takes one after the other, to balance load. Few and large, for neighbouring heads are
// neighbours in memory: what the processor has read ahead at the end of a part is lost.
constexpr std::int64_t parts_for_thread = 4;
constexpr std::int64_t part_bytes = std::int64_t{1} << 20;
// Below this many bytes a second thread costs more than it brings.
constexpr std::int64_t bytes_for_threads = std::int64_t{1} << 19;

std::int64_t rows_in_use(const Ring& ring, const DecodeStep& step, std::int64_t e) noexcept {
  return std::min(step.cache_position[e] + 1, ring.rows);
}

// The first head, counted through all environments, before which heads have at least `rows` in use.
std::int64_t head_after(const Ring& ring, const DecodeStep& step, std::int64_t rows) noexcept {
  std::int64_t e = 0;
  for (; e < ring.environments && rows_in_use(ring, step, e) * ring.heads <= rows; ++e) {
    rows -= rows_in_use(ring, step, e) * ring.heads;
  }
  const std::int64_t own = e < ring.environments ? rows_in_use(ring, step, e) : 1;
  return e * ring.heads + (rows + own - 1) / own;
}

}  // namespace

void decode_attention(const Ring& ring, const DecodeStep& step, int threads) {
  std::int64_t rows = 0;
  for (std::int64_t e = 0; e < ring.environments; ++e) rows += rows_in_use(ring, step, e) * ring.heads;
  const std::int64_t bytes = rows * ring.size * 2 * bytes_of(ring.dtype);
  if (threads <= 1 || bytes < bytes_for_threads) {
    kernels<AttentionKernels>().decode(ring, step, 0, ring.environments * ring.heads);
    return;
  }
  const std::int64_t parts = std::clamp<std::int64_t>(bytes / part_bytes, threads, parts_for_thread * threads);
  global_thread_pool(threads)->run(parts, [&](std::int64_t i) {
    kernels<AttentionKernels>().decode(ring, step, head_after(ring, step, rows * i / parts),
                                       head_after(ring, step, rows * (i + 1) / parts));
  });
}

}  // namespace twohot::ops
