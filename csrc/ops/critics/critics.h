// CPU kernels of an ensemble of critics over (step, discount, action), which classify values or are one number: rows go
// through the first layer, the hidden ones, the last one, the loss and back, tile by tile, while they are in the
// cache of a core.
#pragma once

#include <cstdint>

#include "ops/simd/float.h"
#include "ops/two_hot/two_hot.h"

namespace twohot::ops {

// `depth` hidden layers of `width` units with leaky ReLU stand between the first layer and the `bins` logits,
// or the one output of critics that are no classifiers. The first
// layer is a sum of what a row's step, its entry in a table and its action contribute.
struct Ensemble {
  std::int64_t critics;
  std::int64_t steps;
  std::int64_t entries;
  std::int64_t actions;  // numbers of an action; 0 where the table holds what actions contribute
  std::int64_t depth;
  std::int64_t width;
  std::int64_t bins;
  float slope;        // of the leaky ReLU below 0
  Float dtype;        // float32 or bfloat16: of the state, of actions and of weights
  const void* state;  // [critics, steps, width], of these numbers from one to the next
  std::int64_t critic_stride;
  std::int64_t step_stride;
  const float* table;         // [critics, entries, width]
  const void* action_weight;  // [critics, actions, width]
  const void* weights;        // [depth, critics, width, width], a row for each input
  const float* biases;        // [depth, critics, width]
  const void* head;           // [critics, width, bins]
  const float* head_bias;     // [critics, bins]
};

// The rows of every critic.
struct EnsembleRows {
  std::int64_t count;
  const std::int64_t* step;   // [count]
  const std::int64_t* entry;  // [count]
  const void* action;         // [count, actions] of the ensemble's dtype
};

// Where gradients go, of the shapes of an Ensemble.
struct EnsembleGradients {
  float* state;  // is added to, at the steps of the rows
  std::int64_t critic_stride;
  std::int64_t step_stride;
  float* table;
  float* action_weight;
  float* weights;
  float* biases;
  float* head;
  float* head_bias;
};

// What an output x of each row is to be: factor x + offset is to be the target.
struct Regression {
  const float* target;       // [rows]
  const float* factor;       // [rows]
  const float* offset;       // [rows]
  const std::uint8_t* mask;  // [rows] whether a row counts, or null
};

// All sum in float32. With bfloat16 products are of bfloat16 where the processor has them. The same bits for any number
// of threads. Throw std::bad_alloc before anything is written. Preconditions, which the binding checks: those of
// two_hot.h for classifiers, `bins` 1 for others, 1 <= width; indices are of steps and entries. Cost: O(critics * rows
// * width * (depth * width + bins)); memory of some tiles for each thread, and of some copies of weights.

// labels.targets is the number of rows, its offset 0. `loss` and `readout` are [critics, rows]; gradients are those of
// the sum of losses, times `scale`. Fastest when rows of the same step are contiguous.
void critics_cross_entropy(const Ensemble& ensemble, const EnsembleRows& rows, const Support& support,
                           const Labels& labels, float scale, float* loss, float* readout,
                           const EnsembleGradients& gradients, int threads);

// readout [critics, rows].
void critics_expectation(const Ensemble& ensemble, const EnsembleRows& rows, const Support& support, float* readout,
                         int threads);

// As critics_cross_entropy(), of the loss (factor x + offset - target)^2; `value` [critics, rows] is factor x + offset,
// 0 where a row does not count.
void critics_squared_error(const Ensemble& ensemble, const EnsembleRows& rows, const Regression& regression,
                           float scale, float* loss, float* value, const EnsembleGradients& gradients, int threads);

// output [critics, rows], x.
void critics_output(const Ensemble& ensemble, const EnsembleRows& rows, float* output, int threads);

}  // namespace twohot::ops
