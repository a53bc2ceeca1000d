#include "ops/images/images_inl.h"

#include "ops/simd/capability.h"

namespace twohot::ops {

template <>
const ImageKernels& compiled_kernels<ImageKernels, Capability::TWOHOT_CAPABILITY>() noexcept {
  using namespace TWOHOT_CAPABILITY;
  static constexpr ImageKernels kernels{name_of(Capability::TWOHOT_CAPABILITY), pool_image, pool_image_backward,
                                        norm_image, norm_image_backward};
  return kernels;
}

}  // namespace twohot::ops
