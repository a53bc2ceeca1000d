#define TWOHOT_CAPABILITY portable
#include "ops/attention_decode_rows.h"

namespace twohot::ops {

const AttentionKernels portable_attention{"portable", portable::decode_heads};

}  // namespace twohot::ops
