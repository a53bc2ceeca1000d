// What the dispatcher of critics.h hands to the loops of each instruction set.
#pragma once

#include <cstdint>

#include "ops/critics.h"

namespace twohot::ops {

// Forward over rows begin .. end - 1, backward over columns begin .. end - 1 of all rows.
struct CriticKernels {
  const char* name;
  void (*first)(const Features&, const FirstLayer&, float slope, std::int64_t begin, std::int64_t end) noexcept;
  void (*hidden)(const Features&, const float* bias, float slope, std::int64_t begin, std::int64_t end) noexcept;
  void (*hidden_backward)(const Features&, const void* output, float* of_bias, float slope, std::int64_t begin,
                          std::int64_t end) noexcept;
  void (*first_backward)(const Features&, const void* output, const FirstLayerGradient&, float slope, std::int64_t begin,
                         std::int64_t end) noexcept;
};

extern const CriticKernels portable_critics;
#ifdef TWOHOT_X86
extern const CriticKernels avx2_critics;
extern const CriticKernels avx512_critics;
extern const CriticKernels avx512_bf16_critics;
#endif

}  // namespace twohot::ops
