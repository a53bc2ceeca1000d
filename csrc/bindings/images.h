// Binds the max-pooling and residual norms of csrc/ops.
#pragma once

#include <pybind11/pybind11.h>

namespace twohot {

void bind_images(pybind11::module_& module);

}  // namespace twohot
