// How kernels divide the scratch memory that they are given.
#pragma once

#include <cstdint>

namespace twohot::ops {

constexpr std::int64_t round_up(std::int64_t x, std::int64_t step) noexcept { return (x + step - 1) / step * step; }

// Takes `count` floats of the scratch.
inline float* take(float*& scratch, std::int64_t count) noexcept {
  float* const taken = scratch;
  scratch += count;
  return taken;
}

}  // namespace twohot::ops
