#include "ops/transformer/transformer_layer_passes_inl.h"

#include "ops/simd/capability.h"

namespace twohot::ops {

template <>
const TransformerLayerKernels& compiled_kernels<TransformerLayerKernels, Capability::TWOHOT_CAPABILITY>() noexcept {
  using namespace TWOHOT_CAPABILITY;
  static constexpr TransformerLayerKernels kernels = transformer_layer_kernels();
  return kernels;
}

}  // namespace twohot::ops
