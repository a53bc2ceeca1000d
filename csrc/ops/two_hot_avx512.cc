#define TWOHOT_CAPABILITY avx512
#include "ops/two_hot_rows.h"

namespace twohot::ops {

const Kernels avx512_kernels{"avx512", avx512::cross_entropy_rows, avx512::expectation_rows};

}  // namespace twohot::ops
