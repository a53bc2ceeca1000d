// What transformer_layer_passes_inl.h makes its blocks of, for one instruction set: include after defining
// TWOHOT_CAPABILITY. Operands of products are words: float32 numbers, or pairs of bfloat16 along the dimension that is
// summed over; where the processor has no products of bfloat16, float32 numbers that were rounded to it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "ops/simd/matmul.h"
#include "ops/simd/pairs.h"
#include "ops/simd/scratch.h"
#include "ops/simd/transpose.h"
#include "ops/transformer/transformer_layer_kernels.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

template <Float dtype>
constexpr bool in_pairs = dtype == Float::bfloat16 && multiplies_bfloat16;

template <Float dtype>
constexpr std::int64_t words_of(std::int64_t numbers) noexcept {
  return in_pairs<dtype> ? numbers / 2 : numbers;
}

template <Float dtype>
inline Pair at(const void* row, std::int64_t i) noexcept {
  return load_pair<dtype>(static_cast<const char*>(row) + i * bytes<dtype>);
}

template <Float dtype>
inline void put(void* row, std::int64_t i, Pair x) noexcept {
  store_pair<dtype>(static_cast<char*>(row) + i * bytes<dtype>, x);
}

inline Pair at(const float* row, std::int64_t i) noexcept { return at<Float::float32>(row, i); }
inline void put(float* row, std::int64_t i, Pair x) noexcept { put<Float::float32>(row, i, x); }
inline void add(float* row, std::int64_t i, Pair x) noexcept { put(row, i, at(row, i) + x); }

template <Float dtype>
inline Pair rounded(Pair x) noexcept {
  if constexpr (dtype == Float::float32) return x;
  char numbers[two_vectors * bytes<dtype>];
  store_pair<dtype>(numbers, x);
  return load_pair<dtype>(numbers);
}

// Numbers i .. i + two_vectors - 1 of a row of words.
template <Float dtype>
inline void put_words(float* row, std::int64_t i, Pair x) noexcept {
  if constexpr (in_pairs<dtype>) return put<dtype>(row, i, x);
  put(row, i, rounded<dtype>(x));
}

template <class Each>
inline void over(std::int64_t size, const Each& each) noexcept {
  for (std::int64_t i = 0; i < size; i += two_vectors) each(i);
}

struct Statistics {
  float mean;
  float factor;  // one over the standard deviation
};

template <Float dtype>
inline Statistics statistics(const void* row, std::int64_t size, float epsilon) noexcept {
  Pair total{};
  over(size, [&](std::int64_t i) { total = total + at<dtype>(row, i); });
  const float mean = sum(total) / static_cast<float>(size);
  Pair squares{};
  over(size, [&](std::int64_t i) {
    const Pair centred = at<dtype>(row, i) - mean;
    squares = squares + centred * centred;
  });
  return {mean, 1 / std::sqrt(sum(squares) / static_cast<float>(size) + epsilon)};
}

// Calls to(i, norm(row)) for each pair.
template <class To>
inline void normalise(const float* row, std::int64_t size, const LayerNorm& norm, float epsilon,
                      const To& to) noexcept {
  const Statistics s = statistics<Float::float32>(row, size, epsilon);
  over(size, [&](std::int64_t i) { to(i, (at(row, i) - s.mean) * s.factor * at(norm.weight, i) + at(norm.bias, i)); });
}

// For the gradient of norm(row): adds those of its parameters to `of`, and calls normed(i, norm(row)), then
// to(i, gradient of row).
template <Float dtype, class Normed, class To>
inline void normalise_backward(const float* gradient, const void* row, std::int64_t size, const LayerNorm& norm,
                               float epsilon, const LayerNormGradient& of, const Normed& normed,
                               const To& to) noexcept {
  const Statistics s = statistics<dtype>(row, size, epsilon);
  Pair mean{};
  Pair along{};
  over(size, [&](std::int64_t i) {
    const Pair x = (at<dtype>(row, i) - s.mean) * s.factor;
    const Pair g = at(gradient, i);
    const Pair weight = at(norm.weight, i);
    const Pair scaled = g * weight;
    mean = mean + scaled;
    along = along + scaled * x;
    add(of.weight, i, g * x);
    add(of.bias, i, g);
    normed(i, x * weight + at(norm.bias, i));
  });
  const float offset = sum(mean) / static_cast<float>(size);
  const float share = sum(along) / static_cast<float>(size);
  over(size, [&](std::int64_t i) {
    const Pair x = (at<dtype>(row, i) - s.mean) * s.factor;
    to(i, (at(gradient, i) * at(norm.weight, i) - offset - x * share) * s.factor);
  });
}

// Thirty-two bits for each index, by two rounds of multiplications and shifts with half of the seed before each (the
// first as in Chris Wellons' "lowbias32").
inline Words hash(Words index, std::uint64_t seed) noexcept {
  Words x = index ^ static_cast<std::uint32_t>(seed);
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  x ^= (x >> 16) ^ static_cast<std::uint32_t>(seed >> 32);
  x = (x ^ (x >> 15)) * 0x2c1b3c6du;
  x = (x ^ (x >> 12)) * 0x297a2d39u;
  return x ^ (x >> 15);
}

struct Dropout {
  std::uint64_t seed;
  std::uint32_t dropped;
  float scale;

  FloatVector operator()(FloatVector x, std::uint32_t index) const noexcept {
    const Words indices = (Words)counted(0) + index;
    return select((Integers)(hash(indices, seed) >= dropped), x * scale, FloatVector{});
  }

  // Numbers whose first has this index.
  Pair operator()(Pair x, std::int64_t index) const noexcept {
    if (dropped == 0) return x;
    const auto first = static_cast<std::uint32_t>(index);
    return {(*this)(x.first, first), (*this)(x.second, first + lanes)};
  }
};

// c [rows, outputs] = words [rows, inputs] times a packed weight. Rows are filled up to a multiple of 24.
template <Float dtype>
inline void multiply(float* c, std::int64_t rows, const float* words, std::int64_t inputs, const float* packed,
                     std::int64_t outputs) noexcept {
  const std::int64_t depth = words_of<dtype>(inputs);
  for (std::int64_t j = 0; j < outputs; j += layer_panel) {
    const std::int64_t columns = std::min(layer_panel, outputs - j);
    product<in_pairs<dtype>>(c + j, outputs, rows, columns, {words, depth, 1}, packed + j * depth, columns, depth,
                             false);
  }
}

// Halves of two rows as pairs.
inline void interleave(float* to, const std::uint16_t* even, const std::uint16_t* odd, std::int64_t size) noexcept {
  for (std::int64_t i = 0; i < size; i += lanes) store(to + i, row_pairs(even + i, odd + i));
}

// Words of depth of the products of weights, over all rows of a slice: for tiles, with zeros up to whole ones.
template <Float dtype>
inline std::int64_t summed_words(std::int64_t rows) noexcept {
  if constexpr (!in_pairs<dtype>) return rows;
  return multiplies_tiles ? round_up(rows, 2 * tile_side) / 2 : (rows + 1) / 2;
}

// Rows of words as rows `begin` .. `begin` + rows - 1 of a slice of `all`. `begin` is even; odd `rows` are followed by
// a row of zeros.
template <Float dtype>
inline void put_summands(const Summands& to, std::int64_t all, std::int64_t begin, const float* words,
                         std::int64_t rows) noexcept {
  constexpr std::int64_t step = in_pairs<dtype> ? 2 : 1;
  const std::int64_t depth = summed_words<dtype>(all);
  for (std::int64_t j = 0; j < to.columns; j += layer_panel) {
    const std::int64_t columns = std::min(layer_panel, to.columns - j);
    float* const panel = to.words + j * depth;
    float* out = panel + begin / step * columns;
    for (std::int64_t r = 0; r < rows; r += step, out += columns) {
      if constexpr (in_pairs<dtype>) {
        const auto* halves = reinterpret_cast<const std::uint16_t*>(words) + r * to.columns + j;
        interleave(out, halves, halves + to.columns, columns);
      } else {
        std::copy_n(words + r * to.columns + j, columns, out);
      }
    }
    if (begin + rows == all) std::fill(out, panel + depth * columns, 0.0f);
  }
}

// put_summands() of a left side: for tiles, panels are [depth / 16, columns, 16] words.
template <Float dtype>
inline void put_left_summands(const Summands& to, std::int64_t all, std::int64_t begin, const float* words,
                              std::int64_t rows) noexcept {
  if constexpr (!in_pairs<dtype> || !multiplies_tiles) {
    put_summands<dtype>(to, all, begin, words, rows);
  } else {
    static_assert(layer_block % tile_side == 0);  // 8 words
    const std::int64_t depth = summed_words<dtype>(all);
    const std::int64_t end = begin + rows == all ? depth : (begin + rows) / 2;
    for (std::int64_t k = begin / 2, count; k < end; k += count) {
      count = std::min(tile_side - k % tile_side, end - k);
      const std::int64_t row = 2 * k - begin;
      const auto* halves = reinterpret_cast<const std::uint16_t*>(words) + row * to.columns;
      for (std::int64_t j = 0; j < to.columns; j += tile_side) {
        const std::int64_t first = j / layer_panel * layer_panel;
        const std::int64_t columns = std::min(layer_panel, to.columns - first);
        float* const out = to.words + first * depth + (k / tile_side * columns + j - first) * tile_side + k % tile_side;
        transpose_pairs(out, tile_side, halves + j, to.columns, rows - row, count);
      }
    }
  }
}

template <bool pairs, int vectors>
inline void weight_tiles(const WeightGradient& of, const float* left, std::int64_t left_columns, const float* right,
                         std::int64_t right_columns, float* to, std::int64_t depth, bool add) noexcept {
  constexpr int rows = 4;                   // divides layer_width_step
  constexpr std::int64_t depth_block = 96;  // words of depth that stay in the first cache
  for (std::int64_t d = 0; d < depth; d += depth_block) {
    for (std::int64_t l = 0; l < left_columns; l += rows) {
      for (std::int64_t j = 0; j < right_columns; j += vectors * lanes) {
        product_tile<pairs, vectors, rows>(to + l * of.right.columns + j, of.right.columns, left + d * left_columns + l,
                                           {nullptr, 1, left_columns}, right + d * right_columns + j, right_columns,
                                           std::min(depth_block, depth - d), add || d > 0);
      }
    }
  }
}

template <Float dtype>
void weight_of(const WeightGradient& of, std::int64_t rows, bool add, std::int64_t tile) noexcept {
  const std::int64_t panels = panels_of(of.right.columns);
  const std::int64_t i = tile / panels * layer_panel;
  const std::int64_t j = tile % panels * layer_panel;
  const std::int64_t left_columns = std::min(layer_panel, of.left.columns - i);
  const std::int64_t right_columns = std::min(layer_panel, of.right.columns - j);
  const std::int64_t depth = summed_words<dtype>(rows);
  const float* left = of.left.words + i * depth;
  const float* right = of.right.words + j * depth;
  float* to = of.gradient + i * of.right.columns + j;
  if constexpr (in_pairs<dtype> && multiplies_tiles) {
    tile_product(to, of.right.columns, left_columns / tile_side, right_columns / tile_side,
                 {left, tile_side, left_columns * tile_side, tile_words},
                 {right, right_columns, right_columns * tile_side, tile_side}, depth / tile_side, add);
  } else if (right_columns % (max_vectors * lanes) == 0) {
    weight_tiles<in_pairs<dtype>, max_vectors>(of, left, left_columns, right, right_columns, to, depth, add);
  } else {
    weight_tiles<in_pairs<dtype>, layer_width_step / lanes>(of, left, left_columns, right, right_columns, to, depth,
                                                            add);
  }
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
