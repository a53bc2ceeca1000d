#define TWOHOT_CAPABILITY portable
#include "ops/critics_rows.h"

namespace twohot::ops {

const CriticKernels portable_critics{"portable",         &portable_kernels,  portable::panel_columns, portable::product_rows, portable::pair_products,
                                portable::pack_critic, portable::read_rows, portable::train_rows};

}  // namespace twohot::ops
