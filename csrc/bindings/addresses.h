// What the bindings of csrc/ops make of addresses and names that Python gives.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "bindings/enumerator.h"
#include "ops/two_hot/two_hot.h"

namespace twohot {

template <class T>
T* pointer(std::uintptr_t address) noexcept {
  return reinterpret_cast<T*>(address);
}

inline ops::Float float_of(const std::string& dtype) {
  return enumerator<ops::Float>("dtype", {"float32", "bfloat16", "float16"}, dtype);
}

// One that products run in.
inline ops::Float product_dtype(const std::string& dtype, const char* what = "dtype") {
  return enumerator<ops::Float>(what, {"float32", "bfloat16"}, dtype);
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
