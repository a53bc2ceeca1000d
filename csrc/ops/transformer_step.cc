#include "ops/transformer_step.h"

#include <algorithm>
#include <atomic>

#include "core/buffer_pool.h"
#include "ops/attention_kernels.h"
#include "ops/dispatch.h"

namespace twohot::ops {

void transformer_step(const TransformerStep& step, std::span<const StepLayer> layers, int threads) {
  const std::int64_t workers = std::clamp<std::int64_t>(threads, 1, std::max<std::int64_t>(step.environments, 1));
  const std::int64_t share = (step.environments + workers - 1) / workers;
  const std::int64_t rows = std::clamp<std::int64_t>((share + 7) / 8 * 8, 8, most_step_rows);
  const std::int64_t floats = step_scratch_floats(step);
  const BufferPool::Block block = BufferPool::process().take(static_cast<std::size_t>(workers * floats) * sizeof(float));
  std::atomic<std::int64_t> next{0};
  const auto some = [&](std::int64_t worker) {
    float* scratch = static_cast<float*>(block.data()) + worker * floats;
    for (std::int64_t e; (e = next.fetch_add(rows, std::memory_order_relaxed)) < step.environments;) {
      attention_kernels().transformer(step, layers, e, std::min(e + rows, step.environments), scratch);
    }
  };
  if (step.environments <= rows) return some(0);
  process_pool(threads)->run(workers, some);
}

}  // namespace twohot::ops
