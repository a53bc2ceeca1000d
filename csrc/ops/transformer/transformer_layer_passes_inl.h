// The loops of transformer_layer.h, compiled once for each instruction set: include after defining TWOHOT_CAPABILITY.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/simd/capability.h"
#include "ops/simd/scratch.h"
#include "ops/transformer/transformer_layer_inl.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

// The rows of a block, of all or of a slice, and those that its products fill.
struct Block {
  std::int64_t begin;
  std::int64_t rows;
  std::int64_t filled;

  // Zeros in all of the scratch, where rows are missing, keep what the products fill finite.
  Block(std::int64_t all, std::int64_t block, const LayerShape& shape, float* scratch) noexcept
      : begin(block * layer_block), rows(std::min(layer_block, all - begin)), filled(round_up(rows, 24)) {
    if (rows < layer_block) std::fill_n(scratch, layer_scratch_floats(shape), 0.0f);
  }
};

template <Float dtype>
void pack_of(const float* weight, std::int64_t outputs, std::int64_t inputs, bool backward, float* packed,
             std::int64_t panel) noexcept {
  // b(k, column) is weight[column, k] forward, and weight[k, column] backward.
  const std::int64_t depth = backward ? outputs : inputs;
  const std::int64_t first = panel * layer_panel;
  const std::int64_t columns = std::min(layer_panel, (backward ? inputs : outputs) - first);
  float* to = packed + first * words_of<dtype>(depth);
  alignas(64) float rows[layer_panel * layer_width_step];
  if (backward) {
    for (std::int64_t k = 0; k < depth; k += 2) {
      for (std::int64_t r = 0; r < 2; ++r) {
        over(columns, [&](std::int64_t i) {
          put_words<dtype>(rows + r * columns, i, at(weight + (k + r) * inputs + first, i));
        });
      }
      const auto* halves = reinterpret_cast<const std::uint16_t*>(rows);
      if constexpr (in_pairs<dtype>) interleave(to + k / 2 * columns, halves, halves + 2 * columns, columns);
      if constexpr (!in_pairs<dtype>) std::copy_n(rows, 2 * columns, to + k * columns);
    }
    return;
  }
  constexpr std::int64_t words = words_of<dtype>(layer_width_step);
  for (std::int64_t k = 0; k < depth; k += layer_width_step) {
    for (std::int64_t column = 0; column < columns; ++column) {
      over(layer_width_step, [&](std::int64_t i) {
        put_words<dtype>(rows + column * words, i, at(weight + (first + column) * inputs + k, i));
      });
    }
    transpose(to + words_of<dtype>(k) * columns, columns, rows, words, columns, words);
  }
}

template <Float dtype>
void before_of(const BeforeAttention& layer, std::int64_t index, float* scratch) noexcept {
  const LayerShape& shape = layer.shape;
  const Block block(shape.rows, index, shape, scratch);
  const std::int64_t width = shape.width;
  const std::int64_t words = words_of<dtype>(width);
  float* const c = take(scratch, layer_block * shape.hidden);
  float* const normed = take(scratch, layer_block * width);
  for (std::int64_t r = 0; r < block.rows; ++r) {
    normalise(layer.x + (block.begin + r) * width, width, layer.norm, shape.epsilon,
              [&](std::int64_t i, Pair y) { put_words<dtype>(normed + r * words, i, y); });
  }
  multiply<dtype>(c, block.filled, normed, width, layer.linear.forward, shape.hidden);
  over(block.rows * shape.hidden,
       [&](std::int64_t i) { put<dtype>(layer.output, block.begin * shape.hidden + i, at(c, i)); });
}

template <Float dtype>
void after_of(const AfterAttention& layer, std::int64_t index, float* scratch) noexcept {
  const LayerShape& shape = layer.shape;
  const Block block(shape.rows, index, shape, scratch);
  const std::int64_t width = shape.width;
  const std::int64_t hidden = shape.hidden;
  const std::int64_t narrow_words = words_of<dtype>(width);
  const std::int64_t wide_words = words_of<dtype>(hidden);
  float* const c = take(scratch, layer_block * std::max(width, hidden));
  float* const operand = take(scratch, layer_block * width);
  float* const normed = take(scratch, layer_block * hidden);
  const Dropout dropout{layer.seed, layer.dropped, layer.scale};
  over(block.rows * width,
       [&](std::int64_t i) { put_words<dtype>(operand, i, at<dtype>(layer.attended, block.begin * width + i)); });
  multiply<dtype>(c, block.filled, operand, width, layer.out.forward, width);
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const std::int64_t first = (block.begin + r) * width;
    float* const row = c + r * width;
    float* const middle = layer.middle + first;
    over(width, [&](std::int64_t i) {
      const Pair y = rounded<dtype>(at(row, i) + at(layer.out.bias, i));
      put(row, i, y);
      put<dtype>(layer.projected, first + i, y);
    });
    normalise(row, width, layer.attended_norm, shape.epsilon,
              [&](std::int64_t i, Pair y) { put(middle, i, at(layer.x + first, i) + y); });
    normalise(middle, width, layer.feed_forward_norm, shape.epsilon,
              [&](std::int64_t i, Pair y) { put_words<dtype>(operand + r * narrow_words, i, y); });
  }
  multiply<dtype>(c, block.filled, operand, width, layer.up.forward, hidden);
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const std::int64_t first = (block.begin + r) * hidden;
    float* const row = c + r * hidden;
    over(hidden, [&](std::int64_t i) {
      const Pair y = rounded<dtype>(leaky(at(row, i) + at(layer.up.bias, i), layer.slope));
      put(row, i, y);
      put<dtype>(layer.activated, first + i, y);
    });
    normalise(row, hidden, layer.hidden_norm, shape.epsilon,
              [&](std::int64_t i, Pair y) { put_words<dtype>(normed + r * wide_words, i, y); });
  }
  multiply<dtype>(c, block.filled, normed, hidden, layer.down.forward, width);
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const std::int64_t first = (block.begin + r) * width;
    over(width, [&](std::int64_t i) {
      const Pair y = dropout(at(c + r * width, i) + at(layer.down.bias, i), first + i);
      put(layer.output + first, i, at(layer.middle + first, i) + y);
    });
  }
}

template <Float dtype>
void before_backward_of(const BeforeAttention& layer, const BeforeAttentionGradient& gradient, const BeforeSlice& slice,
                        std::int64_t index, float* scratch) noexcept {
  const LayerShape& shape = layer.shape;
  const Block block(slice.rows, index, shape, scratch);
  const std::int64_t begin = slice.begin + block.begin;
  const std::int64_t width = shape.width;
  float* const sums = slice.sums + index * 2 * width;
  std::fill_n(sums, 2 * width, 0.0f);
  float* const grad_output = take(scratch, layer_block * shape.hidden);
  float* const c = take(scratch, layer_block * width);
  float* const normed = take(scratch, layer_block * width);
  over(block.rows * shape.hidden, [&](std::int64_t i) {
    put_words<dtype>(grad_output, i, at<dtype>(gradient.grad_output, begin * shape.hidden + i));
  });
  multiply<dtype>(c, block.filled, grad_output, shape.hidden, layer.linear.backward, width);
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const std::int64_t first = (begin + r) * width;
    normalise_backward<Float::float32>(
        c + r * width, layer.x + first, width, layer.norm, shape.epsilon, {sums, sums + width},
        [&](std::int64_t i, Pair y) { put_words<dtype>(normed + r * words_of<dtype>(width), i, y); },
        [&](std::int64_t i, Pair g) { add(gradient.x + first, i, g); });
  }
  put_left_summands<dtype>(slice.linear.left, slice.rows, block.begin, grad_output, block.rows);
  put_summands<dtype>(slice.linear.right, slice.rows, block.begin, normed, block.rows);
}

template <Float dtype>
void after_backward_of(const AfterAttention& layer, const AfterAttentionGradient& gradient, const AfterSlice& slice,
                       std::int64_t index, float* scratch) noexcept {
  const LayerShape& shape = layer.shape;
  const Block block(slice.rows, index, shape, scratch);
  const std::int64_t begin = slice.begin + block.begin;
  const std::int64_t width = shape.width;
  const std::int64_t hidden = shape.hidden;
  const std::int64_t narrow_words = words_of<dtype>(width);
  const std::int64_t wide_words = words_of<dtype>(hidden);
  float* sums = slice.sums + index * after_sums(shape);
  std::fill_n(sums, after_sums(shape), 0.0f);
  const LayerNormGradient hidden_norm{take(sums, hidden), take(sums, hidden)};
  float* const up_bias = take(sums, hidden);
  const LayerNormGradient feed_forward_norm{take(sums, width), take(sums, width)};
  const LayerNormGradient attended_norm{take(sums, width), take(sums, width)};
  float* const out_bias = take(sums, width);
  float* const down_bias = take(sums, width);
  float* const c = take(scratch, layer_block * std::max(width, hidden));
  float* const wide = take(scratch, layer_block * hidden);
  float* const wide_normed = take(scratch, layer_block * hidden);
  float* const narrow = take(scratch, layer_block * width);
  float* const narrow_normed = take(scratch, layer_block * width);
  const Dropout dropout{layer.seed, layer.dropped, layer.scale};

  for (std::int64_t r = 0; r < block.rows; ++r) {
    const std::int64_t first = (begin + r) * width;
    over(width, [&](std::int64_t i) {
      const Pair g = dropout(at(gradient.grad_output + first, i), first + i);
      add(down_bias, i, g);
      put_words<dtype>(narrow + r * narrow_words, i, g);
    });
  }
  multiply<dtype>(c, block.filled, narrow, width, layer.down.backward, hidden);
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const void* activated = static_cast<const char*>(layer.activated) + (begin + r) * hidden * bytes<dtype>;
    normalise_backward<dtype>(
        c + r * hidden, activated, hidden, layer.hidden_norm, shape.epsilon, hidden_norm,
        [&](std::int64_t i, Pair y) { put_words<dtype>(wide_normed + r * wide_words, i, y); },
        [&](std::int64_t i, Pair g) {
          const Pair mine = leaky_backward(g, at<dtype>(activated, i), layer.slope);
          add(up_bias, i, mine);
          put_words<dtype>(wide + r * wide_words, i, mine);
        });
  }
  put_left_summands<dtype>(slice.down.left, slice.rows, block.begin, narrow, block.rows);
  put_summands<dtype>(slice.down.right, slice.rows, block.begin, wide_normed, block.rows);
  put_left_summands<dtype>(slice.up.left, slice.rows, block.begin, wide, block.rows);

  multiply<dtype>(c, block.filled, wide, hidden, layer.up.backward, width);
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const std::int64_t first = (begin + r) * width;
    float* const middle = gradient.middle + first;
    normalise_backward<Float::float32>(
        c + r * width, layer.middle + first, width, layer.feed_forward_norm, shape.epsilon, feed_forward_norm,
        [&](std::int64_t i, Pair y) { put_words<dtype>(narrow_normed + r * narrow_words, i, y); },
        [&](std::int64_t i, Pair g) { put(middle, i, at(gradient.grad_output + first, i) + g); });
    normalise_backward<dtype>(
        middle, static_cast<const char*>(layer.projected) + first * bytes<dtype>, width, layer.attended_norm,
        shape.epsilon, attended_norm, [](std::int64_t, Pair) {},
        [&](std::int64_t i, Pair g) {
          add(out_bias, i, g);
          put_words<dtype>(narrow + r * narrow_words, i, g);
        });
  }
  put_summands<dtype>(slice.up.right, slice.rows, block.begin, narrow_normed, block.rows);
  put_left_summands<dtype>(slice.out.left, slice.rows, block.begin, narrow, block.rows);
  over(block.rows * width,
       [&](std::int64_t i) { put_words<dtype>(narrow_normed, i, at<dtype>(layer.attended, begin * width + i)); });
  put_summands<dtype>(slice.out.right, slice.rows, block.begin, narrow_normed, block.rows);

  multiply<dtype>(c, block.filled, narrow, width, layer.out.backward, width);
  over(block.rows * width, [&](std::int64_t i) { put<dtype>(gradient.attended, begin * width + i, at(c, i)); });
}

inline void dropout_numbers(float* to, const float* from, std::int64_t begin, std::int64_t end, std::uint64_t seed,
                            std::uint32_t dropped, float scale) noexcept {
  const Dropout dropout{seed, dropped, scale};
  for (std::int64_t i = begin; i < end; i += two_vectors) {
    const Pair x = load_pair<Float::float32>(floats(from + i), end - i);
    store_pair<Float::float32>(floats(to + i), dropout(x, i), end - i);
  }
}

// Invokes fn() with the constant that `dtype` is: float32, or else bfloat16.
template <class Fn>
inline void with_layer_dtype(Float dtype, const Fn& fn) noexcept {
  if (dtype == Float::float32) return fn.template operator()<Float::float32>();
  const TileScope tiles;
  fn.template operator()<Float::bfloat16>();
}

constexpr TransformerLayerKernels transformer_layer_kernels() noexcept {
  return {
      name_of(Capability::TWOHOT_CAPABILITY),
      [](const float* weight, std::int64_t outputs, std::int64_t inputs, bool backward, Float dtype, float* packed,
         std::int64_t panel) noexcept {
        with_layer_dtype(dtype, [&]<Float t>() { pack_of<t>(weight, outputs, inputs, backward, packed, panel); });
      },
      [](const BeforeAttention& layer, std::int64_t block, float* scratch) noexcept {
        with_layer_dtype(layer.shape.dtype, [&]<Float t>() { before_of<t>(layer, block, scratch); });
      },
      [](const AfterAttention& layer, std::int64_t block, float* scratch) noexcept {
        with_layer_dtype(layer.shape.dtype, [&]<Float t>() { after_of<t>(layer, block, scratch); });
      },
      [](const BeforeAttention& layer, const BeforeAttentionGradient& gradient, const BeforeSlice& slice,
         std::int64_t block, float* scratch) noexcept {
        with_layer_dtype(layer.shape.dtype,
                         [&]<Float t>() { before_backward_of<t>(layer, gradient, slice, block, scratch); });
      },
      [](const AfterAttention& layer, const AfterAttentionGradient& gradient, const AfterSlice& slice,
         std::int64_t block, float* scratch) noexcept {
        with_layer_dtype(layer.shape.dtype,
                         [&]<Float t>() { after_backward_of<t>(layer, gradient, slice, block, scratch); });
      },
      [](const WeightGradient& of, Float dtype, std::int64_t rows, bool add, std::int64_t tile) noexcept {
        with_layer_dtype(dtype, [&]<Float t>() { weight_of<t>(of, rows, add, tile); });
      },
      dropout_numbers,
  };
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
