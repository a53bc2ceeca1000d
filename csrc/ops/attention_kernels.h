// What the dispatchers of attention hand to the loops of each instruction set.
#pragma once

#include <cstdint>

#include "ops/attention_decode.h"
#include "ops/attention_window.h"

namespace twohot::ops {

struct AttentionKernels {
  const char* name;
  // Heads begin .. end - 1, counted through all environments.
  void (*decode)(const Ring&, const DecodeStep&, std::int64_t begin, std::int64_t end) noexcept;
  // One head of keys and values, counted through the batch, and its query heads.
  void (*forward)(const Window&, std::int64_t head);
  void (*backward)(const Window&, const WindowGradients&, std::int64_t head);
};

extern const AttentionKernels portable_attention;
#ifdef TWOHOT_X86
extern const AttentionKernels avx2_attention;
extern const AttentionKernels avx512_attention;
extern const AttentionKernels avx512_bf16_attention;  // AVX-512 with products of bfloat16
#endif

// The form that this processor runs.
const AttentionKernels& attention_kernels() noexcept;

}  // namespace twohot::ops
