#include "ops/critics/critics_inl.h"

#include "ops/simd/capability.h"

namespace twohot::ops {

template <>
const CriticKernels& compiled_kernels<CriticKernels, Capability::TWOHOT_CAPABILITY>() noexcept {
  using namespace TWOHOT_CAPABILITY;
  static constexpr CriticKernels kernels{name_of(Capability::TWOHOT_CAPABILITY),
                                         panel_columns,
                                         product_rows<false>,
                                         multiplies_bfloat16 ? product_rows<true> : 0,
                                         pack_critic,
                                         infer_rows,
                                         train_rows};
  return kernels;
}

}  // namespace twohot::ops
