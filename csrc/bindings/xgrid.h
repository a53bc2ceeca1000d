#pragma once

#include <pybind11/pybind11.h>

namespace twohot {

// Adds XGrid and the functions of its rule sets.
void bind_xgrid(pybind11::module_& module);

}  // namespace twohot
