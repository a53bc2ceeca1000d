// CPU kernels of value classification over rows of logits: cross-entropy with two-hot or HL-Gauss labels, its gradient,
// and the readout of the same logits, in one reading of them.
#pragma once

#include <cstdint>

#include "ops/simd/float.h"

namespace twohot::ops {

constexpr std::int64_t max_bins = 4096;

// f, the space in which bins are even: x, sign(x) log(1 + |x|), or sign(x) (sqrt(|x| + 1) - 1) + 0.001 x.
enum class Transform : std::uint8_t { linear, symlog, signed_sqrt };

// How a distribution over bins is read: f^-1(sum p b), or sum p f^-1(b).
enum class ReadoutKind : std::uint8_t { transformed, raw };

// How a target becomes a distribution over bins: by the centers or by the values of its two bins, or as a Gaussian.
enum class LabelKind : std::uint8_t { two_hot, two_hot_raw, hl_gauss };

// C-contiguous [rows, bins] of `dtype`.
struct Logits {
  const void* data;
  Float dtype;
  std::int64_t rows;
  std::int64_t bins;
};

// Bin centers evenly spaced from `low` to `high` in transformed space. On a support with low == -high mirrored bins are
// subtracted before they are summed, so that a symmetric distribution decodes to exactly 0.
struct Support {
  double low;
  double high;
  Transform transform;
  ReadoutKind readout_kind;
};

// Row r belongs to target (r + offset) % targets, so that a target which an ensemble shares is stored once.
struct Labels {
  const float* target;       // [targets] in units of the return; beyond the ends is the end, NaN gives a NaN loss
  const std::uint8_t* mask;  // [targets] whether a row counts, or null: a row that does not gives zeros, unread
  std::int64_t targets;
  std::int64_t offset;
  LabelKind kind;
  float sigma;  // of HL-Gauss labels, in bin widths, above 0; not read for others
};

// What to write; null where it is not wanted.
struct CrossEntropy {
  const float* weight;  // [rows] factor of each row's loss, or null
  float scale;          // factor of the gradient
  float* loss;          // [rows] -weight_r sum_k label_k log softmax(logits)_k
  float* readout;       // [rows]
  void* gradient;       // [rows, bins] of the logits' dtype: scale weight_r (softmax - label); may be the logits
};

// Accumulates in float32 and reads a row once; a row whose weight is 0 gives a gradient of 0. A bfloat16 gradient below
// 2^-126 may be 0. Allocates nothing but some
// rows of scratch on each thread's stack, and wakes no other thread when `threads` is 1 or the work is small.
// Thread-safe. Cost: O(rows * bins). Preconditions, which the binding checks: 2 <= bins <= max_bins, targets >= 1, low
// < high.
void cross_entropy(const Logits& logits, const Support& support, const Labels& labels, const CrossEntropy& pass,
                   int threads);

// sum_r loss_r in float64, in an order that does not depend on threads. A loss of a masked row is 0 already.
double sum(const float* loss, std::int64_t rows) noexcept;

// The readout alone, and its gradient; null where it is not wanted.
struct Expectation {
  const float* grad_output;  // [rows] gradient of the readout; only with `gradient`
  float* readout;            // [rows]
  void* gradient;            // [rows, bins] of the logits' dtype
};

// As cross_entropy().
void expectation(const Logits& logits, const Support& support, const Expectation& pass, int threads);

}  // namespace twohot::ops
