#define TWOHOT_CAPABILITY portable
#include "ops/critics_rows.h"

namespace twohot::ops {

const CriticKernels portable_critics{"portable", portable::first_rows, portable::hidden_rows, portable::hidden_backward_columns,
                                 portable::first_backward_columns};

}  // namespace twohot::ops
