// What the dispatcher of critics.h hands to the loops of each instruction set.
#pragma once

#include <cstdint>

#include "ops/critics/critics.h"
#include "ops/two_hot/two_hot_kernels.h"

namespace twohot::ops {

constexpr std::int64_t max_tile_rows = 480;

// Sizes of what the loops work on, in words of 32 bits: a float32, or two bfloat16 where `pairs`. The width and the
// bins of an ensemble are filled up with zeros to whole panels, the columns that products take together.
struct CriticLayout {
  std::int64_t columns;  // of a panel
  std::int64_t width;
  std::int64_t bins;
  std::int64_t depth;
  std::int64_t entries;
  std::int64_t actions;
  std::int64_t rows;  // of a tile
  bool pairs;

  std::int64_t weight_words() const noexcept { return width * width / (pairs ? 2 : 1); }
  std::int64_t head_words() const noexcept { return width * bins / (pairs ? 2 : 1); }
  std::int64_t matrices() const noexcept { return depth * weight_words() + head_words(); }

  // A packed critic: biases and the action's weights in float32, then the matrices as right operands of the forward
  // pass, and their transposes as those of the backward pass. These are the offsets of each.
  std::int64_t bias(std::int64_t layer) const noexcept { return layer * width; }
  std::int64_t action(std::int64_t a) const noexcept { return depth * width + bins + a * width; }
  std::int64_t forward(std::int64_t layer) const noexcept { return action(actions) + layer * weight_words(); }
  std::int64_t backward(std::int64_t layer) const noexcept { return forward(layer) + matrices(); }
  std::int64_t packed(bool with_backward) const noexcept { return forward(0) + (with_backward ? 2 : 1) * matrices(); }

  // What a slice of rows adds to the gradients of a critic, in float32: the matrices (panels of columns, and in these a
  // row for each input), biases, the table and the action's weights.
  std::int64_t weight_sums(std::int64_t layer) const noexcept { return layer * width * width; }
  std::int64_t bias_sums(std::int64_t layer) const noexcept {
    return weight_sums(depth) + width * bins + layer * width;
  }
  std::int64_t table_sums() const noexcept { return bias_sums(depth) + bins; }
  std::int64_t action_sums() const noexcept { return table_sums() + entries * width; }
  std::int64_t sums() const noexcept { return action_sums() + actions * width; }

  // Memory of a thread: features of each layer or of two, gradients of two, logits and their gradient.
  std::int64_t tile(bool with_backward) const noexcept {
    const std::int64_t matrices = with_backward ? depth + 3 : 2;
    return rows * (matrices * width + 2 * bins);
  }
};

// What the threads of a pass share.
struct CriticPass {
  const Ensemble& ensemble;
  const EnsembleRows& rows;
  CriticLayout layout;
  const std::uint32_t* packed;  // [critics, layout.packed()]
  const BinValues* values;      // null for critics that are no classifiers
  float* readout;               // [critics, rows]

  // Only with gradients.
  const Labels* labels = nullptr;          // of classifiers
  const Regression* regression = nullptr;  // of others
  float scale = 0;
  float* loss = nullptr;  // [critics, rows]
  const EnsembleGradients* gradients = nullptr;
};

struct CriticKernels {
  const char* name;
  std::int64_t columns;       // of a panel
  std::int64_t product_rows;  // that products take together; tiles are a multiple of it
  std::int64_t pair_rows;     // the same of products of bfloat16; 0: there are none

  void (*pack)(const Ensemble&, const CriticLayout&, std::int64_t critic, bool with_backward,
               std::uint32_t* to) noexcept;
  // Values of rows begin .. end - 1 of a critic.
  void (*infer)(const CriticPass&, std::int64_t critic, std::int64_t begin, std::int64_t end, void* scratch) noexcept;
  // Their losses, values and gradients; `sums` is a slice's, and the state's gradients are added where they belong.
  void (*train)(const CriticPass&, std::int64_t critic, std::int64_t begin, std::int64_t end, float* sums,
                void* scratch) noexcept;
};

// Those of critics.h by these loops.
void critics_cross_entropy(const CriticKernels& kernels, const Ensemble& ensemble, const EnsembleRows& rows,
                           const Support& support, const Labels& labels, float scale, float* loss, float* readout,
                           const EnsembleGradients& gradients, int threads);
void critics_expectation(const CriticKernels& kernels, const Ensemble& ensemble, const EnsembleRows& rows,
                         const Support& support, float* readout, int threads);
void critics_squared_error(const CriticKernels& kernels, const Ensemble& ensemble, const EnsembleRows& rows,
                           const Regression& regression, float scale, float* loss, float* value,
                           const EnsembleGradients& gradients, int threads);
void critics_output(const CriticKernels& kernels, const Ensemble& ensemble, const EnsembleRows& rows, float* output,
                    int threads);

}  // namespace twohot::ops
