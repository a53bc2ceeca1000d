// What bindings make of addresses and words that Python gives.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "ops/two_hot/two_hot.h"

namespace twohot {

template <class T>
T* pointer(std::uintptr_t address) noexcept {
  return reinterpret_cast<T*>(address);
}

// The enumerator of this name: names are listed in the order of the enumeration.
template <class Enum>
inline Enum enumerator(const char* what, std::initializer_list<const char*> names, const std::string& name) {
  std::string expected;
  std::uint8_t value = 0;
  for (const char* each : names) {
    if (name == each) return static_cast<Enum>(value);
    expected += (value++ == 0 ? "" : ", ") + std::string(each);
  }
  throw std::invalid_argument(std::string(what) + ": expected one of " + expected + ", got " + name);
}

// Of HL-Gauss labels `sigma` is above 0.
inline ops::LabelKind label_kind_of(const std::string& labels, float sigma) {
  const auto kind = enumerator<ops::LabelKind>("labels", {"two_hot", "two_hot_raw", "hl_gauss"}, labels);
  if (kind == ops::LabelKind::hl_gauss && !(sigma > 0)) {
    throw std::invalid_argument("expected sigma > 0, got " + std::to_string(sigma));
  }
  return kind;
}

}  // namespace twohot
