// One step of the networks that act (python/twohot/nets/packed.py) on the CPU: a whole Transformer, an MLP, a policy,
// or several that share their Transformer.
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
// symlog of the previous reward, the `actions` numbers of the previous action, 0 where time is, and features.
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
  // Of the previous action [rows, choices], choices of counts[i] each, which are as many numbers, one of them 1; or
  // null and numbers [rows, actions].
  const std::int64_t* choice;
  std::span<const std::int64_t> counts;
  const float* action;
  const std::int64_t* time;  // [rows]
  std::span<const StepNumbers> features;

  // Numbers of a row.
  std::int64_t size() const noexcept;
};

// output [rows, size()]. Precondition, which the binding checks: the sizes add up.
void step_inputs(const StepInputs& inputs, float* output) noexcept;

// What an actor's outputs mean. choices: logits of each choice in turn. buttons: for each, the logit of 1, where that
// of 0 is 0. numbers: the means of tanh-Gaussians, then what their log standard deviations are made of.
enum class StepActions { choices, buttons, numbers };

// How an action is drawn from an actor's outputs.
struct StepDraw {
  StepActions actions;
  std::span<const std::int64_t> counts;  // of choices, how many actions each has; empty of the others
  // Bounds of a probability before all of a choice are normalised again, or of log standard deviations.
  float low;
  float high;

  // Entries of an action.
  std::int64_t size(std::int64_t outputs) const noexcept;
};

// Rows of a policy that have a timestep encoder, an actor and inputs of their own.
struct PolicyPart {
  StepInputs inputs;
  std::span<const StepLinear> encoder_layers;
  MlpStep encoder;  // input and output are not read, here and of the actor
  std::span<const StepLinear> actor_layers;
  MlpStep actor;
  StepDraw draw;
  // Where the actor's outputs go, [rows, outputs], or actions that are drawn from them, [rows, size of an action] int64
  // or float of numbers; both null: the actor does not run.
  float* x;
  void* action;
  // An action each: uniform numbers in [0, 1), or standard normal ones of numbers. Null takes the most probable choices
  // and tanh of the means.
  const float* random;
};

// Timestep encoders, a Transformer and actors, one after the other for each block of environments.
struct PolicyStep {
  std::span<const PolicyPart> parts;  // whose rows follow each other
  const float* positions;  // [times, width], or [rows, width] where times is 0: added to embeddings; null: nothing is
  std::int64_t times;      // more than any time
  TransformerStep transformer;  // of all rows; input and output are not read
  float* h;                     // [rows, width], or null
};

// As transformer_step() and mlp_step(), whose preconditions hold for each; an encoder's outputs are `width`, which the
// actor takes, and rows of all parts are the Transformer's.
void policy_step(const PolicyStep& step, std::span<const StepLayer> layers, int threads);

}  // namespace twohot::ops
