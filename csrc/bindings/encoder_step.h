// Binds the encoder_step of csrc/ops.
#pragma once

#include <pybind11/pybind11.h>

namespace twohot {

void bind_encoder_step(pybind11::module_& module);

}  // namespace twohot
