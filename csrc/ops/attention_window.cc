#include "ops/attention_window.h"

#include "ops/attention_kernels.h"
#include "ops/dispatch.h"

namespace twohot::ops {
namespace {

// Below this many multiplications a second thread costs more than it brings.
constexpr std::int64_t work_for_threads = std::int64_t{1} << 20;

template <class Work>
void each_head(const Window& window, int threads, const Work& work) {
  const std::int64_t heads = window.batch * window.heads;
  if (threads <= 1 || heads * window.groups * window.steps * window.steps * window.size < work_for_threads) {
    for (std::int64_t i = 0; i < heads; ++i) work(i);
    return;
  }
  process_pool(threads)->run(heads, work);
}

}  // namespace

void forward(const Window& window, int threads) {
  each_head(window, threads, [&](std::int64_t i) { attention_kernels().forward(window, i); });
}

void backward(const Window& window, const WindowGradients& gradients, int threads) {
  each_head(window, threads, [&](std::int64_t i) { attention_kernels().backward(window, gradients, i); });
}

}  // namespace twohot::ops
