// One step of the networks that act (python/twohot/nets/packed.py) on the CPU: a whole Transformer, an MLP, a policy of
// both.
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

// Numbers [rows, size].
struct StepNumbers {
  const float* data;
  std::int64_t size;
};

// What stands side by side in a row of a timestep encoder's input: `columns` numbers, the last of which may be the
// symlog of the previous reward, and the `actions` numbers of the previous action, 0 where time is.
struct StepInputs {
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t actions;
  std::span<const StepNumbers> observation;
  const float* reward;  // [rows], or null
  // Of the columns, min(max((x - mean) / deviation, -bound), bound); null leaves them.
  const float* mean;
  const float* deviation;
  const float* bound;
  const std::int64_t* choice;  // [rows] 0 .. actions - 1, the number that is 1; or null and
  const float* action;         // [rows, actions]
  const std::int64_t* time;    // [rows]
};

// output [rows, columns + actions]. Precondition, which the binding checks: the sizes add up.
void step_inputs(const StepInputs& inputs, float* output) noexcept;

// A timestep encoder, a Transformer and an actor, one after the other for each block of environments.
struct PolicyStep {
  StepInputs inputs;
  MlpStep encoder;         // input and output are not read, here and in the others
  const float* positions;  // [times, width], or [rows, width] where times is 0: added to embeddings; null: nothing is
  std::int64_t times;      // more than any time
  TransformerStep transformer;
  MlpStep actor;
  float* h;  // [rows, width], or null
  float* x;  // [rows, outputs of the actor], or null
  // Where outputs are logits of a choice: their probabilities are clipped to floor and ceiling, and an action is drawn
  // by a uniform number in [0, 1), or is the most probable where there is none.
  float floor;
  float ceiling;
  const float* uniform;  // [rows]
  std::int64_t* action;  // [rows], or null; then x is null
};

// As transformer_step() and mlp_step(), whose preconditions hold for each; the encoder's outputs are `width`, which the
// actor takes.
void policy_step(const PolicyStep& step, std::span<const StepLinear> encoder, std::span<const StepLayer> layers,
                 std::span<const StepLinear> actor, int threads);

}  // namespace twohot::ops
