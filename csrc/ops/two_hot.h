// CPU kernels of the two-hot operations over rows of logits: loss, gradient and readout.
#pragma once

#include <cstdint>

namespace twohot::ops {

enum class Float : std::uint8_t { float32, bfloat16, float16 };

// Rows of logits, C-contiguous [rows, bins] of `dtype`. Row r belongs to target r % targets, so that a target which an
// ensemble shares is stored once.
struct Rows {
  const void* logits;
  Float dtype;
  std::int64_t rows;
  std::int64_t bins;
  std::int64_t targets;
};

// What a forward pass writes for each row; null where it is not wanted.
struct Forward {
  // [targets] place of the target among the bins, in 0 .. bins - 1 (NaN gives a NaN loss); null without a loss.
  const float* position;
  // [targets] whether a row counts; null: all do. A row that does not gets zeros and is not read.
  const std::uint8_t* mask;
  // [bins] numbers whose expectation is the readout; null without one.
  const float* values;
  // Whether values[k] == -values[bins - 1 - k]: then mirrored bins are subtracted before they are summed, and the
  // readout of a symmetric distribution is exactly 0.
  bool antisymmetric;
  float* loss;     // [rows] -sum_k label_k log softmax(logits)_k
  float* maximum;  // [rows] largest logit
  float* log_sum;  // [rows] log sum_k exp(logit_k - maximum)
  float* readout;  // [rows] sum_k softmax(logits)_k values_k
};

// Accumulates in float32; a row is read once. Writes nothing but the outputs, allocates nothing but one row of scratch
// for each thread, and calls no other thread when `threads` is 1 or the work is small. Thread-safe.
// Cost: O(rows * bins). Preconditions, which the binding checks: 2 <= bins <= 4096 and rows % targets == 0.
void two_hot_forward(const Rows& rows, const Forward& out, int threads);

// What a backward pass reads beside the logits: positions and mask as above, maximum and log_sum of the forward pass.
struct Backward {
  const float* position;
  const std::uint8_t* mask;
  const float* maximum;
  const float* log_sum;
  const float* gradient;  // [rows] of the loss
  void* out;              // [rows, bins] of the dtype of the logits
};

// out = gradient[r] (softmax(logits) - label). A row that does not count, or whose gradient is 0, gets zeros and is not
// read. Otherwise as two_hot_forward.
void two_hot_backward(const Rows& rows, const Backward& pass, int threads);

// Which of the compiled forms this processor runs: "avx512", "avx2" or "portable". The environment variable
// TWOHOT_CPU_CAPABILITY picks a lesser one; it is read once.
const char* capability() noexcept;

}  // namespace twohot::ops
