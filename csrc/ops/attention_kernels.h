// What the dispatchers of attention hand to the loops of each instruction set.
#pragma once

#include <cstdint>

#include "ops/attention_decode.h"

namespace twohot::ops {

struct AttentionKernels {
  const char* name;
  // Heads begin .. end - 1, counted through all environments.
  void (*decode)(const Ring&, const DecodeStep&, std::int64_t begin, std::int64_t end) noexcept;
};

extern const AttentionKernels portable_attention;
#ifdef TWOHOT_X86
extern const AttentionKernels avx2_attention;
extern const AttentionKernels avx512_attention;
#endif

}  // namespace twohot::ops
