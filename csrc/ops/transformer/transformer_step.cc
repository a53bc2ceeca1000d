#include "ops/transformer/transformer_step.h"

#include <algorithm>
#include <atomic>

#include "core/buffer_pool.h"
#include "core/thread_pool.h"
#include "ops/simd/dispatch.h"
#include "ops/transformer/transformer_step_kernels.h"

namespace twohot::ops {
namespace {

// Invokes fn(begin, end, scratch) for blocks of `count` rows, with `floats` of scratch for each thread.
template <class Function>
void parallel_for(std::int64_t count, std::int64_t floats, int threads, Function fn) {
  const std::int64_t workers = std::clamp<std::int64_t>(threads, 1, std::max<std::int64_t>(count, 1));
  const std::int64_t share = (count + workers - 1) / workers;
  const std::int64_t rows = std::clamp<std::int64_t>((share + 7) / 8 * 8, 8, max_step_rows);
  const BufferPool::Block block = BufferPool::global().take(static_cast<std::size_t>(workers * floats) * sizeof(float));
  std::atomic<std::int64_t> next{0};
  const auto some = [&](std::int64_t worker) {
    float* scratch = static_cast<float*>(block.data()) + worker * floats;
    for (std::int64_t row; (row = next.fetch_add(rows, std::memory_order_relaxed)) < count;) {
      fn(row, std::min(row + rows, count), scratch);
    }
  };
  if (count <= rows) return some(0);
  global_thread_pool(threads)->run(workers, some);
}

}  // namespace

void transformer_step(const TransformerStep& step, std::span<const StepLayer> layers, int threads) {
  parallel_for(step.environments, step_scratch_floats(step), threads,
               [&](std::int64_t begin, std::int64_t end, float* scratch) {
                 kernels<TransformerStepKernels>().transformer(step, layers, begin, end, scratch);
               });
}

void mlp_step(const MlpStep& step, std::span<const StepLinear> layers, int threads) {
  parallel_for(step.rows, mlp_scratch_floats(layers), threads,
               [&](std::int64_t begin, std::int64_t end, float* scratch) {
                 kernels<TransformerStepKernels>().mlp(step, layers, begin, end, scratch);
               });
}

}  // namespace twohot::ops
