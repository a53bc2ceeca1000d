#define TWOHOT_CAPABILITY avx2
#include "ops/attention_decode_rows.h"

namespace twohot::ops {

const AttentionKernels avx2_attention{"avx2", avx2::decode_heads};

}  // namespace twohot::ops
