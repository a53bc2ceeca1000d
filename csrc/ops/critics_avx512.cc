#define TWOHOT_CAPABILITY avx512
#include "ops/critics_rows.h"

namespace twohot::ops {

const CriticKernels avx512_critics{"avx512", avx512::first_rows, avx512::hidden_rows, avx512::hidden_backward_columns,
                                 avx512::first_backward_columns};

}  // namespace twohot::ops
