// Matrix products of the critics, compiled once for each instruction set: include after defining TWOHOT_CAPABILITY.
//
// Operands are words of 32 bits, a float32 or two neighbouring bfloat16 (`pairs`), in panels: a matrix of R rows is
// [columns / panel_columns, R, panel_columns], so that whatever a product reads lies side by side.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "ops/critics/critics_kernels.h"
#include "ops/simd/pairs.h"
#include "ops/simd/tiles.h"
#include "ops/simd/transpose.h"
#include "ops/simd/vector_math.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

constexpr std::int64_t panel_columns = 2 * lanes;
template <bool pairs>
constexpr bool in_tiles = pairs && multiplies_tiles;

// Rows that products take together. Sums fill the registers, or they are four tiles.
template <bool pairs>
constexpr std::int64_t product_rows = in_tiles<pairs>   ? 2 * tile_side
                                      : registers == 32 ? 12
                                                        : 6;
constexpr std::int64_t outer_rows = registers == 32 ? 8 : 4;

inline Pair operator*(float x, Pair y) noexcept { return {x * y.first, x * y.second}; }

inline Pair load_pair(const float* from) noexcept { return {load<FloatVector>(from), load<FloatVector>(from + lanes)}; }

inline void store_pair(float* to, Pair x) noexcept {
  store(to, x.first);
  store(to + lanes, x.second);
}

inline Pair load_pair(const std::uint16_t* from) noexcept {
  return {widen(from, Float::bfloat16), widen(from + lanes, Float::bfloat16)};
}

// The first `count` numbers of a pair, float32 or bfloat16; the others are 0.
template <class Number>
inline Pair load_pair(const Number* from, std::int64_t count) noexcept {
  if (count >= panel_columns) return load_pair(from);
  Number whole[panel_columns] = {};
  std::memcpy(whole, from, static_cast<std::size_t>(count) * sizeof(Number));
  return load_pair(whole);
}

inline void store_pair(float* to, Pair x, std::int64_t count) noexcept {
  if (count >= panel_columns) return store_pair(to, x);
  float whole[panel_columns];
  store_pair(whole, x);
  std::memcpy(to, whole, static_cast<std::size_t>(count) * sizeof(float));
}

// Rows of features or gradients, as operands.
template <bool pairs>
struct Panels {
  static constexpr std::int64_t row_words = pairs ? panel_columns / 2 : panel_columns;

  std::uint32_t* along;   // of a product over columns: a pair is of neighbouring columns
  std::uint32_t* across;  // of a product over rows: a pair is of neighbouring rows; null where there will be none
  std::int64_t rows;      // from one panel to the next

  // In memory of rows * width words.
  Panels(std::uint32_t* words, std::int64_t rows_, std::int64_t width, bool with_across) noexcept
      : along(words),
        across(!pairs        ? words
               : with_across ? words + rows_ * width / 2
                             : nullptr),
        rows(rows_) {}

  std::uint32_t* row(std::int64_t panel, std::int64_t r) const noexcept {
    return along + (panel * rows + r) * row_words;
  }

  Pair get(std::int64_t panel, std::int64_t r) const noexcept {
    if constexpr (pairs) return load_pair(reinterpret_cast<const std::uint16_t*>(row(panel, r)));
    return load_pair(reinterpret_cast<const float*>(row(panel, r)));
  }

  // Rows r, which is even, and r + 1.
  void put(std::int64_t panel, std::int64_t r, Pair x, Pair y) const noexcept {
    if constexpr (!pairs) {
      store_pair(reinterpret_cast<float*>(row(panel, r)), x);
      store_pair(reinterpret_cast<float*>(row(panel, r + 1)), y);
    } else {
      auto* const above = reinterpret_cast<std::uint16_t*>(row(panel, r));
      auto* const below = reinterpret_cast<std::uint16_t*>(row(panel, r + 1));
      store_pair<Float::bfloat16>(reinterpret_cast<char*>(above), x);
      store_pair<Float::bfloat16>(reinterpret_cast<char*>(below), y);
      if (across == nullptr) return;
      std::uint32_t* const to = across + (panel * rows + r) / 2 * panel_columns;
      for (std::int64_t i = 0; i < panel_columns; i += lanes) store(to + i, row_pairs(above + i, below + i));
    }
  }
};

// sum + left * right, over both numbers of each word where pairs.
template <bool pairs>
inline FloatVector multiply_add(FloatVector sum, std::uint32_t left, FloatVector right) noexcept {
  static_assert(!in_tiles<pairs>);
  const Words word = Words{} + left;
#if defined(__AVX512BF16__)
  if constexpr (pairs) return _mm512_dpbf16_ps(sum, (__m512bh)word, (__m512bh)right);
#endif
  return sum + (FloatVector)word * right;
}

// sums[r] += left_r^T right for `count` words of `rows` left operands, which are `row` apart and whose next ones follow
// after `next`.
template <bool pairs, std::int64_t rows>
inline void add_products(FloatVector (&sums)[rows][2], const std::uint32_t* left, std::int64_t row, std::int64_t next,
                         const std::uint32_t* right, std::int64_t count) noexcept {
  for (std::int64_t k = 0; k < count; ++k, left += next, right += panel_columns) {
    const FloatVector first = load<FloatVector>(right);
    const FloatVector second = load<FloatVector>(right + lanes);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < rows; ++r) {
      sums[r][0] = multiply_add<pairs>(sums[r][0], left[r * row], first);
      sums[r][1] = multiply_add<pairs>(sums[r][1], left[r * row], second);
    }
  }
}

// sums = product_rows rows of left, from its first row on, times a panel of right. Not inlined: what callers do with
// the sums would take registers from the loop.
template <bool pairs>
[[gnu::noinline]] void product_tile(FloatVector (&sums)[product_rows<pairs>][2], const std::uint32_t* left,
                                    std::int64_t next_panel, const std::uint32_t* right, std::int64_t panels) noexcept {
  constexpr std::int64_t words = Panels<pairs>::row_words;
  if constexpr (in_tiles<pairs>) {
    multiply_tiles<2, 2>(reinterpret_cast<float*>(sums), panel_columns, {left, tile_side, next_panel, tile_words},
                         {right, panel_columns, words * panel_columns, tile_side}, panels, false);
  } else {
    FloatVector tile[product_rows<pairs>][2] = {};
    for (std::int64_t p = 0; p < panels; ++p, left += next_panel, right += words * panel_columns) {
      add_products<pairs>(tile, left, words, 1, right, words);
    }
    std::memcpy(sums, tile, sizeof tile);
  }
}

// each(panel, r, sums) for product_rows rows from r on of left [rows, inner] times right [inner, outer].
template <bool pairs, class Each>
inline void product(const Panels<pairs>& left, std::int64_t inner, const std::uint32_t* right, std::int64_t outer,
                    std::int64_t rows, Each each) noexcept {
  constexpr std::int64_t words = Panels<pairs>::row_words;
  const std::int64_t panels = inner / panel_columns;
  for (std::int64_t panel = 0; panel < outer / panel_columns; ++panel) {
    for (std::int64_t r = 0; r < rows; r += product_rows<pairs>) {
      FloatVector sums[product_rows<pairs>][2];
      product_tile<pairs>(sums, left.row(0, r), left.rows * words, right + panel * panels * words * panel_columns,
                          panels);
      each(panel, r, sums);
    }
  }
}

// add_outer_product() by tiles: those of each panel of left are transposed once.
template <bool pairs>
inline void add_tile_outer_product(float* sums, const Panels<pairs>& left, std::int64_t inner,
                                   const Panels<pairs>& right, std::int64_t outer, std::int64_t rows) noexcept {
  constexpr std::int64_t deep = panel_columns * tile_side;  // words of a panel in a tile's depth, both left and right
  alignas(64) float transposed[(max_tile_rows + 1) / 2 * panel_columns];
  const TileOperand columns{transposed, tile_side, deep, tile_words};
  for (std::int64_t i = 0; i < inner; i += panel_columns) {
    for (std::int64_t r = 0; r < rows; r += 2 * tile_side) {
      const auto* halves = reinterpret_cast<const std::uint16_t*>(left.row(i / panel_columns, r));
      for (std::int64_t column = 0; column < panel_columns; column += tile_side) {
        transpose_pairs(transposed + r / 2 * panel_columns + column * tile_side, tile_side, halves + column,
                        panel_columns, rows - r);
      }
    }
    for (std::int64_t panel = 0; panel < outer / panel_columns; ++panel) {
      multiply_tiles<2, 2>(sums + (panel * inner + i) * panel_columns, panel_columns, columns,
                           {right.across + panel * right.rows / 2 * panel_columns, panel_columns, deep, tile_side},
                           rows / (2 * tile_side), true);
    }
  }
}

// sums [outer / panel_columns, inner, panel_columns] += left^T right of left [rows, inner] and right [rows, outer].
template <bool pairs>
inline void add_outer_product(float* sums, const Panels<pairs>& left, std::int64_t inner, const Panels<pairs>& right,
                              std::int64_t outer, std::int64_t rows) noexcept {
  if constexpr (in_tiles<pairs>) {
    add_tile_outer_product(sums, left, inner, right, outer, rows);
  } else {
    const std::int64_t per_panel = left.rows / (pairs ? 2 : 1) * panel_columns;
    for (std::int64_t panel = 0; panel < outer / panel_columns; ++panel) {
      for (std::int64_t i = 0; i < inner; i += outer_rows) {
        float* const to = sums + (panel * inner + i) * panel_columns;
        FloatVector tile[outer_rows][2];
        for (std::int64_t r = 0; r < outer_rows; ++r) {
          for (int v = 0; v < 2; ++v) tile[r][v] = load<FloatVector>(to + r * panel_columns + v * lanes);
        }
        add_products<pairs>(tile, left.across + i / panel_columns * per_panel + i % panel_columns, 1, panel_columns,
                            right.across + panel * per_panel, rows / (pairs ? 2 : 1));
        for (std::int64_t r = 0; r < outer_rows; ++r) {
          for (int v = 0; v < 2; ++v) store(to + r * panel_columns + v * lanes, tile[r][v]);
        }
      }
    }
  }
}

// float32's bits of a number.
inline std::uint32_t bits_of(const void* from, Float dtype, std::int64_t i) noexcept {
  if (dtype == Float::float32) return static_cast<const std::uint32_t*>(from)[i];
  return static_cast<std::uint32_t>(static_cast<const std::uint16_t*>(from)[i]) << 16;
}

// A matrix of float32 or bfloat16 as right operand: [inner, outer], where the numbers of neighbouring inner and outer
// elements are `inner_stride` and `outer_stride` apart, filled up with zeros to whole panels.
template <bool pairs>
inline void pack_right(std::uint32_t* to, const void* from, Float dtype, std::int64_t inner, std::int64_t inner_stride,
                       std::int64_t outer, std::int64_t outer_stride) noexcept {
  const std::int64_t all = (inner + panel_columns - 1) / panel_columns * panel_columns;
  const auto with = [&](auto bits) {
    for (std::int64_t first = 0; first < outer; first += panel_columns) {
      const std::int64_t count = std::min(panel_columns, outer - first);
      for (std::int64_t k = 0; k < all; k += pairs ? 2 : 1, to += panel_columns) {
        std::memset(to, 0, panel_columns * sizeof *to);
        const std::int64_t index = k * inner_stride + first * outer_stride;
        if (k < inner) {
          for (std::int64_t n = 0; n < count; ++n) to[n] = bits(index + n * outer_stride) >> (pairs ? 16 : 0);
        }
        if (pairs && k + 1 < inner) {
          for (std::int64_t n = 0; n < count; ++n) to[n] |= bits(index + inner_stride + n * outer_stride);
        }
      }
    }
  };
  if (dtype == Float::float32) {
    with([from](std::int64_t i) { return bits_of(from, Float::float32, i); });
  } else {
    with([from](std::int64_t i) { return bits_of(from, Float::bfloat16, i); });
  }
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
