#include "ops/critics.h"

#include <algorithm>

#include "ops/critics_kernels.h"
#include "ops/dispatch.h"

namespace twohot::ops {
namespace {

const CriticKernels& kernels() noexcept {
#ifdef TWOHOT_X86
  switch (best_capability()) {
    case Capability::avx512_bf16: return avx512_bf16_critics;
    case Capability::avx512: return avx512_critics;
    case Capability::avx2: return avx2_critics;
    default: break;
  }
#endif
  return portable_critics;
}

// Below this many numbers a second thread costs more than it brings.
constexpr std::int64_t numbers_for_threads = std::int64_t{1} << 17;
// Rows or columns of a turn are a multiple of this: whole cache lines and whole vectors.
constexpr std::int64_t step = 64;

// Shares 0 .. size - 1 out in one turn for each thread.
template <class Work>
void parallel(const Features& features, std::int64_t size, int threads, const Work& work) {
  if (threads <= 1 || features.rows * features.width < numbers_for_threads) {
    work(0, size);
    return;
  }
  const std::int64_t share = ((size + threads - 1) / threads + step - 1) / step * step;
  process_pool(threads)->run((size + share - 1) / share, [&](std::int64_t turn) {
    work(turn * share, std::min(size, (turn + 1) * share));
  });
}

}  // namespace

void first_layer(const Features& features, const FirstLayer& layer, float slope, int threads) {
  parallel(features, features.rows, threads, [&](std::int64_t begin, std::int64_t end) {
    kernels().first(features, layer, slope, begin, end);
  });
}

void hidden_layer(const Features& features, const float* bias, float slope, int threads) {
  parallel(features, features.rows, threads, [&](std::int64_t begin, std::int64_t end) {
    kernels().hidden(features, bias, slope, begin, end);
  });
}

void hidden_layer_backward(const Features& gradient, const void* output, float* of_bias, float slope, int threads) {
  parallel(gradient, gradient.width, threads, [&](std::int64_t begin, std::int64_t end) {
    kernels().hidden_backward(gradient, output, of_bias, slope, begin, end);
  });
}

void first_layer_backward(const Features& gradient, const void* output, const FirstLayerGradient& into, float slope,
                          int threads) {
  parallel(gradient, gradient.width, threads, [&](std::int64_t begin, std::int64_t end) {
    kernels().first_backward(gradient, output, into, slope, begin, end);
  });
}

}  // namespace twohot::ops
