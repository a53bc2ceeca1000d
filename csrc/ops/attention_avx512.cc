#define TWOHOT_CAPABILITY avx512
#include "ops/attention_decode_rows.h"
#include "ops/attention_window_rows.h"
#include "ops/transformer_step_rows.h"

namespace twohot::ops {

const AttentionKernels avx512_attention{"avx512", avx512::decode_heads, avx512::forward_head, avx512::backward_head,
                                        avx512::step_transformer, avx512::step_mlp};

}  // namespace twohot::ops
