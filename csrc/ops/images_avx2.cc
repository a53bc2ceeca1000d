#define TWOHOT_CAPABILITY avx2
#include "ops/images_rows.h"

namespace twohot::ops {

const ImageKernels avx2_images{"avx2", avx2::pool_image, avx2::pool_image_backward, avx2::norm_image,
                               avx2::norm_image_backward};

}  // namespace twohot::ops
