#include "ops/images/images.h"

#include <algorithm>

#include "core/buffer_pool.h"
#include "core/thread_pool.h"
#include "ops/images/images_kernels.h"
#include "ops/simd/dispatch.h"

namespace twohot::ops {
namespace {

// Images whose shares of a gradient are added up one after another: sums of groups do not depend on threads.
constexpr std::int64_t groups = 16;

template <class Fn>
void parallel_for_groups(std::int64_t images, int threads, const Fn& fn) {
  const auto some = [&](std::int64_t group) {
    const std::int64_t end = (group + 1) * images / groups;
    for (std::int64_t image = group * images / groups; image < end; ++image) fn(image, group);
  };
  if (threads > 1 && images > 1) return global_thread_pool(threads)->run(groups, some);
  for (std::int64_t group = 0; group < groups; ++group) some(group);
}

}  // namespace

void max_pool(const Images& shape, const float* x, float* out, std::uint8_t* argmax, int threads) {
  parallel_for_groups(shape.images, threads, [&](std::int64_t image, std::int64_t) {
    kernels<ImageKernels>().pool(shape, x, out, argmax, image);
  });
}

void max_pool_backward(const Images& shape, const float* grad_output, const std::uint8_t* argmax, float* grad_x,
                       int threads) {
  parallel_for_groups(shape.images, threads, [&](std::int64_t image, std::int64_t) {
    kernels<ImageKernels>().pool_backward(shape, grad_output, argmax, grad_x, image);
  });
}

void residual_norm(const ResidualNorm& norm, const float* x, const float* residual, float* sum, float* out,
                   int threads) {
  parallel_for_groups(norm.shape.images, threads, [&](std::int64_t image, std::int64_t) {
    kernels<ImageKernels>().norm(norm, x, residual, sum, out, image);
  });
}

void residual_norm_backward(const ResidualNorm& norm, const float* grad_output, const float* sum, float* grad_sum,
                            float* grad_weight, float* grad_bias, int threads) {
  const std::int64_t channels = norm.shape.channels;
  const BufferPool::Block block =
      BufferPool::global().borrow(static_cast<std::size_t>(groups * 2 * channels) * sizeof(float));
  float* const sums = static_cast<float*>(block.data());
  std::fill_n(sums, groups * 2 * channels, 0.0f);
  parallel_for_groups(norm.shape.images, threads, [&](std::int64_t image, std::int64_t group) {
    kernels<ImageKernels>().norm_backward(norm, grad_output, sum, grad_sum, sums + group * 2 * channels, image);
  });
  std::fill_n(grad_weight, channels, 0.0f);
  std::fill_n(grad_bias, channels, 0.0f);
  for (std::int64_t group = 0; group < groups; ++group) {
    for (std::int64_t c = 0; c < channels; ++c) {
      grad_weight[c] += sums[group * 2 * channels + c];
      grad_bias[c] += sums[(group * 2 + 1) * channels + c];
    }
  }
}

}  // namespace twohot::ops
