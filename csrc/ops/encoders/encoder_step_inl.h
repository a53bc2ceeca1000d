// The loops of encoder_step.h, compiled once for each instruction set: include after defining TWOHOT_CAPABILITY.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "ops/encoders/encoder_step_kernels.h"
#include "ops/simd/vector_math.h"
#include "ops/transformer/linear_inl.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

// What the first convolution takes of one image, [height, width, channels].
inline void read_image(float* to, const ImagesStep& step, const StepConvolution& first, std::int64_t image) noexcept {
  const std::int64_t places = first.height * first.width;
  const std::uint8_t* from = step.pixels + image * places * step.parts;
  if (step.table == nullptr) {
    for (std::int64_t i = 0; i < places * step.parts; ++i) to[i] = (static_cast<float>(from[i]) - 128) / 128;
    return;
  }
  const std::int64_t channels = first.channels;
  for (std::int64_t place = 0; place < places; ++place, from += step.parts, to += channels) {
    std::fill_n(to, channels, 0.0f);
    for (std::int64_t part = 0; part < step.parts; ++part) {
      const float* row = step.table + (256 * part + from[part]) * channels;
      for (std::int64_t i = 0; i < channels; ++i) to[i] += row[i];
    }
  }
}

// What is seen from one place of the result, [kernel, kernel, channels].
inline void read_window(float* to, const float* x, const StepConvolution& layer, std::int64_t place) noexcept {
  const std::int64_t channels = layer.channels;
  const std::int64_t top = place / layer.columns() * layer.stride - layer.padding;
  const std::int64_t left = place % layer.columns() * layer.stride - layer.padding;
  const std::int64_t before = std::clamp<std::int64_t>(-left, 0, layer.kernel);
  const std::int64_t inside = std::clamp<std::int64_t>(layer.width - left, before, layer.kernel);
  for (std::int64_t y = top; y < top + layer.kernel; ++y) {
    if (y < 0 || y >= layer.height) {
      to = std::fill_n(to, layer.kernel * channels, 0.0f);
      continue;
    }
    to = std::fill_n(to, before * channels, 0.0f);
    to = std::copy_n(x + (y * layer.width + left + before) * channels, (inside - before) * channels, to);
    to = std::fill_n(to, (layer.kernel - inside) * channels, 0.0f);
  }
}

inline void image_step(const ImagesStep& step, std::span<const StepConvolution> layers, std::int64_t image,
                       float* scratch) noexcept {
  const std::int64_t largest = largest_between(layers);
  float* x = take(scratch, largest);
  float* to = take(scratch, largest);
  read_image(x, step, layers.front(), image);
  for (const StepConvolution& layer : layers) {
    const std::int64_t places = layer.rows() * layer.columns();
    const std::int64_t inputs = layer.linear.inputs;
    const std::int64_t outputs = layer.linear.outputs;
    float* const last = &layer == &layers.back() ? step.output + image * places * outputs : to;
    for (std::int64_t place = 0; place < places; place += convolution_rows) {
      const std::int64_t rows = std::min(convolution_rows, places - place);
      for (std::int64_t r = 0; r < rows; ++r) read_window(scratch + r * inputs, x, layer, place + r);
      linear(last + place * outputs, outputs, scratch, inputs, rows, layer.linear, step.slope, false);
    }
    std::swap(x, to);
  }
}

inline FloatVector sigmoid(FloatVector x) noexcept { return 0.5f + 0.5f * tanh(0.5f * x); }

inline void step_tokens(const TokensStep& step, std::span<const std::int64_t> rows, float* scratch) noexcept {
  const std::int64_t hidden = step.hidden.inputs;
  const std::int64_t width = step.input.inputs;
  const std::int64_t gates_row = round_up(step.input.outputs, panel);
  float* const given = take(scratch, max_token_rows * gates_row);
  float* const kept = take(scratch, max_token_rows * gates_row);
  float* const x = take(scratch, max_token_rows * round_up(width, panel));
  float* const h = take(scratch, max_token_rows * round_up(hidden, panel));
  const std::int64_t count = std::ssize(rows);
  std::int64_t lengths[max_token_rows];
  std::int64_t longest = 0;
  for (std::int64_t r = 0; r < count; ++r) {
    const std::int64_t* tokens = step.tokens + rows[r] * step.length;
    lengths[r] = step.length;
    while (lengths[r] > 0 && tokens[lengths[r] - 1] <= 0) --lengths[r];
    longest = std::max(longest, lengths[r]);
  }
  std::fill_n(h, count * hidden, 0.0f);
  for (std::int64_t t = 0; t < longest; ++t) {
    for (std::int64_t r = 0; r < count; ++r) {
      const std::int64_t token =
          std::clamp<std::int64_t>(step.tokens[rows[r] * step.length + t], 0, step.vocabulary - 1);
      std::copy_n(step.embedding + token * width, width, x + r * width);
    }
    linear(given, gates_row, x, width, count, step.input, 1, false);
    linear(kept, gates_row, h, hidden, count, step.hidden, 1, false);
    for (std::int64_t r = 0; r < count; ++r) {
      if (t >= lengths[r]) continue;
      const float* a = given + r * gates_row;
      const float* b = kept + r * gates_row;
      float* state = h + r * hidden;
      for (std::int64_t i = 0; i < hidden; i += lanes) {
        const auto sum_of = [&](std::int64_t gate) {
          return load<FloatVector>(a + gate * hidden + i) + load<FloatVector>(b + gate * hidden + i);
        };
        const FloatVector reset = sigmoid(sum_of(0));
        const FloatVector update = sigmoid(sum_of(1));
        const FloatVector fresh =
            tanh(load<FloatVector>(a + 2 * hidden + i) + reset * load<FloatVector>(b + 2 * hidden + i));
        store(state + i, fresh + update * (load<FloatVector>(state + i) - fresh));
      }
    }
  }
  for (std::int64_t r = 0; r < count; ++r) std::copy_n(h + r * hidden, hidden, step.output + rows[r] * hidden);
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
