// Transposition of words and of pairs of bfloat16: include after defining TWOHOT_CAPABILITY.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "ops/simd/vector_math.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

template <int step, bool second, int... l>
inline FloatVector exchange(FloatVector a, FloatVector b, std::integer_sequence<int, l...>) noexcept {
  if constexpr (second) return __builtin_shufflevector(a, b, ((l & step) != 0 ? lanes + l : l + step)...);
  return __builtin_shufflevector(a, b, ((l & step) != 0 ? lanes + l - step : l)...);
}

template <int step = 1>
inline void transpose_lanes(FloatVector* rows) noexcept {
  constexpr auto every = std::make_integer_sequence<int, lanes>{};
  for (int r = 0; r < lanes; ++r) {
    if ((r & step) != 0) continue;
    const FloatVector a = rows[r];
    const FloatVector b = rows[r + step];
    rows[r] = exchange<step, false>(a, b, every);
    rows[r + step] = exchange<step, true>(a, b, every);
  }
  if constexpr (2 * step < lanes) transpose_lanes<2 * step>(rows);
}

// to[j * to_row + i] = from[i * from_row + j] for words i < rows, j < columns, both multiples of lanes.
inline void transpose(float* to, std::int64_t to_row, const float* from, std::int64_t from_row, std::int64_t rows,
                      std::int64_t columns) noexcept {
  for (std::int64_t i = 0; i < rows; i += lanes) {
    for (std::int64_t j = 0; j < columns; j += lanes) {
      FloatVector block[lanes];
      for (int r = 0; r < lanes; ++r) block[r] = load<FloatVector>(from + (i + r) * from_row + j);
      transpose_lanes(block);
      for (int r = 0; r < lanes; ++r) store(to + (j + r) * to_row + i, block[r]);
    }
  }
}

// The pairs of bfloat16 of two rows.
inline Words row_pairs(const std::uint16_t* even, const std::uint16_t* odd) noexcept {
  return (Words)integers(load<Halves>(even)) | ((Words)integers(load<Halves>(odd)) << 16);
}

// to[j * to_row + k] = the pair of rows 2 k and 2 k + 1 in column j < lanes, for k < words, which is a multiple of 8
// and at most lanes. Pairs from row `rows` on are zeros.
inline void transpose_pairs(float* to, std::int64_t to_row, const std::uint16_t* from, std::int64_t from_row,
                            std::int64_t rows, std::int64_t words = lanes) noexcept {
  FloatVector block[lanes];
  const auto pair = [&](int k) {
    return (FloatVector)row_pairs(from + 2 * k * from_row, from + (2 * k + 1) * from_row);
  };
  if (rows >= 2 * lanes) {
    for (int k = 0; k < lanes; ++k) block[k] = pair(k);
  } else {
    for (int k = 0; k < lanes; ++k) block[k] = 2 * k < rows ? pair(k) : FloatVector{};
  }
  transpose_lanes(block);
  for (int j = 0; j < lanes; ++j) {
    if (words == lanes) {
      store(to + j * to_row, block[j]);
    } else {
      for (std::int64_t k = 0; k < words; k += 8) std::memcpy(to + j * to_row + k, (const float*)&block[j] + k, 32);
    }
  }
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
