#define TWOHOT_CAPABILITY avx512bf16
#include "ops/attention_decode_rows.h"
#include "ops/attention_window_rows.h"

namespace twohot::ops {

const AttentionKernels avx512bf16_attention{"avx512bf16", avx512bf16::decode_heads, avx512bf16::forward_head, avx512bf16::backward_head};

}  // namespace twohot::ops
