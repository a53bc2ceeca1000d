// Linear layers of networks that act: include after defining TWOHOT_CAPABILITY.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ops/simd/vector_math.h"
#include "ops/transformer/transformer_step.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

constexpr int tile_rows = registers == 32 ? 8 : 4;
constexpr std::int64_t tile_columns = 2 * lanes;

// to = (to +) leaky(x W + b) for `rows` rows and tile_columns of a panel. Not inlined: there, compilers run out of
// registers.
template <int rows>
[[gnu::noinline]] void linear_tile(float* to, std::int64_t to_row, const float* x, std::int64_t x_row,
                                   const float* weight, const float* bias, std::int64_t inputs, float slope,
                                   bool add) noexcept {
  FloatVector sums[rows][2];
  for (auto& row : sums) {
    for (int v = 0; v < 2; ++v) row[v] = bias == nullptr ? FloatVector{} : load<FloatVector>(bias + v * lanes);
  }
  for (std::int64_t k = 0; k < inputs; ++k) {
    const float* right = weight + k * panel;
    __builtin_prefetch(right + 32 * panel);
    const FloatVector first = load<FloatVector>(right);
    const FloatVector second = load<FloatVector>(right + lanes);
    for (int r = 0; r < rows; ++r) {
      const FloatVector left = splat(x[r * x_row + k]);
      sums[r][0] += left * first;
      sums[r][1] += left * second;
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < 2; ++v) {
      float* out = to + r * to_row + v * lanes;
      FloatVector y = sums[r][v];
      y = select(y > 0.0f, y, y * slope);
      store(out, add ? load<FloatVector>(out) + y : y);
    }
  }
}

// Tiles of tile_rows rows, and of fewer what is left.
inline void linear(float* to, std::int64_t to_row, const float* x, std::int64_t x_row, std::int64_t rows,
                   const StepLinear& layer, float slope, bool add) noexcept {
  for (std::int64_t column = 0; column < layer.outputs; column += tile_columns) {
    const float* weight = layer.weight + column / panel * panel * layer.inputs + column % panel;
    const float* bias = layer.bias == nullptr ? nullptr : layer.bias + column;
    std::int64_t r = 0;
    const auto tiles = [&]<int count>(std::integral_constant<int, count>) {
      for (; r + count <= rows; r += count) {
        linear_tile<count>(to + r * to_row + column, to_row, x + r * x_row, x_row, weight, bias, layer.inputs, slope,
                           add);
      }
    };
    tiles(std::integral_constant<int, tile_rows>{});
    tiles(std::integral_constant<int, 4>{});
    tiles(std::integral_constant<int, 2>{});
    tiles(std::integral_constant<int, 1>{});
  }
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
