// One step of the networks that act (python/twohot/nets/packed.py) on the CPU: a whole Transformer, an MLP.
#pragma once

#include <cstdint>
#include <span>

#include "ops/attention/attention_decode.h"

namespace twohot::ops {

// Outputs of a linear layer that stand side by side in memory; rows are filled up to a multiple of it.
constexpr std::int64_t panel = 32;

// W x + b. `weight` is [ceil(outputs / panel), inputs, panel], `bias` [outputs] filled up to panels, or null.
struct StepLinear {
  const float* weight;
  const float* bias;
  std::int64_t inputs;
  std::int64_t outputs;
};

// Layer normalisation, times `weight`, plus `bias`.
struct StepNorm {
  const float* weight;
  const float* bias;
};

// x + attended(out(attention(qkv(before_attention(x))))), then x + down(hidden(leaky(up(before_feed_forward(x))))).
// `qkv` gives queries, keys and values, each [heads, size].
struct StepLayer {
  StepNorm before_attention;
  StepLinear qkv;
  StepLinear out;
  StepNorm attended;
  StepNorm before_feed_forward;
  StepLinear up;
  StepNorm hidden;
  StepLinear down;
  Ring ring;
};

struct TransformerStep {
  std::int64_t environments;
  std::int64_t width;
  std::int64_t feed_forward;
  const float* input;  // [environments, width]
  const std::int64_t* cache_position;
  const float* cosine;  // as in DecodeStep
  const float* sine;
  StepNorm norm;  // after the last layer
  float epsilon;  // of every norm
  float slope;    // of the leaky ReLU below 0
  float* output;  // [environments, width]
};

// Appends to each layer's ring and writes the output. Threads share the environments and do not wait for each other
// between layers. The same bits for any number of threads. Throws std::bad_alloc before anything is written. Cost:
// weights are read once for some environments; a ring as in decode_attention(). Preconditions, which the binding
// checks: rings as in decode_attention(), width = heads * size of each ring, feed_forward a multiple of head_size_step.
void transformer_step(const TransformerStep& step, std::span<const StepLayer> layers, int threads);

// Linear layers with leaky ReLU between them and, where there is one, a norm after the last.
struct MlpStep {
  std::int64_t rows;
  const float* input;  // [rows, inputs of the first layer]
  float slope;         // of the leaky ReLU below 0
  const StepNorm* norm;
  float epsilon;
  float* output;  // [rows, outputs of the last layer]
};

// As transformer_step(). Preconditions, which the binding checks: at least one layer, each takes what the one before
// gives, and with a norm the last outputs are a multiple of head_size_step.
void mlp_step(const MlpStep& step, std::span<const StepLinear> layers, int threads);

}  // namespace twohot::ops
