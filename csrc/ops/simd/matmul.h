// Matrix products of attention and of a Transformer's layer: include after defining TWOHOT_CAPABILITY.
#pragma once

#include <cstdint>

#include "ops/simd/tiles.h"
#include "ops/simd/vector_math.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

// c + a b; for words that are pairs of bfloat16, c + a1 b1 + a2 b2.
template <bool pairs>
inline FloatVector multiply_add(FloatVector a, FloatVector b, FloatVector c) noexcept {
  static_assert(!pairs || !multiplies_tiles);
#if defined(__AVX512BF16__)
  if constexpr (pairs) return (FloatVector)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#endif
  return c + a * b;
}

// Words a(row, k) = a[row * a_row + k * a_depth].
struct Left {
  const float* words;
  std::int64_t a_row;
  std::int64_t a_depth;
};

// Of `rows` x `vectors` * lanes numbers of c.
template <bool pairs, int vectors, int rows>
inline void product_tile(float* c, std::int64_t c_row, const float* a, const Left& left, const float* b,
                         std::int64_t b_depth, std::int64_t depth, bool add) noexcept {
  FloatVector sums[rows][vectors];
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < vectors; ++v) sums[r][v] = add ? load<FloatVector>(c + r * c_row + v * lanes) : FloatVector{};
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    FloatVector right[vectors];
    for (int v = 0; v < vectors; ++v) right[v] = load<FloatVector>(b + k * b_depth + v * lanes);
    for (int r = 0; r < rows; ++r) {
      const FloatVector x = splat(a[r * left.a_row + k * left.a_depth]);
      for (int v = 0; v < vectors; ++v) sums[r][v] = multiply_add<pairs>(x, right[v], sums[r][v]);
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < vectors; ++v) store(c + r * c_row + v * lanes, sums[r][v]);
  }
}

constexpr int accumulators = registers == 32 ? 24 : 12;
constexpr int max_vectors = registers == 32 ? 4 : 2;

template <bool pairs, int vectors>
inline void product_columns(float* c, std::int64_t c_row, std::int64_t rows, const Left& left, const float* b,
                            std::int64_t b_depth, std::int64_t depth, bool add) noexcept {
  constexpr int row_unroll = accumulators / vectors;
  for (std::int64_t r = 0; r < rows; r += row_unroll) {
    product_tile<pairs, vectors, row_unroll>(c + r * c_row, c_row, left.words + r * left.a_row, left, b, b_depth, depth,
                                             add);
  }
}

// c [rows, columns] = (c +) a b with b(k, column) = b[k * b_depth + column]. Rows are filled up to a multiple of 24,
// which a and c must have; columns are a multiple of lanes. Tiles, which a TileScope gives, take a depth that is a
// multiple of 16 and a left side whose words are side by side. Not inlined, for it takes long to compile and long to
// run.
template <bool pairs>
[[gnu::noinline]] void product(float* c, std::int64_t c_row, std::int64_t rows, std::int64_t columns, const Left& left,
                               const float* b, std::int64_t b_depth, std::int64_t depth, bool add) noexcept {
  if constexpr (pairs && multiplies_tiles) {
    const std::int64_t row_tiles = (rows + tile_side - 1) / tile_side;
    const TileOperand first{left.words, left.a_row, tile_side, tile_side * left.a_row};
    const TileOperand second{b, b_depth, tile_side * b_depth, tile_side};
    tile_product(c, c_row, row_tiles, columns / tile_side, first, second, depth / tile_side, add);
  } else {
    std::int64_t j = 0;
    for (; j + max_vectors * lanes <= columns; j += max_vectors * lanes) {
      product_columns<pairs, max_vectors>(c + j, c_row, rows, left, b + j, b_depth, depth, add);
    }
    const std::int64_t rest = (columns - j) / lanes;
    if constexpr (max_vectors > 2) {
      if (rest == 3) product_columns<pairs, 3>(c + j, c_row, rows, left, b + j, b_depth, depth, add);
      if (rest == 2) product_columns<pairs, 2>(c + j, c_row, rows, left, b + j, b_depth, depth, add);
    }
    if (rest == 1) product_columns<pairs, 1>(c + j, c_row, rows, left, b + j, b_depth, depth, add);
  }
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
