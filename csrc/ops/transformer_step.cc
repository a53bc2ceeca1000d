#include "ops/transformer_step.h"

#include <algorithm>
#include <atomic>

#include "core/buffer_pool.h"
#include "ops/attention_kernels.h"
#include "ops/dispatch.h"

namespace twohot::ops {
namespace {

// Calls work(begin, end, scratch) for pieces of `count` rows, with `floats` of scratch for each thread.
template <class Work>
void in_pieces(std::int64_t count, std::int64_t floats, int threads, Work work) {
  const std::int64_t workers = std::clamp<std::int64_t>(threads, 1, std::max<std::int64_t>(count, 1));
  const std::int64_t share = (count + workers - 1) / workers;
  const std::int64_t rows = std::clamp<std::int64_t>((share + 7) / 8 * 8, 8, most_step_rows);
  const BufferPool::Block block = BufferPool::process().take(static_cast<std::size_t>(workers * floats) * sizeof(float));
  std::atomic<std::int64_t> next{0};
  const auto some = [&](std::int64_t worker) {
    float* scratch = static_cast<float*>(block.data()) + worker * floats;
    for (std::int64_t row; (row = next.fetch_add(rows, std::memory_order_relaxed)) < count;) {
      work(row, std::min(row + rows, count), scratch);
    }
  };
  if (count <= rows) return some(0);
  process_pool(threads)->run(workers, some);
}

}  // namespace

void transformer_step(const TransformerStep& step, std::span<const StepLayer> layers, int threads) {
  in_pieces(step.environments, step_scratch_floats(step), threads,
            [&](std::int64_t begin, std::int64_t end, float* scratch) {
              attention_kernels().transformer(step, layers, begin, end, scratch);
            });
}

void mlp_step(const MlpStep& step, std::span<const StepLinear> layers, int threads) {
  in_pieces(step.rows, mlp_scratch_floats(layers), threads, [&](std::int64_t begin, std::int64_t end, float* scratch) {
    attention_kernels().mlp(step, layers, begin, end, scratch);
  });
}

}  // namespace twohot::ops
