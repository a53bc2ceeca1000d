// A layer of a Transformer in training (python/twohot/nets/transformer.py) on the CPU: what comes before its attention
// and what comes after it, forward and backward.
#pragma once

#include <cstdint>

#include "ops/simd/float.h"

namespace twohot::ops {

// What `width` and `hidden` are multiples of.
constexpr std::int64_t layer_width_step = 32;

// norm(x) weight + bias.
struct LayerNorm {
  const float* weight;
  const float* bias;
};

// A weight [outputs, inputs] in the two orders that products read (pack_weight()), and its bias [outputs].
struct LayerLinear {
  const float* forward;
  const float* backward;
  const float* bias;
};

// Shared by both directions. Numbers of `dtype`, float32 or bfloat16, are what products read and write; the stream
// between the layers, sums and parameters are float32. Arrays are C-contiguous.
struct LayerShape {
  std::int64_t rows;
  std::int64_t width;
  std::int64_t hidden;  // outputs of the first linear layer after a norm
  Float dtype;
  float epsilon;
};

// output [rows, hidden] of dtype = linear(norm(x)) for x [rows, width].
struct BeforeAttention {
  LayerShape shape;
  const float* x;
  LayerNorm norm;
  LayerLinear linear;
  void* output;
};

// middle = x + attended_norm(out(attended)); output = middle + dropout(down(norm(leaky(up(norm(middle)))))).
struct AfterAttention {
  LayerShape shape;
  const float* x;        // [rows, width]
  const void* attended;  // [rows, width] of dtype
  LayerLinear out;
  LayerNorm attended_norm;
  LayerNorm feed_forward_norm;
  LayerLinear up;
  LayerNorm hidden_norm;
  LayerLinear down;
  float slope;  // of the leaky ReLU below 0
  // Dropout leaves out what a hash of the seed and its index puts below `dropped` / 2^32, and scales what it keeps.
  std::uint64_t seed;
  std::uint32_t dropped;
  float scale;
  void* projected;  // [rows, width] of dtype, out(attended): kept for the way back, as are the next two
  float* middle;    // [rows, width]
  void* activated;  // [rows, hidden] of dtype, leaky(up(...))
  float* output;    // [rows, width]
};

// Gradients of a norm's parameters.
struct LayerNormGradient {
  float* weight;
  float* bias;
};

struct BeforeAttentionGradient {
  const void* grad_output;  // [rows, hidden] of dtype
  float* x;                 // [rows, width]: the gradient is added to what is there
  float* linear;            // [hidden, width]
  LayerNormGradient norm;
};

// Gradients of everything that AfterAttention reads; that of x is `middle`.
struct AfterAttentionGradient {
  const float* grad_output;  // [rows, width]
  float* middle;             // [rows, width]
  void* attended;            // [rows, width] of dtype
  float* out;                // [width, width]
  float* out_bias;
  float* up;  // [hidden, width]
  float* up_bias;
  float* down;  // [width, hidden]
  float* down_bias;
  LayerNormGradient attended_norm;
  LayerNormGradient feed_forward_norm;
  LayerNormGradient hidden_norm;
};

// All take blocks of rows through everything while they are in the cache of a core, give the same bits for any number
// of threads, write no input, and are thread-safe on different memory. They throw std::bad_alloc before anything is
// written. Preconditions, which the binding checks: width and hidden are multiples of layer_width_step.

// `packed` [outputs * inputs] floats hold a weight [outputs, inputs] in an order and form that depend on the processor:
// as LayerLinear::forward, or `backward`.
void pack_weight(const float* weight, std::int64_t outputs, std::int64_t inputs, bool backward, Float dtype,
                 float* packed, int threads);

void before_attention(const BeforeAttention& layer, int threads);
void after_attention(const AfterAttention& layer, int threads);
void before_attention_backward(const BeforeAttention& layer, const BeforeAttentionGradient& gradient, int threads);
void after_attention_backward(const AfterAttention& layer, const AfterAttentionGradient& gradient, int threads);

// to = dropout(from) for `count` numbers, as in AfterAttention; its own derivative.
void dropout(float* to, const float* from, std::int64_t count, std::uint64_t seed, std::uint32_t dropped, float scale,
             int threads);

}  // namespace twohot::ops
