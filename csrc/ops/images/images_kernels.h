// What the dispatcher of images.h hands to the loops of each instruction set.
#pragma once

#include <cstdint>

#include "ops/images/images.h"

namespace twohot::ops {

constexpr std::int64_t max_channels = 1024;

// Each takes one image.
struct ImageKernels {
  const char* name;
  void (*pool)(const Images&, const float* x, float* out, std::uint8_t* argmax, std::int64_t image) noexcept;
  void (*pool_backward)(const Images&, const float* grad_output, const std::uint8_t* argmax, float* grad_x,
                        std::int64_t image) noexcept;
  void (*norm)(const ResidualNorm&, const float* x, const float* residual, float* sum, float* out,
               std::int64_t image) noexcept;
  // Its share of the gradients of weight and bias is added to `grad_parameters` [2, channels].
  void (*norm_backward)(const ResidualNorm&, const float* grad_output, const float* sum, float* grad_sum,
                        float* grad_parameters, std::int64_t image) noexcept;
};

}  // namespace twohot::ops
