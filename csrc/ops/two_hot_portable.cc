#define TWOHOT_CAPABILITY portable
#include "ops/two_hot_rows.h"

namespace twohot::ops {

const Kernels portable_kernels{"portable", portable::cross_entropy_rows, portable::expectation_rows};

}  // namespace twohot::ops
