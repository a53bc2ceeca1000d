// What the dispatcher of transformer_layer.h hands to the loops of each instruction set.
#pragma once

#include <cstdint>

#include "ops/transformer/transformer_layer.h"

namespace twohot::ops {

constexpr std::int64_t layer_block = 48;   // rows of a block, which goes through a layer as one; a multiple of 24
constexpr std::int64_t layer_panel = 64;   // columns of an operand that stand side by side in memory
constexpr std::int64_t layer_slice = 768;  // most rows whose operands wait for the products of weights; whole blocks

// The operand of products that sum over rows: panels of up to layer_panel columns, each [depth, columns] words, which
// are floats, or pairs of bfloat16 of two rows.
struct Summands {
  float* words;
  std::int64_t columns;
};

// gradient [left.columns, right.columns] (+)= left^T right, over the rows of a slice.
struct WeightGradient {
  Summands left;
  Summands right;
  float* gradient;
};

constexpr std::int64_t panels_of(std::int64_t columns) noexcept { return (columns + layer_panel - 1) / layer_panel; }

// A slice of rows on its way back: `rows` from row `begin` on.
struct BeforeSlice {
  std::int64_t begin;
  std::int64_t rows;
  WeightGradient linear;
  float* sums;  // [blocks, 2 width]: of the norm's weight and bias
};

struct AfterSlice {
  std::int64_t begin;
  std::int64_t rows;
  WeightGradient out;
  WeightGradient up;
  WeightGradient down;
  float* sums;  // [blocks, after_sums()]
};

// Sums over rows in the order hidden norm's weight and bias, up's bias [hidden each], feed-forward norm's weight and
// bias, attended norm's weight and bias, out's bias, down's bias [width each].
constexpr std::int64_t after_sums(const LayerShape& shape) noexcept { return 3 * shape.hidden + 6 * shape.width; }

struct TransformerLayerKernels {
  const char* name;
  // Panel `panel` of a packed weight.
  void (*pack)(const float* weight, std::int64_t outputs, std::int64_t inputs, bool backward, Float dtype,
               float* packed, std::int64_t panel) noexcept;
  // Block `block` of layer_block rows, of all or of a slice; `scratch` has layer_scratch_floats().
  void (*before)(const BeforeAttention&, std::int64_t block, float* scratch) noexcept;
  void (*after)(const AfterAttention&, std::int64_t block, float* scratch) noexcept;
  void (*before_backward)(const BeforeAttention&, const BeforeAttentionGradient&, const BeforeSlice&,
                          std::int64_t block, float* scratch) noexcept;
  void (*after_backward)(const AfterAttention&, const AfterAttentionGradient&, const AfterSlice&, std::int64_t block,
                         float* scratch) noexcept;
  // The part of a weight's gradient that belongs to panel `tile` / panels of right of left, and the rest of right.
  void (*weight)(const WeightGradient&, Float dtype, std::int64_t rows, bool add, std::int64_t tile) noexcept;
  void (*dropout)(float* to, const float* from, std::int64_t begin, std::int64_t end, std::uint64_t seed,
                  std::uint32_t dropped, float scale) noexcept;
};

// Floats that a block needs on its way, aligned to 64 bytes.
constexpr std::int64_t layer_scratch_floats(const LayerShape& shape) noexcept {
  return layer_block * (3 * shape.hidden + 4 * shape.width);
}

}  // namespace twohot::ops
