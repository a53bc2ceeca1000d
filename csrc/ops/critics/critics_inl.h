// The loops of critics.h, compiled once for each instruction set: include after defining TWOHOT_CAPABILITY, the
// namespace that this copy lives in.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/critics/critics_kernels.h"
#include "ops/critics/critics_matmul_inl.h"
#include "ops/simd/capability.h"
#include "ops/simd/scratch.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

inline FloatVector leaky(FloatVector x, float slope) noexcept { return select(x > 0.0f, x, slope * x); }

inline float number(const void* from, Float dtype, std::int64_t i) noexcept {
  return std::bit_cast<float>(bits_of(from, dtype, i));
}

// A tile of the rows of one critic on its way through the layers.
template <bool pairs>
class Tile {
 public:
  Tile(const CriticPass& pass, std::int64_t critic, bool training, void* scratch) noexcept
      : pass_(pass),
        layout_(pass.layout),
        critic_(critic),
        packed_(pass.packed + critic * layout_.packed(training)),
        training_(training),
        words_(static_cast<std::uint32_t*>(scratch)) {}

  void take(std::int64_t begin, std::int64_t count) noexcept {
    begin_ = begin;
    count_ = count;
    filled_ = round_up(count, product_rows<pairs>);
  }

  void forward() const noexcept {
    if (pass_.ensemble.dtype == Float::float32) {
      first<float>();
    } else {
      first<std::uint16_t>();
    }
    for (std::int64_t layer = 0; layer < layout_.depth; ++layer) {
      const Panels<pairs> to = features(layer + 1);
      const float* bias = floats(layout_.bias(layer));
      const float slope = pass_.ensemble.slope;
      product(features(layer), layout_.width, packed_ + layout_.forward(layer), layout_.width, filled_,
              [&](std::int64_t panel, std::int64_t r, const FloatVector(&sums)[product_rows<pairs>][2]) {
                const Pair add = load_pair(bias + panel * panel_columns);
                const auto out = [&](std::int64_t i) {
                  return Pair{leaky(sums[i][0] + add.first, slope), leaky(sums[i][1] + add.second, slope)};
                };
                for (std::int64_t i = 0; i < product_rows<pairs>; i += 2) to.put(panel, r + i, out(i), out(i + 1));
              });
    }
    const float* bias = floats(layout_.bias(layout_.depth));
    product(features(layout_.depth), layout_.width, packed_ + layout_.forward(layout_.depth), layout_.bins, filled_,
            [&](std::int64_t panel, std::int64_t r, const FloatVector(&sums)[product_rows<pairs>][2]) {
              const Pair add = load_pair(bias + panel * panel_columns);
              for (std::int64_t i = 0; i < product_rows<pairs>; ++i) {
                store_pair(logits() + (r + i) * bins() + panel * panel_columns, Pair{sums[i][0], sums[i][1]} + add,
                           bins() - panel * panel_columns);
              }
            });
  }

  void decode(const TwoHotKernels& two_hot) const noexcept {
    if (pass_.values == nullptr) {
      std::copy_n(logits(), count_, pass_.readout + offset());
    } else {
      two_hot.expectation(tile_logits(), *pass_.values, {nullptr, pass_.readout + offset(), nullptr}, 0, count_);
    }
  }

  // Fills losses and values, and adds to a slice's sums and to the state's gradients.
  void loss_and_backward(const TwoHotKernels& two_hot, float* sums) const noexcept {
    if (pass_.values == nullptr) {
      squared_error();
    } else {
      cross_entropy(two_hot);
    }
    const std::int64_t depth = layout_.depth;
    Panels<pairs> gradient = logits_gradient(sums + layout_.bias_sums(depth));
    std::int64_t columns = layout_.bins;
    for (std::int64_t layer = depth; layer > 0; --layer) {
      const Panels<pairs> x = features(layer);
      add_outer_product(sums + layout_.weight_sums(layer), x, layout_.width, gradient, columns, filled_);
      const Panels<pairs> to = gradients(layer % 2);
      float* const grad_bias = sums + layout_.bias_sums(layer - 1);
      product(gradient, columns, packed_ + layout_.backward(layer), layout_.width, filled_,
              [&](std::int64_t panel, std::int64_t r, const FloatVector(&products)[product_rows<pairs>][2]) {
                Pair total = load_pair(grad_bias + panel * panel_columns);
                for (std::int64_t i = 0; i < product_rows<pairs>; i += 2) {
                  const Pair above = through(x, panel, r + i, products[i]);
                  const Pair below = through(x, panel, r + i + 1, products[i + 1]);
                  to.put(panel, r + i, above, below);
                  total = total + (above + below);
                }
                store_pair(grad_bias + panel * panel_columns, total);
              });
      gradient = to;
      columns = layout_.width;
    }
    const Panels<pairs> x = features(0);
    add_outer_product(sums + layout_.weight_sums(0), x, layout_.width, gradient, columns, filled_);
    product(gradient, columns, packed_ + layout_.backward(0), layout_.width, filled_,
            [&](std::int64_t panel, std::int64_t r, const FloatVector(&products)[product_rows<pairs>][2]) {
              const std::int64_t count = std::min(product_rows<pairs>, count_ - r);
              Pair g[product_rows<pairs>];
              for (std::int64_t i = 0; i < count; ++i) g[i] = through(x, panel, r + i, products[i]);
              first_backward(panel, begin_ + r, count, g, sums);
            });
  }

 private:
  const float* floats(std::int64_t offset) const noexcept { return reinterpret_cast<const float*>(packed_ + offset); }
  std::int64_t bins() const noexcept { return pass_.ensemble.bins; }
  std::int64_t offset() const noexcept { return critic_ * pass_.rows.count + begin_; }

  // Memory: logits, their gradient, gradients of two layers where training, then features.
  float* logits() const noexcept { return reinterpret_cast<float*>(words_); }
  Logits tile_logits() const noexcept { return {logits(), Float::float32, count_, bins()}; }
  std::uint32_t* matrix(std::int64_t i) const noexcept {
    return words_ + layout_.rows * (2 * layout_.bins + i * layout_.width);
  }
  Panels<pairs> gradients(std::int64_t i) const noexcept { return {matrix(i), layout_.rows, layout_.width, true}; }
  Panels<pairs> features(std::int64_t layer) const noexcept {
    // Tiles of the transpose are made of rows.
    const bool across = training_ && !in_tiles<pairs>;
    return {matrix(training_ ? 2 + layer : layer % 2), layout_.rows, layout_.width, across};
  }

  // What of a gradient g of features passes their leaky ReLU.
  Pair through(const Panels<pairs>& output, std::int64_t panel, std::int64_t r,
               const FloatVector (&g)[2]) const noexcept {
    return leaky_backward({g[0], g[1]}, output.get(panel, r), pass_.ensemble.slope);
  }

  // Losses and values, and the gradient of the logits in their place.
  void cross_entropy(const TwoHotKernels& two_hot) const noexcept {
    Labels labels = *pass_.labels;
    labels.target += begin_;
    labels.targets = count_;
    if (labels.mask != nullptr) labels.mask += begin_;
    const CrossEntropy wanted{nullptr, pass_.scale, pass_.loss + offset(), pass_.readout + offset(), logits()};
    two_hot.cross_entropy(tile_logits(), *pass_.values, labels, wanted, 0, count_, false);
  }

  void squared_error() const noexcept {
    const Regression& wanted = *pass_.regression;
    for (std::int64_t r = 0; r < count_; ++r) {
      const std::int64_t row = begin_ + r;
      const bool counts = wanted.mask == nullptr || wanted.mask[row] != 0;
      const float value = wanted.factor[row] * logits()[r] + wanted.offset[row];
      const float error = value - wanted.target[row];
      pass_.readout[offset() + r] = counts ? value : 0;
      pass_.loss[offset() + r] = counts ? error * error : 0;
      logits()[r] = counts ? 2 * pass_.scale * error * wanted.factor[row] : 0;
    }
  }

  // The first layer of the rows; those that fill up the last tile are 0.
  template <class Number>
  void first() const noexcept {
    const Ensemble& e = pass_.ensemble;
    const Number* states = static_cast<const Number*>(e.state) + critic_ * e.critic_stride;
    const float* table = e.table + critic_ * e.entries * e.width;
    const Panels<pairs> to = features(0);
    const auto row = [&](std::int64_t r, std::int64_t panel) {
      if (r >= count_) return Pair{};
      const std::int64_t i = panel * panel_columns;
      const std::int64_t row = begin_ + r;
      Pair sum = load_pair(states + pass_.rows.step[row] * e.step_stride + i, e.width - i) +
                 load_pair(table + pass_.rows.entry[row] * e.width + i, e.width - i);
      for (std::int64_t a = 0; a < e.actions; ++a) {
        sum = sum + action(row, a) * load_pair(floats(layout_.action(a) + i));
      }
      return Pair{leaky(sum.first, e.slope), leaky(sum.second, e.slope)};
    };
    for (std::int64_t r = 0; r < filled_; r += 2) {
      for (std::int64_t panel = 0; panel < layout_.width / panel_columns; ++panel) {
        to.put(panel, r, row(r, panel), row(r + 1, panel));
      }
    }
  }

  float action(std::int64_t row, std::int64_t a) const noexcept {
    return number(pass_.rows.action, pass_.ensemble.dtype, row * pass_.ensemble.actions + a);
  }

  // Adds the gradients g of a panel of `count` rows from `row` on to what their sums were made of.
  void first_backward(std::int64_t panel, std::int64_t row, std::int64_t count, const Pair* g,
                      float* sums) const noexcept {
    const Ensemble& e = pass_.ensemble;
    const EnsembleGradients& to = *pass_.gradients;
    const std::int64_t column = panel * panel_columns;
    float* const states = to.state + critic_ * to.critic_stride + column;
    float* const table = sums + layout_.table_sums() + column;
    const std::int64_t* step = pass_.rows.step + row;
    for (std::int64_t i = 0; i < count;) {  // rows of one step together
      float* const state = states + step[i] * to.step_stride;
      Pair total = load_pair(state, e.width - column);
      const std::int64_t first = i;
      for (; i < count && step[i] == step[first]; ++i) total = total + g[i];
      store_pair(state, total, e.width - column);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      float* const entry = table + pass_.rows.entry[row + i] * layout_.width;
      store_pair(entry, load_pair(entry) + g[i]);
    }
    for (std::int64_t a = 0; a < e.actions; ++a) {
      float* const weight = sums + layout_.action_sums() + a * layout_.width + column;
      Pair total = load_pair(weight);
      for (std::int64_t i = 0; i < count; ++i) total = total + action(row + i, a) * g[i];
      store_pair(weight, total);
    }
  }

  // The gradient of the logits as an operand, 0 beyond the rows; its sum over rows is added to grad_bias.
  Panels<pairs> logits_gradient(float* grad_bias) const noexcept {
    const Panels<pairs> to(words_ + layout_.rows * layout_.bins, layout_.rows, layout_.bins, true);
    for (std::int64_t panel = 0; panel < layout_.bins / panel_columns; ++panel) {
      const std::int64_t column = panel * panel_columns;
      const auto row = [&](std::int64_t r) {
        return r < count_ ? load_pair(logits() + r * bins() + column, bins() - column) : Pair{};
      };
      Pair total = load_pair(grad_bias + column);
      for (std::int64_t r = 0; r < filled_; r += 2) {
        const Pair above = row(r);
        const Pair below = row(r + 1);
        to.put(panel, r, above, below);
        total = total + (above + below);
      }
      store_pair(grad_bias + column, total);
    }
    return to;
  }

  const CriticPass& pass_;
  const CriticLayout& layout_;
  const std::int64_t critic_;
  const std::uint32_t* const packed_;
  const bool training_;
  std::uint32_t* const words_;
  std::int64_t begin_ = 0;
  std::int64_t count_ = 0;
  std::int64_t filled_ = 0;  // count_, filled up to whole tiles
};

// Invokes fn() with whether products are of pairs.
template <class Fn>
inline void with_pairs(const CriticLayout& layout, const Fn& fn) noexcept {
  if constexpr (multiplies_bfloat16) {
    if (layout.pairs) {
      const TileScope tiles;
      return fn.template operator()<true>();
    }
  }
  fn.template operator()<false>();
}

inline void infer_rows(const CriticPass& pass, std::int64_t critic, std::int64_t begin, std::int64_t end,
                       void* scratch) noexcept {
  const TwoHotKernels& two_hot = compiled_kernels<TwoHotKernels, Capability::TWOHOT_CAPABILITY>();
  with_pairs(pass.layout, [&]<bool pairs>() {
    Tile<pairs> tile(pass, critic, false, scratch);
    for (std::int64_t row = begin; row < end; row += pass.layout.rows) {
      tile.take(row, std::min(pass.layout.rows, end - row));
      tile.forward();
      tile.decode(two_hot);
    }
  });
}

inline void train_rows(const CriticPass& pass, std::int64_t critic, std::int64_t begin, std::int64_t end, float* sums,
                       void* scratch) noexcept {
  const TwoHotKernels& two_hot = compiled_kernels<TwoHotKernels, Capability::TWOHOT_CAPABILITY>();
  with_pairs(pass.layout, [&]<bool pairs>() {
    Tile<pairs> tile(pass, critic, true, scratch);
    for (std::int64_t row = begin; row < end; row += pass.layout.rows) {
      tile.take(row, std::min(pass.layout.rows, end - row));
      tile.forward();
      tile.loss_and_backward(two_hot, sums);
    }
  });
}

inline void pack_critic(const Ensemble& e, const CriticLayout& layout, std::int64_t critic, bool with_backward,
                        std::uint32_t* to) noexcept {
  float* const floats = reinterpret_cast<float*>(to);
  std::fill_n(floats, layout.forward(0), 0.0f);
  for (std::int64_t layer = 0; layer < layout.depth; ++layer) {
    std::copy_n(e.biases + (layer * e.critics + critic) * e.width, e.width, floats + layout.bias(layer));
  }
  std::copy_n(e.head_bias + critic * e.bins, e.bins, floats + layout.bias(layout.depth));
  for (std::int64_t a = 0; a < e.actions; ++a) {
    for (std::int64_t i = 0; i < e.width; ++i) {
      floats[layout.action(a) + i] = number(e.action_weight, e.dtype, (critic * e.actions + a) * e.width + i);
    }
  }
  with_pairs(layout, [&]<bool pairs>() {
    for (std::int64_t layer = 0; layer <= layout.depth; ++layer) {
      const bool last = layer == layout.depth;
      const std::int64_t outputs = last ? e.bins : e.width;
      const std::int64_t offset = last ? critic * e.width * e.bins : (layer * e.critics + critic) * e.width * e.width;
      const void* from = static_cast<const char*>(last ? e.head : e.weights) + offset * bytes_of(e.dtype);
      pack_right<pairs>(to + layout.forward(layer), from, e.dtype, e.width, outputs, outputs, 1);
      if (with_backward) pack_right<pairs>(to + layout.backward(layer), from, e.dtype, outputs, 1, e.width, outputs);
    }
  });
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
