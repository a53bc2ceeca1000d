#include "ops/attention/attention_decode.h"

#include <algorithm>

#include "core/thread_pool.h"
#include "ops/attention/attention_kernels.h"
#include "ops/simd/dispatch.h"

namespace twohot::ops {
namespace {

// Bytes that a thread reads at a time: large enough to amortise scheduling, small enough to balance load.
constexpr std::int64_t grain_bytes = std::int64_t{1} << 17;
// Below this many bytes a second thread costs more than it brings.
constexpr std::int64_t bytes_for_threads = std::int64_t{1} << 19;

}  // namespace

void decode_attention(const Ring& ring, const DecodeStep& step, int threads) {
  std::int64_t rows = 0;
  for (std::int64_t e = 0; e < ring.environments; ++e) rows += std::min(step.cache_position[e] + 1, ring.rows);
  const std::int64_t heads = ring.environments * ring.heads;
  const std::int64_t bytes = rows * ring.heads * ring.size * 2 * bytes_of(ring.dtype);
  if (threads <= 1 || bytes < bytes_for_threads) {
    kernels<AttentionKernels>().decode(ring, step, 0, heads);
    return;
  }
  const std::int64_t block = std::max<std::int64_t>(1, grain_bytes * heads / bytes);
  global_thread_pool(threads)->run((heads + block - 1) / block, [&](std::int64_t i) {
    kernels<AttentionKernels>().decode(ring, step, i * block, std::min(heads, (i + 1) * block));
  });
}

}  // namespace twohot::ops
