#define TWOHOT_CAPABILITY avx512
#include "ops/critics_rows.h"

namespace twohot::ops {

const CriticKernels avx512_critics{"avx512",         &avx512_kernels,  avx512::panel_columns, avx512::product_rows, avx512::pair_products,
                                avx512::pack_critic, avx512::read_rows, avx512::train_rows};

}  // namespace twohot::ops
