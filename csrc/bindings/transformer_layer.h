// Binds a Transformer's layer in training, of csrc/ops.
#pragma once

#include <pybind11/pybind11.h>

namespace twohot {

void bind_transformer_layer(pybind11::module_& module);

}  // namespace twohot
