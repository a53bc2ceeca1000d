#define TWOHOT_CAPABILITY avx512_bf16
#include "ops/attention_decode_rows.h"
#include "ops/attention_window_rows.h"
#include "ops/transformer_step_rows.h"

namespace twohot::ops {

const AttentionKernels avx512_bf16_attention{"avx512_bf16", avx512_bf16::decode_heads, avx512_bf16::forward_head, avx512_bf16::backward_head,
                                             avx512_bf16::step_transformer, avx512_bf16::step_mlp};

}  // namespace twohot::ops
