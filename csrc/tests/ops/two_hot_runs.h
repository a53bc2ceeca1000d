// Runs of the two-hot kernels in every form that this machine has, on problems of every kind.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "ops/two_hot/two_hot_kernels.h"
#include "tests/ops/two_hot_truth.h"

namespace twohot::ops::tests {

// Runs of the kernels.

struct Outputs {
  explicit Outputs(const Problem& p, std::int64_t shift = 0)
      : loss(Float::float32, p.rows),
        readout(Float::float32, p.rows),
        gradient(p.logits.dtype(), p.rows * p.bins, shift) {}

  bool intact() const { return loss.intact() && readout.intact() && gradient.intact(); }
  bool same(const Outputs& other) const {
    return loss.same(other.loss) && readout.same(other.readout) && gradient.same(other.gradient);
  }
  bool same(const Outputs& other, std::int64_t begin, std::int64_t end, std::int64_t bins) const {
    return loss.same(other.loss, begin, end) && readout.same(other.readout, begin, end) &&
           gradient.same(other.gradient, begin * bins, end * bins);
  }

  Array loss;
  Array readout;
  Array gradient;
};

inline CrossEntropy cross_entropy_pass(const Problem& p, const Outputs& out) {
  const float* weight = p.weighted ? p.weight.data() : nullptr;
  return {weight, p.scale, out.loss.floats(), out.readout.floats(), out.gradient.data()};
}

inline Expectation expectation_pass(const Problem& p, const Outputs& out) {
  return {p.weight.data(), out.readout.floats(), out.gradient.data()};
}

// Random problems of every kind.

inline const char* name(Transform transform) {
  return transform == Transform::linear ? "linear" : transform == Transform::symlog ? "symlog" : "signed_sqrt";
}

inline const char* name(ReadoutKind kind) { return kind == ReadoutKind::raw ? "raw" : "transformed"; }

inline const char* name(LabelKind kind) {
  return kind == LabelKind::two_hot ? "two_hot" : kind == LabelKind::two_hot_raw ? "two_hot_raw" : "hl_gauss";
}

inline Support support_of(Transform transform, bool symmetric, ReadoutKind readout_kind) {
  if (transform == Transform::linear)
    return {symmetric ? -10.0 : -3.3, symmetric ? 10.0 : 9.1, transform, readout_kind};
  if (transform == Transform::symlog)
    return {symmetric ? -20.0 : -2.2, symmetric ? 20.0 : 11.3, transform, readout_kind};
  return {symmetric ? -25.5 : -3.7, symmetric ? 25.5 : 300.0, transform, readout_kind};
}

inline void fill(Problem& p, RandomStream& random) {
  const Support& s = p.support;
  const double range = s.high - s.low;
  for (std::size_t t = 0; t < p.target.size(); ++t) {
    const double bin = static_cast<double>(random.below(static_cast<std::uint64_t>(p.bins)));
    const double choices[] = {uniform(random, s.low, s.high),
                              uniform(random, s.low, s.high),
                              s.low + range * bin / static_cast<double>(p.bins - 1),
                              uniform(random, s.low - range / 5, s.high + range / 5),
                              t % 2 == 0 ? s.low : s.high,
                              t % 2 == 0 ? -infinity : infinity,
                              uniform(random, s.low, s.high),
                              nan};
    p.target[t] = static_cast<float>(inverse(choices[t % 8], s.transform));
    p.mask[t] = t % 5 != 3;
  }
  for (std::int64_t r = 0; r < p.rows; ++r) {
    float& weight = p.weight[static_cast<std::size_t>(r)];
    weight = r % 7 == 2 ? 0 : static_cast<float>(normal(random));
    if (!p.counts(r)) weight = static_cast<float>(nan);
    const double spread = (const double[]){1, 5, 30, 0, 1}[r % 5];
    const std::int64_t peak = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(p.bins)));
    for (std::int64_t k = 0; k < p.bins; ++k) {
      double z = spread * normal(random) + (spread == 0 ? 3 : 0);
      if (r % 11 == 4) z = random.below(2) == 0 ? 1e4 : -1e4;
      if (r % 11 == 9) z = k == peak ? 1e4 : -1e4;
      p.logits.set(r * p.bins + k, p.counts(r) ? z : nan);
    }
  }
}

// Rows that say something of their own. `bins` centers at -(bins - 1) / 2 ... (bins - 1) / 2, a unit apart.

inline Problem unit_bins(Float dtype, std::int64_t rows, std::int64_t bins, float sigma = 0) {
  const double end = static_cast<double>(bins - 1) / 2;
  return {dtype, rows, bins, {-end, end, Transform::linear, ReadoutKind::raw}, sigma, rows};
}

inline float center(const Problem& p, std::int64_t bin) {
  return static_cast<float>(p.support.low + static_cast<double>(bin));
}

// Results of cross_entropy, whose guards are looked at.
inline Outputs classify(const TwoHotKernels& form, const Problem& p) {
  Outputs out(p);
  const BinValues values(p.support, p.bins, true, p.label_kind);
  const CrossEntropy pass = cross_entropy_pass(p, out);
  form.cross_entropy(p.view(p.logits.data()), values, p.labels(), pass, 0, p.rows, false);
  CHECK(out.intact());
  return out;
}

inline Outputs expect(const TwoHotKernels& form, const Problem& p) {
  Outputs out(p);
  const BinValues values(p.support, p.bins, true, p.label_kind);
  form.expectation(p.view(p.logits.data()), values, expectation_pass(p, out), 0, p.rows);
  CHECK(out.intact());
  return out;
}

// How many numbers of a row satisfy `condition`.
template <class Condition>
inline std::int64_t count_row(const Array& array, std::int64_t r, std::int64_t bins, Condition condition) {
  std::int64_t count = 0;
  for (std::int64_t k = 0; k < bins; ++k) count += condition(array[r * bins + k]);
  return count;
}

const auto is_nan = [](double x) { return std::isnan(x); };
const auto is_zero = [](double x) { return x == 0; };

constexpr Float dtypes[] = {Float::float32, Float::bfloat16, Float::float16};

}  // namespace twohot::ops::tests
