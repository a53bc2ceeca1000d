// CPU kernels between the matrix products of an ensemble of critics: the factored first layer, bias and leaky ReLU of the
// hidden ones, and their derivatives, each in one pass over rows of features.
#pragma once

#include <cstdint>

#include "ops/float.h"

namespace twohot::ops {

// Features of one critic, C-contiguous [rows, width] of `dtype`.
struct Features {
  void* data;
  Float dtype;
  std::int64_t rows;
  std::int64_t width;
};

// Row r is a sum of what its step and its entry in a table contribute.
struct FirstLayer {
  const void* state;  // [steps, width] of state_dtype
  Float state_dtype;
  std::int64_t state_stride;  // numbers from one step to the next
  const float* table;         // [entries, width]
  const std::int64_t* step;   // [rows]
  const std::int64_t* entry;  // [rows]
  bool add;                   // whether the features hold a part of the sum already
};

// Where the gradient of a first layer is added up.
struct FirstLayerGradient {
  const std::int64_t* step;   // [rows]
  const std::int64_t* entry;  // [rows]
  float* state;               // [steps, width]
  std::int64_t state_stride;
  float* table;  // [entries, width]
};

// All compute in float32, allocate nothing, and wake no other thread when `threads` is 1 or the work is small. Results do not
// depend on threads. Thread-safe on different memory. Cost: O(rows * width). The caller vouches for every index.

// features[r] = leaky(state[step[r]] + table[entry[r]] (+ features[r])), where leaky(x) is x above 0, else slope x.
void first_layer(const Features& features, const FirstLayer& layer, float slope, int threads);

// features[r] = leaky(features[r] + bias) for a bias [width].
void hidden_layer(const Features& features, const float* bias, float slope, int threads);

// The derivative of hidden_layer() from its output, of the gradient's shape and dtype: the gradient is changed in place, and
// its sum over rows added to of_bias [width]. 0 <= slope.
void hidden_layer_backward(const Features& gradient, const void* output, float* of_bias, float slope, int threads);

// The derivative of first_layer() likewise; what reaches each step and entry is added to `into`.
void first_layer_backward(const Features& gradient, const void* output, const FirstLayerGradient& into, float slope,
                          int threads);

}  // namespace twohot::ops
