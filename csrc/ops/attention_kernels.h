// What the dispatchers of attention hand to the loops of each instruction set.
#pragma once

#include <cstdint>
#include <span>

#include "ops/attention_decode.h"
#include "ops/attention_window.h"
#include "ops/transformer_step.h"

namespace twohot::ops {

constexpr std::int64_t round_up(std::int64_t x, std::int64_t step) noexcept { return (x + step - 1) / step * step; }

constexpr std::int64_t key_tile = 96;  // keys that a tile of queries goes over at once; a multiple of 24 and of the lanes

struct AttentionKernels {
  const char* name;
  // Heads begin .. end - 1, counted through all environments.
  void (*decode)(const Ring&, const DecodeStep&, std::int64_t begin, std::int64_t end) noexcept;
  // One head of keys and values, counted through the batch, and its query heads; `scratch` has scratch_floats().
  void (*forward)(const Window&, std::int64_t head, float* scratch) noexcept;
  void (*backward)(const Window&, const WindowGradients&, std::int64_t head, float* scratch) noexcept;
  // Environments begin .. end - 1, at most most_step_rows; `scratch` has step_scratch_floats().
  void (*transformer)(const TransformerStep&, std::span<const StepLayer>, std::int64_t begin, std::int64_t end,
                      float* scratch) noexcept;
  // Rows begin .. end - 1, at most most_step_rows; `scratch` has mlp_scratch_floats().
  void (*mlp)(const MlpStep&, std::span<const StepLinear>, std::int64_t begin, std::int64_t end, float* scratch) noexcept;
};

extern const AttentionKernels portable_attention;
#ifdef TWOHOT_X86
extern const AttentionKernels avx2_attention;
extern const AttentionKernels avx512_attention;
extern const AttentionKernels avx512_bf16_attention;  // AVX-512 with products of bfloat16
#endif

// Floats that a pass over one head needs, aligned to 64 bytes: packed keys and values, sums, and a block of words.
constexpr std::int64_t scratch_floats(const Window& window, bool gradients) noexcept {
  const std::int64_t steps = round_up(window.steps, key_tile);
  return (steps * (gradients ? 5 : 2) + key_tile) * window.size;
}

// Takes `count` floats of the scratch.
inline float* take(float*& scratch, std::int64_t count) noexcept {
  float* const taken = scratch;
  scratch += count;
  return taken;
}

// Environments that go through the layers together; a multiple of 8.
constexpr std::int64_t most_step_rows = 32;

// Floats that some environments need on their way, aligned to 64 bytes.
constexpr std::int64_t step_scratch_floats(const TransformerStep& step) noexcept {
  return most_step_rows *
         (3 * round_up(step.width, panel) + round_up(3 * step.width, panel) + round_up(step.feed_forward, panel));
}

// Floats of a row of the widest layer, aligned to 64 bytes.
constexpr std::int64_t widest_row(std::span<const StepLinear> layers) noexcept {
  std::int64_t widest = layers.front().inputs;
  for (const StepLinear& layer : layers) widest = layer.outputs > widest ? layer.outputs : widest;
  return round_up(widest, panel);
}

constexpr std::int64_t mlp_scratch_floats(std::span<const StepLinear> layers) noexcept {
  return 2 * most_step_rows * widest_row(layers);
}

// The form that this processor runs.
const AttentionKernels& attention_kernels() noexcept;

}  // namespace twohot::ops
