#define TWOHOT_CAPABILITY avx512_bf16
#include "ops/transformer_layer_passes.h"

namespace twohot::ops {

const TransformerLayerKernels avx512_bf16_transformer_layer = avx512_bf16::transformer_layer_kernels("avx512_bf16");

}  // namespace twohot::ops
