// Adds the replay to the native module.
#pragma once

#include <pybind11/pybind11.h>

namespace twohot {

void bind_replay(pybind11::module_& module);

}  // namespace twohot
