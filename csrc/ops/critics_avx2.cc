#define TWOHOT_CAPABILITY avx2
#include "ops/critics_rows.h"

namespace twohot::ops {

const CriticKernels avx2_critics{"avx2", avx2::first_rows, avx2::hidden_rows, avx2::hidden_backward_columns,
                                 avx2::first_backward_columns};

}  // namespace twohot::ops
