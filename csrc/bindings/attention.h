// Binds the attention of csrc/ops.
#pragma once

#include <pybind11/pybind11.h>

namespace twohot {

void bind_attention(pybind11::module_& module);

}  // namespace twohot
