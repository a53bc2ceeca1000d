#define TWOHOT_CAPABILITY portable
#include "ops/transformer_layer_passes.h"

namespace twohot::ops {

const TransformerLayerKernels portable_transformer_layer = portable::transformer_layer_kernels("portable");

}  // namespace twohot::ops
