// The loops of transformer_step.h, compiled once for each instruction set: include after defining TWOHOT_CAPABILITY.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "ops/attention/attention_kernels.h"
#include "ops/simd/capability.h"
#include "ops/simd/vector_math.h"
#include "ops/transformer/linear_inl.h"
#include "ops/transformer/transformer_step_kernels.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

// to = (to +) norm(x) for a row of `size` numbers.
inline void normalise(float* to, const float* x, std::int64_t size, const StepNorm& norm, float epsilon,
                      bool add) noexcept {
  FloatVector total{};
  for (std::int64_t i = 0; i < size; i += lanes) total += load<FloatVector>(x + i);
  const float mean = sum(total) / static_cast<float>(size);
  FloatVector squares{};
  for (std::int64_t i = 0; i < size; i += lanes) {
    const FloatVector centred = load<FloatVector>(x + i) - mean;
    squares += centred * centred;
  }
  const float factor = 1 / std::sqrt(sum(squares) / static_cast<float>(size) + epsilon);
  for (std::int64_t i = 0; i < size; i += lanes) {
    const FloatVector y = (load<FloatVector>(x + i) - mean) * factor * load<FloatVector>(norm.weight + i) +
                          load<FloatVector>(norm.bias + i);
    store(to + i, add ? load<FloatVector>(to + i) + y : y);
  }
}

// The part of a ring that belongs to environments from e on.
inline Ring ring_from(const Ring& ring, std::int64_t e, std::int64_t environments) noexcept {
  const std::int64_t bytes = e * ring.heads * ring.rows * ring.size * bytes_of(ring.dtype);
  Ring part = ring;
  part.keys = static_cast<char*>(ring.keys) + bytes;
  part.values = static_cast<char*>(ring.values) + bytes;
  part.environments = environments;
  return part;
}

inline void step_transformer(const TransformerStep& step, std::span<const StepLayer> layers, std::int64_t begin,
                             std::int64_t end, float* scratch) noexcept {
  const AttentionKernels& attention = compiled_kernels<AttentionKernels, Capability::TWOHOT_CAPABILITY>();
  const std::int64_t width = step.width;
  const std::int64_t rows = end - begin;
  const std::int64_t x_row = round_up(width, panel);
  const std::int64_t qkv_row = round_up(3 * width, panel);
  const std::int64_t hidden_row = round_up(step.feed_forward, panel);
  float* const x = take(scratch, max_step_rows * x_row);
  float* const normed = take(scratch, max_step_rows * x_row);
  float* const qkv = take(scratch, max_step_rows * qkv_row);
  float* const attended = take(scratch, max_step_rows * x_row);
  float* const hidden = take(scratch, max_step_rows * hidden_row);
  const auto norm_rows = [&](float* to, const float* from, const StepNorm& norm, bool add) {
    for (std::int64_t r = 0; r < rows; ++r) {
      normalise(to + r * x_row, from + r * x_row, width, norm, step.epsilon, add);
    }
  };
  for (std::int64_t r = 0; r < rows; ++r) std::copy_n(step.input + (begin + r) * width, width, x + r * x_row);
  for (const StepLayer& layer : layers) {
    const Ring ring = ring_from(layer.ring, begin, rows);
    norm_rows(normed, x, layer.before_attention, false);
    linear(qkv, qkv_row, normed, x_row, rows, layer.qkv, 1, false);
    const std::int64_t angle = begin * (ring.size / 2);
    const DecodeStep one{qkv,
                         qkv + width,
                         qkv + 2 * width,
                         Float::float32,
                         qkv_row,
                         qkv_row,
                         qkv_row,
                         1,
                         step.cache_position + begin,
                         step.cosine == nullptr ? nullptr : step.cosine + angle,
                         step.sine == nullptr ? nullptr : step.sine + angle,
                         1 / std::sqrt(static_cast<float>(ring.size)),
                         0,
                         attended};
    attention.decode(ring, one, 0, rows * ring.heads);
    linear(normed, x_row, attended, width, rows, layer.out, 1, false);
    norm_rows(x, normed, layer.attended, true);
    norm_rows(normed, x, layer.before_feed_forward, false);
    linear(hidden, hidden_row, normed, x_row, rows, layer.up, step.slope, false);
    for (std::int64_t r = 0; r < rows; ++r) {
      float* row = hidden + r * hidden_row;
      normalise(row, row, step.feed_forward, layer.hidden, step.epsilon, false);
    }
    linear(x, x_row, hidden, hidden_row, rows, layer.down, 1, true);
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    normalise(step.output + (begin + r) * width, x + r * x_row, width, step.norm, step.epsilon, false);
  }
}

inline void step_mlp(const MlpStep& step, std::span<const StepLinear> layers, std::int64_t begin, std::int64_t end,
                     float* scratch) noexcept {
  const std::int64_t rows = end - begin;
  const std::int64_t row = widest_row(layers);
  const std::int64_t inputs = layers.front().inputs;
  const std::int64_t outputs = layers.back().outputs;
  float* from = take(scratch, max_step_rows * row);
  float* to = take(scratch, max_step_rows * row);
  for (std::int64_t r = 0; r < rows; ++r) std::copy_n(step.input + (begin + r) * inputs, inputs, from + r * row);
  for (const StepLinear& layer : layers) {
    linear(to, row, from, row, rows, layer, &layer == &layers.back() ? 1 : step.slope, false);
    std::swap(from, to);
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    float* const output = step.output + (begin + r) * outputs;
    if (step.norm == nullptr) {
      std::copy_n(from + r * row, outputs, output);
    } else {
      normalise(output, from + r * row, outputs, *step.norm, step.epsilon, false);
    }
  }
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
