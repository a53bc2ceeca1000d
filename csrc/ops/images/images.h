// Fused max-pooling, residual add and group norm for image encoders on the CPU, forward and backward.
#pragma once

#include <cstdint>

namespace twohot::ops {

// Channels are a multiple of it.
constexpr std::int64_t channel_step = 16;

// Images [images, height, width, channels] of float32, C-contiguous, as all arrays here.
struct Images {
  std::int64_t images;
  std::int64_t height;
  std::int64_t width;
  std::int64_t channels;
};

// Pixels of a side that a pool leaves.
constexpr std::int64_t pooled(std::int64_t side) noexcept { return (side - 3) / 2 + 1; }

// All take image by image, give the same bits for any number of threads, and are thread-safe on different memory.

// The maximum of each square of 3 x 3 pixels, every second one in both directions: `out` [images, pooled(height),
// pooled(width), channels], and where it was, 3 y + x, first come first, in `argmax` of the same shape. NaN is the
// largest. Sides are at least 3.
void max_pool(const Images& shape, const float* x, float* out, std::uint8_t* argmax, int threads);

// The gradient of x from that of out.
void max_pool_backward(const Images& shape, const float* grad_output, const std::uint8_t* argmax, float* grad_x,
                       int threads);

// sum = x + residual; out = group_norm(sum) weight + bias, over `groups` of neighbouring channels of each image.
struct ResidualNorm {
  Images shape;
  std::int64_t groups;  // divides the channels
  const float* weight;  // [channels]
  const float* bias;
  float epsilon;
};

void residual_norm(const ResidualNorm& norm, const float* x, const float* residual, float* sum, float* out,
                   int threads);

// The gradients of sum, weight and bias. Throws std::bad_alloc before anything is written.
void residual_norm_backward(const ResidualNorm& norm, const float* grad_output, const float* sum, float* grad_sum,
                            float* grad_weight, float* grad_bias, int threads);

}  // namespace twohot::ops
