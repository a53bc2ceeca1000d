#include "ops/transformer/transformer_step_inl.h"

#include "ops/simd/capability.h"

namespace twohot::ops {

template <>
const TransformerStepKernels& compiled_kernels<TransformerStepKernels, Capability::TWOHOT_CAPABILITY>() noexcept {
  using namespace TWOHOT_CAPABILITY;
  static constexpr TransformerStepKernels kernels{name_of(Capability::TWOHOT_CAPABILITY), step_transformer, step_mlp};
  return kernels;
}

}  // namespace twohot::ops
