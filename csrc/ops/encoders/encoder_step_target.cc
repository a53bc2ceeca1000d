#include "ops/encoders/encoder_step_inl.h"
#include "ops/simd/capability.h"

namespace twohot::ops {

template <>
const EncoderStepKernels& compiled_kernels<EncoderStepKernels, Capability::TWOHOT_CAPABILITY>() noexcept {
  using namespace TWOHOT_CAPABILITY;
  static constexpr EncoderStepKernels kernels{name_of(Capability::TWOHOT_CAPABILITY), image_step, step_tokens};
  return kernels;
}

}  // namespace twohot::ops
