#include "ops/attention/attention_window.h"

#include <algorithm>
#include <atomic>

#include "core/buffer_pool.h"
#include "core/thread_pool.h"
#include "ops/attention/attention_kernels.h"
#include "ops/simd/dispatch.h"

namespace twohot::ops {
namespace {

// Below this many multiplications a second thread costs more than it brings.
constexpr std::int64_t work_for_threads = std::int64_t{1} << 20;

// Invokes fn(head, scratch) for each head. What could fail comes before the threads start.
template <class Fn>
void parallel_for_heads(const AttentionWindow& window, bool gradients, int threads, const Fn& fn) {
  const std::int64_t heads = window.batch * window.heads;
  const bool alone =
      threads <= 1 || heads * window.groups * window.steps * window.steps * window.size < work_for_threads;
  const std::int64_t workers = alone ? 1 : std::min<std::int64_t>(threads, heads);
  const std::int64_t floats = scratch_floats(window, gradients);
  const BufferPool::Block block =
      BufferPool::global().borrow(static_cast<std::size_t>(workers * floats) * sizeof(float));
  std::atomic<std::int64_t> next{0};
  const auto some = [&](std::int64_t worker) {
    float* scratch = static_cast<float*>(block.data()) + worker * floats;
    for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < heads;) fn(i, scratch);
  };
  if (workers <= 1) return some(0);
  global_thread_pool(threads)->run(workers, some);
}

}  // namespace

void forward(const AttentionWindow& window, int threads) {
  parallel_for_heads(window, false, threads,
                     [&](std::int64_t i, float* scratch) { kernels<AttentionKernels>().forward(window, i, scratch); });
}

void backward(const AttentionWindow& window, const AttentionGradients& gradients, int threads) {
  parallel_for_heads(window, true, threads, [&](std::int64_t i, float* scratch) {
    kernels<AttentionKernels>().backward(window, gradients, i, scratch);
  });
}

}  // namespace twohot::ops
