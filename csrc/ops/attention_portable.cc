#define TWOHOT_CAPABILITY portable
#include "ops/attention_decode_rows.h"
#include "ops/attention_window_rows.h"
#include "ops/transformer_step_rows.h"

namespace twohot::ops {

const AttentionKernels portable_attention{"portable", portable::decode_heads, portable::forward_head, portable::backward_head,
                                          portable::step_transformer, portable::step_mlp};

}  // namespace twohot::ops
