#include "ops/attention/attention_decode_inl.h"
#include "ops/attention/attention_window_inl.h"

#include "ops/simd/capability.h"

namespace twohot::ops {

template <>
const AttentionKernels& compiled_kernels<AttentionKernels, Capability::TWOHOT_CAPABILITY>() noexcept {
  using namespace TWOHOT_CAPABILITY;
  static constexpr AttentionKernels kernels{name_of(Capability::TWOHOT_CAPABILITY), decode_heads, forward_head,
                                            backward_head};
  return kernels;
}

}  // namespace twohot::ops
