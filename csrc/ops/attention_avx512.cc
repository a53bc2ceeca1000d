#define TWOHOT_CAPABILITY avx512
#include "ops/attention_decode_rows.h"

namespace twohot::ops {

const AttentionKernels avx512_attention{"avx512", avx512::decode_heads};

}  // namespace twohot::ops
