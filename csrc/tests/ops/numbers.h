// Arrays of float32 or bfloat16 for the tests of attention.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "core/random.h"
#include "ops/simd/float.h"

namespace twohot::ops::tests {

// Numbers in float32 or bfloat16, exactly as many bytes as they take.
struct Numbers {
  Float dtype;
  std::vector<char> bytes;

  Numbers(Float kind, std::int64_t count)
      : dtype(kind), bytes(static_cast<std::size_t>(count * bytes_of(kind)), char(0xff)) {}

  float get(std::int64_t i) const {
    if (dtype == Float::float32) {
      float x;
      std::memcpy(&x, bytes.data() + 4 * i, 4);
      return x;
    }
    std::uint16_t half;
    std::memcpy(&half, bytes.data() + 2 * i, 2);
    const std::uint32_t word = static_cast<std::uint32_t>(half) << 16;
    float x;
    std::memcpy(&x, &word, 4);
    return x;
  }

  // Small multiples of 1 / 64, which both kinds hold.
  void fill(RandomStream& random) {
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(bytes.size()) / bytes_of(dtype); ++i) {
      const float x = (static_cast<float>(random.below(256)) - 128) / 64;
      std::uint32_t word;
      std::memcpy(&word, &x, 4);
      const std::uint16_t half = static_cast<std::uint16_t>(word >> 16);
      if (dtype == Float::float32) {
        std::memcpy(bytes.data() + 4 * i, &x, 4);
      } else {
        std::memcpy(bytes.data() + 2 * i, &half, 2);
      }
    }
  }
};

}  // namespace twohot::ops::tests
