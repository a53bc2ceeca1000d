// Causal attention over whole windows on the CPU, and its gradients.
#pragma once

#include <cstdint>

#include "ops/attention/attention_decode.h"
#include "ops/simd/float.h"

namespace twohot::ops {

// [batch, steps, heads, size] whose last dimension is contiguous; strides in elements.
struct Heads {
  void* data;
  std::int64_t batch_stride;
  std::int64_t step_stride;
  std::int64_t head_stride;
};

struct AttentionWindow {
  Float dtype;  // float32 or bfloat16
  std::int64_t batch;
  std::int64_t steps;
  std::int64_t heads;  // of keys and values; queries have groups * heads, query head i reads key head i / groups
  std::int64_t groups;
  std::int64_t size;
  Heads query;
  Heads key;
  Heads value;
  const std::int64_t* lengths;  // [batch] real steps, at most `steps`, or null
  const float* cosine;          // [steps, size / 2] of the rotation of queries and keys, or null
  const float* sine;
  std::int64_t window;  // steps that each step sees, itself included; 0: all before it
  std::int64_t sinks;   // first steps that all later ones see
  float scale;
  float softcap;  // 0: none
  Heads output;
  float* lse;  // [batch, groups * heads, steps] base-2 logarithm of each softmax's denominator
};

// What backward() reads besides the inputs and results of forward(), and what it writes.
struct AttentionGradients {
  Heads grad_output;
  Heads query;
  Heads key;
  Heads value;
};

// Writes output and lse; steps from a length on give zeros and are not read. Nothing quadratic is stored: each thread
// has scratch of O(steps * size). bfloat16 is multiplied as such where the processor can, accumulated in float32, and
// the weights, exact to 1.1e-4, are rounded to it. The same bits for any number of threads. Cost: O(batch * heads *
// groups * steps * seen
// * size) with the steps seen by each step. Preconditions, which the binding checks: as decode_attention().
void forward(const AttentionWindow& window, int threads);

// Writes the gradients of query, key and value. As forward().
void backward(const AttentionWindow& window, const AttentionGradients& gradients, int threads);

}  // namespace twohot::ops
