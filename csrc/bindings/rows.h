// Arrays of rows, for networks that act.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace twohot {

// The numbers of an array that is C-contiguous and aligned, with `rows` rows; and how many a row has.
template <class T>
std::pair<T*, std::int64_t> numbers_of(const pybind11::handle& value, const char* what, std::int64_t rows) {
  if (!pybind11::isinstance<pybind11::array>(value)) {
    throw pybind11::type_error(std::string(what) + ": expected an array, got " + Py_TYPE(value.ptr())->tp_name);
  }
  const auto array = pybind11::reinterpret_borrow<pybind11::array>(value);
  constexpr int flags = int{pybind11::array::c_style} | int{pybind11::detail::npy_api::NPY_ARRAY_ALIGNED_};
  const bool fits = pybind11::isinstance<pybind11::array_t<std::remove_const_t<T>>>(array) &&
                    (array.flags() & flags) == flags && (std::is_const_v<T> || array.writeable());
  if (!fits || array.ndim() < 1 || array.shape(0) != rows) {
    const auto text = [](const pybind11::handle& x) { return pybind11::cast<std::string>(pybind11::str(x)); };
    throw pybind11::value_error(std::string(what) + ": expected a C-contiguous array of " +
                                text(pybind11::dtype::of<std::remove_const_t<T>>()) + " with " + std::to_string(rows) +
                                " rows, got " + text(array.dtype()) + " of shape " + text(value.attr("shape")));
  }
  std::int64_t size = 1;
  for (pybind11::ssize_t i = 1; i < array.ndim(); ++i) size *= array.shape(i);
  return {static_cast<T*>(const_cast<void*>(array.data())), size};
}

}  // namespace twohot
