// What transformer_layer_passes_inl.h makes its blocks of, for one instruction set: include after defining
// TWOHOT_CAPABILITY. Operands of products are words: float32 numbers, or pairs of bfloat16 along the dimension that is
// summed over; where the processor has no products of bfloat16, float32 numbers that were rounded to it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "ops/attention/attention_matmul_inl.h"
#include "ops/simd/pairs.h"
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
    static constexpr std::uint32_t counted[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return select((Integers)(hash(load<Words>(counted) + index, seed) >= dropped), x * scale, FloatVector{});
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
  for (std::int64_t i = 0; i < size; i += lanes) {
    store(to + i, (Words)integers(load<Halves>(even + i)) | ((Words)integers(load<Halves>(odd + i)) << 16));
  }
}

// Rows of words as rows `begin` .. `begin` + rows - 1 of a slice of `all`. `begin` is even; odd `rows` are followed by
// a row of zeros.
template <Float dtype>
inline void put_summands(const Summands& to, std::int64_t all, std::int64_t begin, const float* words,
                         std::int64_t rows) noexcept {
  constexpr std::int64_t step = in_pairs<dtype> ? 2 : 1;
  for (std::int64_t j = 0; j < to.columns; j += layer_panel) {
    const std::int64_t columns = std::min(layer_panel, to.columns - j);
    float* out = to.words + j * ((all + step - 1) / step) + begin / step * columns;
    for (std::int64_t r = 0; r < rows; r += step, out += columns) {
      if constexpr (in_pairs<dtype>) {
        const auto* halves = reinterpret_cast<const std::uint16_t*>(words) + r * to.columns + j;
        interleave(out, halves, halves + to.columns, columns);
      } else {
        std::copy_n(words + r * to.columns + j, columns, out);
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
  const std::int64_t depth = in_pairs<dtype> ? (rows + 1) / 2 : rows;
  const float* left = of.left.words + i * depth;
  const float* right = of.right.words + j * depth;
  float* to = of.gradient + i * of.right.columns + j;
  if (right_columns % (max_vectors * lanes) == 0) {
    weight_tiles<in_pairs<dtype>, max_vectors>(of, left, left_columns, right, right_columns, to, depth, add);
  } else {
    weight_tiles<in_pairs<dtype>, layer_width_step / lanes>(of, left, left_columns, right, right_columns, to, depth,
                                                            add);
  }
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
