#include "ops/encoders/encoder_step.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/buffer_pool.h"
#include "core/thread_pool.h"
#include "ops/encoders/encoder_step_kernels.h"
#include "ops/simd/dispatch.h"

namespace twohot::ops {
namespace {

// Invokes fn(i, scratch) for each of `count`, with `floats` of scratch for each thread.
template <class Function>
void parallel_for(std::int64_t count, std::int64_t floats, int threads, Function fn) {
  const std::int64_t workers = std::clamp<std::int64_t>(threads, 1, std::max<std::int64_t>(count, 1));
  const BufferPool::Block block =
      BufferPool::global().borrow(static_cast<std::size_t>(workers * floats) * sizeof(float));
  std::atomic<std::int64_t> next{0};
  const auto some = [&](std::int64_t worker) {
    float* scratch = static_cast<float*>(block.data()) + worker * floats;
    for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) fn(i, scratch);
  };
  if (workers == 1) return some(0);
  global_thread_pool(threads)->run(workers, some);
}

}  // namespace

void images_step(const ImagesStep& step, std::span<const StepConvolution> layers, int threads) {
  parallel_for(step.images, images_scratch_floats(layers), threads, [&](std::int64_t image, float* scratch) {
    kernels<EncoderStepKernels>().image(step, layers, image, scratch);
  });
}

void tokens_step(const TokensStep& step, int threads) {
  std::vector<std::int64_t> distinct;
  std::vector<std::int64_t> first;  // of each row, the one that it is like
  for (std::int64_t r = 0; r < step.rows; ++r) {
    const auto alike = [&](std::int64_t other) {
      return std::equal(step.tokens + r * step.length, step.tokens + (r + 1) * step.length,
                        step.tokens + other * step.length);
    };
    const auto found = std::find_if(distinct.begin(), distinct.end(), alike);
    first.push_back(found == distinct.end() ? r : *found);
    if (found == distinct.end()) distinct.push_back(r);
  }
  const std::int64_t count = std::ssize(distinct);
  const std::int64_t share = (count + std::max(threads, 1) - 1) / std::max(threads, 1);
  const std::int64_t rows = std::clamp<std::int64_t>((share + 7) / 8 * 8, 8, max_token_rows);
  parallel_for((count + rows - 1) / rows, tokens_scratch_floats(step), threads, [&](std::int64_t i, float* scratch) {
    const std::int64_t begin = i * rows;
    kernels<EncoderStepKernels>().tokens(
        step,
        std::span(distinct).subspan(static_cast<std::size_t>(begin),
                                    static_cast<std::size_t>(std::min(rows, count - begin))),
        scratch);
  });
  const std::int64_t hidden = step.hidden.inputs;
  for (std::int64_t r = 0; r < step.rows; ++r) {
    const std::int64_t of = first[static_cast<std::size_t>(r)];
    if (of != r) std::copy_n(step.output + of * hidden, hidden, step.output + r * hidden);
  }
}

}  // namespace twohot::ops
