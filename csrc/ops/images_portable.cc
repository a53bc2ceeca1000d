#define TWOHOT_CAPABILITY portable
#include "ops/images_rows.h"

namespace twohot::ops {

const ImageKernels portable_images{"portable", portable::pool_image, portable::pool_image_backward, portable::norm_image,
                               portable::norm_image_backward};

}  // namespace twohot::ops
