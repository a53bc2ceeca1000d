#define TWOHOT_CAPABILITY avx2
#include "ops/critics_rows.h"

namespace twohot::ops {

const CriticKernels avx2_critics{"avx2",         &avx2_kernels,  avx2::panel_columns, avx2::product_rows, avx2::pair_products,
                                avx2::pack_critic, avx2::read_rows, avx2::train_rows};

}  // namespace twohot::ops
