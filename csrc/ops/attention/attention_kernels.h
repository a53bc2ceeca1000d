// What the dispatchers of attention hand to the loops of each instruction set.
#pragma once

#include <cstdint>

#include "ops/attention/attention_decode.h"
#include "ops/attention/attention_window.h"
#include "ops/simd/scratch.h"

namespace twohot::ops {

constexpr std::int64_t key_tile =
    96;  // keys that a tile of queries goes over at once; a multiple of 24 and of the lanes

struct AttentionKernels {
  const char* name;
  // Heads begin .. end - 1, counted through all environments.
  void (*decode)(const Ring&, const DecodeStep&, std::int64_t begin, std::int64_t end) noexcept;
  // One head of keys and values, counted through the batch, and its query heads; `scratch` has scratch_floats().
  void (*forward)(const AttentionWindow&, std::int64_t head, float* scratch) noexcept;
  void (*backward)(const AttentionWindow&, const AttentionGradients&, std::int64_t head, float* scratch) noexcept;
};

// Floats that a pass over one head needs, aligned to 64 bytes: packed keys and values, sums, and a block of words.
constexpr std::int64_t scratch_floats(const AttentionWindow& window, bool gradients) noexcept {
  const std::int64_t steps = round_up(window.steps, key_tile);
  return (steps * (gradients ? 5 : 2) + key_tile) * window.size;
}

}  // namespace twohot::ops
