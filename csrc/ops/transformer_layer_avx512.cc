#define TWOHOT_CAPABILITY avx512
#include "ops/transformer_layer_passes.h"

namespace twohot::ops {

const TransformerLayerKernels avx512_transformer_layer = avx512::transformer_layer_kernels("avx512");

}  // namespace twohot::ops
