#include "ops/attention_decode.h"

#include <algorithm>

#include "ops/attention_kernels.h"
#include "ops/dispatch.h"

namespace twohot::ops {
namespace {

// Bytes that one turn of a thread reads: enough to forget the price of a turn, few enough to share the work.
constexpr std::int64_t bytes_per_turn = std::int64_t{1} << 17;
// Below this many bytes a second thread costs more than it brings.
constexpr std::int64_t bytes_for_threads = std::int64_t{1} << 19;

}  // namespace

const AttentionKernels& attention_kernels() noexcept {
#ifdef TWOHOT_X86
  switch (best_capability()) {
    case Capability::avx512_bf16: return avx512_bf16_attention;
    case Capability::avx512: return avx512_attention;
    case Capability::avx2: return avx2_attention;
    default: break;
  }
#endif
  return portable_attention;
}

void decode_attention(const Ring& ring, const DecodeStep& step, int threads) {
  std::int64_t rows = 0;
  for (std::int64_t e = 0; e < ring.environments; ++e) rows += std::min(step.seen[e] + 1, ring.rows);
  const std::int64_t heads = ring.environments * ring.heads;
  const std::int64_t bytes = rows * ring.heads * ring.size * 2 * bytes_of(ring.dtype);
  if (threads <= 1 || bytes < bytes_for_threads) {
    attention_kernels().decode(ring, step, 0, heads);
    return;
  }
  const std::int64_t block = std::max<std::int64_t>(1, bytes_per_turn * heads / bytes);
  process_pool(threads)->run((heads + block - 1) / block, [&](std::int64_t turn) {
    attention_kernels().decode(ring, step, turn * block, std::min(heads, (turn + 1) * block));
  });
}

}  // namespace twohot::ops
