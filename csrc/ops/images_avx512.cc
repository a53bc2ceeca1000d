#define TWOHOT_CAPABILITY avx512
#include "ops/images_rows.h"

namespace twohot::ops {

const ImageKernels avx512_images{"avx512", avx512::pool_image, avx512::pool_image_backward, avx512::norm_image,
                               avx512::norm_image_backward};

}  // namespace twohot::ops
