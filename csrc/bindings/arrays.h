// Strict numpy arguments: exact dtype, exact shape, C-contiguous and aligned; nothing is ever converted or copied.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "replay/schema.h"

namespace twohot {

// What an argument must be: `leading` axes, then those of one row. `name` is how errors call it.
struct Expected {
  const char* name;
  const std::string* field;  // the observation field, or null
  DType dtype;
  std::initializer_list<std::int64_t> leading;
  std::span<const std::int64_t> trailing;
};

// The memory of `value`. Throws TypeError when it is no numpy array and ValueError, saying what was expected and what
// came, when it is not the array that was expected. `read` borrows: the caller keeps `value` alive.
const std::byte* read(pybind11::handle value, const Expected& expected);

// As read(), and the array must be writeable.
std::byte* write(pybind11::handle value, const Expected& expected);

// Text of the system, such as a path, which need not be UTF-8, as Python has it.
pybind11::str decoded(const std::string& text);

// A new array of this dtype with undefined content.
pybind11::array make_array(DType dtype, std::span<const std::int64_t> leading, std::span<const std::int64_t> trailing);

// The value of `key`, or null.
pybind11::object find(const pybind11::dict& values, const pybind11::str& key);

// One value for each of `keys`, in their order. Throws TypeError where `values` is no dict and ValueError naming what
// is missing or unknown. `what` says which argument this is.
std::vector<pybind11::object> values_of(pybind11::handle values, const std::vector<pybind11::str>& keys,
                                        const char* what);

}  // namespace twohot
