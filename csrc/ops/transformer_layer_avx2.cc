#define TWOHOT_CAPABILITY avx2
#include "ops/transformer_layer_passes.h"

namespace twohot::ops {

const TransformerLayerKernels avx2_transformer_layer = avx2::transformer_layer_kernels("avx2");

}  // namespace twohot::ops
