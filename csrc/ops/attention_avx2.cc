#define TWOHOT_CAPABILITY avx2
#include "ops/attention_decode_rows.h"
#include "ops/attention_window_rows.h"
#include "ops/transformer_step_rows.h"

namespace twohot::ops {

const AttentionKernels avx2_attention{"avx2", avx2::decode_heads, avx2::forward_head, avx2::backward_head,
                                      avx2::step_transformer, avx2::step_mlp};

}  // namespace twohot::ops
