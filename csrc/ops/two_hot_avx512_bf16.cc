#define TWOHOT_CAPABILITY avx512_bf16
#include "ops/two_hot_rows.h"

namespace twohot::ops {

const Kernels avx512_bf16_kernels{"avx512_bf16", avx512_bf16::cross_entropy_rows, avx512_bf16::expectation_rows};

}  // namespace twohot::ops
