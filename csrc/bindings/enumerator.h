// The enumerators that names from Python stand for.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace twohot {

// `names` are those of the whole enumeration, or of its first enumerators, in its order.
template <class Enum>
Enum enumerator(const char* what, std::initializer_list<const char*> names, const std::string& name) {
  std::string expected;
  std::uint8_t value = 0;
  for (const char* each : names) {
    if (name == each) return static_cast<Enum>(value);
    expected += (value++ == 0 ? "'" : ", '") + std::string(each) + "'";
  }
  throw std::invalid_argument(std::string(what) + ": expected one of " + expected + "; got '" + name + "'");
}

}  // namespace twohot
