// What the dispatchers of attention hand to the loops of each instruction set.
#pragma once

#include <cstdint>

#include "ops/attention_decode.h"
#include "ops/attention_window.h"

namespace twohot::ops {

constexpr std::int64_t key_tile = 96;  // keys that a tile of queries goes over at once; a multiple of 24 and of the lanes

struct AttentionKernels {
  const char* name;
  // Heads begin .. end - 1, counted through all environments.
  void (*decode)(const Ring&, const DecodeStep&, std::int64_t begin, std::int64_t end) noexcept;
  // One head of keys and values, counted through the batch, and its query heads; `scratch` has scratch_floats().
  void (*forward)(const Window&, std::int64_t head, float* scratch) noexcept;
  void (*backward)(const Window&, const WindowGradients&, std::int64_t head, float* scratch) noexcept;
};

extern const AttentionKernels portable_attention;
#ifdef TWOHOT_X86
extern const AttentionKernels avx2_attention;
extern const AttentionKernels avx512_attention;
extern const AttentionKernels avx512_bf16_attention;  // AVX-512 with products of bfloat16
#endif

// Floats that a pass over one head needs, aligned to 64 bytes: packed keys and values, sums, and a block of words.
constexpr std::int64_t scratch_floats(const Window& window, bool gradients) noexcept {
  const std::int64_t steps = (window.steps + key_tile - 1) / key_tile * key_tile;
  return (steps * (gradients ? 5 : 2) + key_tile) * window.size;
}

// The form that this processor runs.
const AttentionKernels& attention_kernels() noexcept;

}  // namespace twohot::ops
