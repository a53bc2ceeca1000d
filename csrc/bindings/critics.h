// Binds the layers of critics of csrc/ops.
#pragma once

#include <pybind11/pybind11.h>

namespace twohot {

void bind_critics(pybind11::module_& module);

}  // namespace twohot
