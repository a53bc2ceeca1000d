#include "bindings/arrays.h"

namespace py = pybind11;

namespace twohot {
namespace {

std::string shape_text(std::span<const std::int64_t> first, std::span<const std::int64_t> second) {
  std::string text = "[";
  for (const auto part : {first, second}) {
    for (const std::int64_t extent : part) {
      if (text.size() > 1) text += ", ";
      text += std::to_string(extent);
    }
  }
  text += "]";
  return text;
}

std::string name_of(const Expected& expected) {
  return expected.field == nullptr ? expected.name : std::string(expected.name) + " '" + *expected.field + "'";
}

std::string wanted(const Expected& expected) {
  return name_of(expected) + ": expected a C-contiguous " + std::string(info(expected.dtype).name) +
         " array of shape " + shape_text(expected.leading, expected.trailing);
}

[[noreturn]] void reject(const Expected& expected, const py::array& array, const char* fault) {
  const std::vector<std::int64_t> shape(array.shape(), array.shape() + array.ndim());
  throw py::value_error(wanted(expected) + ", got " + py::cast<std::string>(py::str(array.dtype())) + " of shape " +
                        shape_text(shape, {}) + fault);
}

py::array checked(py::handle value, const Expected& expected) {
  if (!py::isinstance<py::array>(value)) {
    throw py::type_error(wanted(expected) + ", got " + Py_TYPE(value.ptr())->tp_name);
  }
  auto array = py::reinterpret_borrow<py::array>(value);
  const py::dtype dtype = array.dtype();
  const DTypeInfo& want = info(expected.dtype);
  const char order = dtype.byteorder();
  bool same = dtype.kind() == want.kind && static_cast<std::size_t>(dtype.itemsize()) == want.size &&
              (order == '=' || order == '|');
  same = same && static_cast<std::size_t>(array.ndim()) == expected.leading.size() + expected.trailing.size();
  const auto* shape = array.shape();
  for (const std::int64_t extent : expected.leading) same = same && *shape++ == extent;
  for (const std::int64_t extent : expected.trailing) same = same && *shape++ == extent;
  if (!same) reject(expected, array, "");
  if ((array.flags() & py::array::c_style) == 0) {
    reject(expected, array, " that is not C-contiguous; numpy.ascontiguousarray copies it into one that is");
  }
  if ((array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) == 0) reject(expected, array, " that is not aligned");
  return array;
}

}  // namespace

const std::byte* read(py::handle value, const Expected& expected) {
  return static_cast<const std::byte*>(checked(value, expected).data());
}

std::byte* write(py::handle value, const Expected& expected) {
  py::array array = checked(value, expected);
  if (!array.writeable()) reject(expected, array, " that is read-only");
  return static_cast<std::byte*>(array.mutable_data());
}

py::array make_array(DType dtype, std::span<const std::int64_t> leading, std::span<const std::int64_t> trailing) {
  std::vector<py::ssize_t> shape(leading.begin(), leading.end());
  shape.insert(shape.end(), trailing.begin(), trailing.end());
  return py::array(py::dtype(std::string(info(dtype).name)), shape);
}

py::object find(const py::dict& values, const py::str& key) {
  PyObject* value = PyDict_GetItemWithError(values.ptr(), key.ptr());
  if (value == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return py::reinterpret_borrow<py::object>(value);
}

py::str decoded(const std::string& text) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeFSDefaultAndSize(text.data(), static_cast<py::ssize_t>(text.size())));
}

std::vector<py::object> values_of(py::handle named, const std::vector<py::str>& keys, const char* what) {
  if (!py::isinstance<py::dict>(named)) {
    throw py::type_error(std::string(what) + ": expected a dict of arrays by name, got " +
                         Py_TYPE(named.ptr())->tp_name);
  }
  const auto values = py::reinterpret_borrow<py::dict>(named);
  std::vector<py::object> found;
  found.reserve(keys.size());
  for (const py::str& key : keys) {
    py::object value = find(values, key);
    if (!value) throw py::value_error(std::string(what) + ": '" + std::string(key) + "' is missing");
    found.push_back(std::move(value));
  }
  if (values.size() != keys.size()) {
    for (const auto& [key, value] : values) {
      bool known = false;
      for (const py::str& name : keys) known = known || name.equal(key);
      if (!known) {
        throw py::value_error(std::string(what) + ": '" + std::string(py::str(key)) + "' is not in the schema");
      }
    }
  }
  return found;
}

}  // namespace twohot
