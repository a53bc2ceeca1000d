// What the dispatchers of transformer_step.h hand to the loops of each instruction set.
#pragma once

#include <cstdint>
#include <span>

#include "ops/simd/scratch.h"
#include "ops/transformer/transformer_step.h"

namespace twohot::ops {

struct TransformerStepKernels {
  const char* name;
  // Environments begin .. end - 1, at most max_step_rows; `scratch` has step_scratch_floats().
  void (*transformer)(const TransformerStep&, std::span<const StepLayer>, std::int64_t begin, std::int64_t end,
                      float* scratch) noexcept;
  // Rows begin .. end - 1, at most max_step_rows; `scratch` has mlp_scratch_floats().
  void (*mlp)(const MlpStep&, std::span<const StepLinear>, std::int64_t begin, std::int64_t end,
              float* scratch) noexcept;
};

// Environments of a block, which goes through the layers as one; a multiple of 8.
constexpr std::int64_t max_step_rows = 32;

// Floats that some environments need on their way, aligned to 64 bytes.
constexpr std::int64_t step_scratch_floats(const TransformerStep& step) noexcept {
  return max_step_rows *
         (3 * round_up(step.width, panel) + round_up(3 * step.width, panel) + round_up(step.feed_forward, panel));
}

// Floats of a row of the widest layer, aligned to 64 bytes.
constexpr std::int64_t widest_row(std::span<const StepLinear> layers) noexcept {
  std::int64_t widest = layers.front().inputs;
  for (const StepLinear& layer : layers) widest = layer.outputs > widest ? layer.outputs : widest;
  return round_up(widest, panel);
}

constexpr std::int64_t mlp_scratch_floats(std::span<const StepLinear> layers) noexcept {
  return 2 * max_step_rows * widest_row(layers);
}

}  // namespace twohot::ops
