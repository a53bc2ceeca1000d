// What the dispatchers of encoder_step.h hand to the loops of each instruction set.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "ops/encoders/encoder_step.h"
#include "ops/simd/scratch.h"

namespace twohot::ops {

struct EncoderStepKernels {
  const char* name;
  // One image; `scratch` has images_scratch_floats().
  void (*image)(const ImagesStep&, std::span<const StepConvolution>, std::int64_t image, float* scratch) noexcept;
  // The given rows, at most max_token_rows; `scratch` has tokens_scratch_floats().
  void (*tokens)(const TokensStep&, std::span<const std::int64_t> rows, float* scratch) noexcept;
};

// Places of a convolution's result that are computed together; a multiple of 8.
constexpr std::int64_t convolution_rows = 32;
// Rows of tokens that are.
constexpr std::int64_t max_token_rows = 32;

// Numbers of the largest array between two convolutions.
inline std::int64_t largest_between(std::span<const StepConvolution> layers) noexcept {
  std::int64_t largest = layers.front().height * layers.front().width * layers.front().channels;
  for (const StepConvolution& layer : layers) {
    largest = std::max(largest, layer.rows() * layer.columns() * layer.linear.outputs);
  }
  return round_up(largest, panel);
}

inline std::int64_t images_scratch_floats(std::span<const StepConvolution> layers) noexcept {
  std::int64_t inputs = 0;
  for (const StepConvolution& layer : layers) inputs = std::max(inputs, layer.linear.inputs);
  return 2 * largest_between(layers) + round_up(convolution_rows * inputs, panel);
}

inline std::int64_t tokens_scratch_floats(const TokensStep& step) noexcept {
  const std::int64_t gates = round_up(step.input.outputs, panel);
  return max_token_rows * (2 * gates + round_up(step.input.inputs, panel) + round_up(step.hidden.inputs, panel));
}

}  // namespace twohot::ops
