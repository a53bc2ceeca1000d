#include "bindings/replay.h"

#include <pybind11/stl.h>

#include <cstring>
#include <set>

#include "bindings/arrays.h"
#include "bindings/replay_store.h"
#include "core/files.h"

namespace py = pybind11;

namespace twohot {
namespace {

// Errors of the system as Python's own, and corruption as the package's error for it.
void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const FileError& error) {
    const py::object value = py::reinterpret_borrow<py::object>(PyExc_OSError)(
        error.code(), std::strerror(error.code()), decoded(error.path()));
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(value.ptr())), value.ptr());
  } catch (const CorruptionError& error) {
    const py::object type = py::module_::import("twohot.errors").attr("CorruptReplayError");
    PyErr_SetObject(type.ptr(), decoded(error.what()).ptr());
  } catch (const py::builtin_exception&) {
    throw;
  } catch (const std::runtime_error& error) {  // whose text may name a path
    PyErr_SetObject(PyExc_RuntimeError, decoded(error.what()).ptr());
  }
}

}  // namespace

void bind_replay(py::module_& module) {
  using namespace py::literals;
  using Released = py::call_guard<py::gil_scoped_release>;
  py::register_local_exception_translator(&translate);
  bind_replay_store(module);
  bind_replay_writer(module);
  module.def("roll_back", &roll_back, "directory"_a, "position"_a, "evicted"_a, Released());
  module.def(
      "repair",
      [](const std::string& directory, const std::vector<FieldTuple>& observation, const FieldTuple& action,
         const std::vector<FieldTuple>& step) {
        const Layout layout(make_schema(observation, action, step));
        return pairs(repair(directory, layout));
      },
      "directory"_a, "observation"_a, "action"_a, "step"_a);
}

}  // namespace twohot
