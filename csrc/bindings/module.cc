#include "bindings/ops.h"
#include "bindings/replay.h"
#include "bindings/xgrid.h"

PYBIND11_MODULE(_native, module) {
  module.doc() = "Native parts of twohot.";
  twohot::bind_replay(module);
  twohot::bind_ops(module);
  twohot::bind_xgrid(module);
}
