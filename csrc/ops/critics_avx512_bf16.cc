#define TWOHOT_CAPABILITY avx512_bf16
#include "ops/critics_rows.h"

namespace twohot::ops {

const CriticKernels avx512_bf16_critics{"avx512_bf16", avx512_bf16::first_rows, avx512_bf16::hidden_rows, avx512_bf16::hidden_backward_columns,
                                 avx512_bf16::first_backward_columns};

}  // namespace twohot::ops
