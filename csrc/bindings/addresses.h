// What bindings make of addresses and words that Python gives.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "ops/two_hot/two_hot.h"

namespace twohot {

template <class T>
T* pointer(std::uintptr_t address) noexcept {
  return reinterpret_cast<T*>(address);
}

inline ops::Support support_of(double low, double high, const std::string& transform, bool raw) {
  if (!(low < high)) {
    throw std::invalid_argument("expected low < high, got " + std::to_string(low) + " and " + std::to_string(high));
  }
  if (transform == "linear") return {low, high, ops::Transform::linear, raw};
  if (transform == "symlog") return {low, high, ops::Transform::symlog, raw};
  if (transform == "signed_sqrt") return {low, high, ops::Transform::signed_sqrt, raw};
  throw std::invalid_argument("expected the transform linear, symlog or signed_sqrt, got " + transform);
}

}  // namespace twohot
