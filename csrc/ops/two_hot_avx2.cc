#define TWOHOT_CAPABILITY avx2
#include "ops/two_hot_rows.h"

namespace twohot::ops {

const Kernels avx2_kernels{"avx2", avx2::cross_entropy_rows, avx2::expectation_rows};

}  // namespace twohot::ops
