#define TWOHOT_CAPABILITY avx512_bf16
#include "ops/critics_rows.h"

namespace twohot::ops {

const CriticKernels avx512_bf16_critics{"avx512_bf16",         &avx512_bf16_kernels,  avx512_bf16::panel_columns, avx512_bf16::product_rows, avx512_bf16::pair_products,
                                avx512_bf16::pack_critic, avx512_bf16::read_rows, avx512_bf16::train_rows};

}  // namespace twohot::ops
