// What a timestep encoder that acts makes of images, grids and tokens (python/twohot/nets/packed_features.py) on the
// CPU.
#pragma once

#include <cstdint>
#include <span>

#include "ops/transformer/transformer_step.h"

namespace twohot::ops {

// leaky(convolution(x) + b) of x [height, width, channels], with zeros around it. Inputs of `linear` are numbers
// [kernel, kernel, channels]; its outputs are a multiple of `panel`.
struct StepConvolution {
  StepLinear linear;
  std::int64_t height;
  std::int64_t width;
  std::int64_t channels;
  std::int64_t kernel;
  std::int64_t stride;
  std::int64_t padding;

  std::int64_t rows() const noexcept { return (height + 2 * padding - kernel) / stride + 1; }
  std::int64_t columns() const noexcept { return (width + 2 * padding - kernel) / stride + 1; }
};

struct ImagesStep {
  std::int64_t images;
  const std::uint8_t* pixels;  // [images, height, width, parts]
  std::int64_t parts;
  // Rows [parts, 256, channels], whose sum over the parts of a pixel is what the first convolution takes; null: it
  // takes (pixel - 128) / 128, as many as there are parts.
  const float* table;
  float slope;    // of the leaky ReLU below 0
  float* output;  // [images, rows, columns, outputs] of the last convolution
};

// Convolutions one after the other. Threads share the images; the same bits for any number of them, and of images.
// Throws std::bad_alloc before anything is written. Preconditions, which the binding checks: at least one layer, each
// takes what the one before gives, and kernels are no larger than what they see.
void images_step(const ImagesStep& step, std::span<const StepConvolution> layers, int threads);

// The state of a GRU after the last token that is not 0; zeros without any. Gates are in torch's order: reset, update,
// new.
struct TokensStep {
  std::int64_t rows;
  std::int64_t length;
  const std::int64_t* tokens;  // [rows, length]; what is beyond 0 .. vocabulary - 1 counts as the nearest
  std::int64_t vocabulary;
  const float* embedding;  // [vocabulary, inputs of `input`]
  StepLinear input;        // to 3 * hidden numbers, where hidden is a multiple of head_size_step
  StepLinear hidden;
  float* output;  // [rows, hidden]
};

// As images_step(); rows that are alike are computed once.
void tokens_step(const TokensStep& step, int threads);

}  // namespace twohot::ops
