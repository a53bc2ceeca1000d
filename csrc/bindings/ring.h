// What the bindings of attention and of the Transformer's step check alike.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "bindings/addresses.h"
#include "ops/attention/attention_decode.h"

namespace twohot {

constexpr std::int64_t max_cache_position = std::int64_t{1} << 62;

inline void check_head_size(std::int64_t size) {
  if (size < ops::head_size_step || size > ops::max_head_size || size % ops::head_size_step != 0) {
    throw std::invalid_argument("expected a head size that is a multiple of " + std::to_string(ops::head_size_step) +
                                " up to " + std::to_string(ops::max_head_size) + ", got " + std::to_string(size));
  }
}

// Rows of a ring are found by these counts, which are memory that Python can write to.
inline void check_cache_position(std::uintptr_t cache_position, std::int64_t environments) {
  for (std::int64_t e = 0; e < environments; ++e) {
    const std::int64_t steps = pointer<const std::int64_t>(cache_position)[e];
    if (steps < 0 || steps > max_cache_position) {
      throw std::invalid_argument("cache_position: expected 0 to " + std::to_string(max_cache_position) +
                                  " steps of each environment, got " + std::to_string(steps) + " of environment " +
                                  std::to_string(e));
    }
  }
}

}  // namespace twohot
