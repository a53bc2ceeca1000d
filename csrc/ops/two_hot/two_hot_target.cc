#include "ops/two_hot/two_hot_inl.h"

#include "ops/simd/capability.h"

namespace twohot::ops {

template <>
const TwoHotKernels& compiled_kernels<TwoHotKernels, Capability::TWOHOT_CAPABILITY>() noexcept {
  using namespace TWOHOT_CAPABILITY;
  static constexpr TwoHotKernels kernels{name_of(Capability::TWOHOT_CAPABILITY), cross_entropy_rows, expectation_rows};
  return kernels;
}

}  // namespace twohot::ops
