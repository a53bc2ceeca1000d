// The loops of two_hot.h, compiled once for each instruction set: include after defining TWOHOT_CAPABILITY, the
// namespace that this copy lives in.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "ops/simd/vector_math.h"
#include "ops/two_hot/two_hot_kernels.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

constexpr std::int64_t row_batch = 64;      // rows whose scalars (positions, logarithms) share vectors
constexpr std::int64_t max_group_rows = 8;  // rows of a group, which go through each step side by side to hide latency
constexpr int accumulators = 4;             // independent maxima and sums, to hide latency

// A group of rows as float32 and their exponentials. Each row stands in whole vectors; one vector before and one after
// the exponentials are zeros that readers may touch.
class Scratch {
 public:
  explicit Scratch(std::int64_t bins) noexcept
      : padded_((bins + lanes - 1) / lanes * lanes),
        group_rows_(std::clamp<std::int64_t>(max_bins / bins, 1, max_group_rows)) {
    for (std::int64_t g = 0; g < group_rows_; ++g) {
      store(e(g) - lanes, FloatVector{});
      store(e(g) + padded_, FloatVector{});
    }
  }

  std::int64_t group_rows() const noexcept { return group_rows_; }
  float* z(std::int64_t g) noexcept { return z_ + g * padded_; }
  float* e(std::int64_t g) noexcept { return e_ + g * (padded_ + 2 * lanes) + lanes; }
  float* cdf() noexcept { return cdf_; }

 private:
  static constexpr std::int64_t size = max_bins + max_group_rows * 3 * lanes;
  alignas(64) float z_[size];
  alignas(64) float e_[size];
  alignas(64) float cdf_[max_bins + 2 * lanes];
  std::int64_t padded_;
  std::int64_t group_rows_;
};

// A row as its readers see it: whole vectors in place, or a float32 copy that is filled up with -inf to whole vectors.
struct Row {
  const void* entries;
  Float dtype;

  float operator[](std::int64_t k) const noexcept {
    if (dtype == Float::float32) return static_cast<const float*>(entries)[k];
    if (dtype == Float::bfloat16) {
      return std::bit_cast<float>(static_cast<std::uint32_t>(static_cast<const std::uint16_t*>(entries)[k]) << 16);
    }
    return widen(static_cast<const std::uint16_t*>(entries) + k / lanes * lanes, dtype)[k % lanes];
  }
};

// fn(take), where take(v) is vector v of the row.
template <class Fn>
inline void with_vectors(const Row& row, Fn fn) noexcept {
  if (row.dtype == Float::float32) {
    const float* from = static_cast<const float*>(row.entries);
    fn([from](std::int64_t v) { return load<FloatVector>(from + v * lanes); });
    return;
  }
  const std::uint16_t* from = static_cast<const std::uint16_t*>(row.entries);
  if (row.dtype == Float::bfloat16) {
    fn([from](std::int64_t v) { return widen(from + v * lanes, Float::bfloat16); });
  } else {
    fn([from](std::int64_t v) { return widen(from + v * lanes, Float::float16); });
  }
}

// Invokes fn(v, accumulator) for every vector.
template <class Fn>
inline void every_vector(std::int64_t vectors, Fn fn) noexcept {
  std::int64_t v = 0;
  for (; v + accumulators <= vectors; v += accumulators) {
    for (int c = 0; c < accumulators; ++c) fn(v + c, c);
  }
  for (; v < vectors; ++v) fn(v, 0);
}

// Row r of the logits: in place where it is whole vectors and float32 is not asked for, or a copy in `copy`.
inline Row row_of(const Logits& logits, std::int64_t r, bool as_float32, float* copy) noexcept {
  const std::int64_t whole = logits.bins / lanes;
  const std::int64_t tail = whole * lanes;
  const std::size_t rest = static_cast<std::size_t>(logits.bins - tail);
  const std::int64_t size = logits.dtype == Float::float32 ? sizeof(float) : sizeof(std::uint16_t);
  const Row row{static_cast<const char*>(logits.data) + r * logits.bins * size, logits.dtype};
  if (rest == 0 && (!as_float32 || logits.dtype == Float::float32)) return row;
  with_vectors(row, [&](auto take) {
    for (std::int64_t v = 0; v < whole; ++v) store(copy + v * lanes, take(v));
  });
  if (rest > 0) {
    float last[lanes] = {};
    std::memcpy(last, static_cast<const char*>(row.entries) + tail * size, rest * static_cast<std::size_t>(size));
    const FloatVector x = row.dtype == Float::float32 ? load<FloatVector>(last)
                                                      : widen(reinterpret_cast<std::uint16_t*>(last), row.dtype);
    store(copy + tail, splat(-std::numeric_limits<float>::infinity()));
    std::memcpy(copy + tail, &x, rest * sizeof(float));
  }
  return {copy, Float::float32};
}

// The largest entries that are no NaN, in any of the lanes; -inf without one.
inline FloatVector maxima(const Row& row, std::int64_t vectors) noexcept {
  FloatVector best[accumulators];
  for (FloatVector& each : best) each = splat(-std::numeric_limits<float>::infinity());
  with_vectors(
      row, [&](auto take) { every_vector(vectors, [&](std::int64_t v, int c) { best[c] = max(take(v), best[c]); }); });
  return max(max(best[0], best[1]), max(best[2], best[3]));
}

// e[k] = exp(z[k] - maximum); returns parts of their sum, NaN where z holds one.
inline FloatVector exponentials(const Row& row, std::int64_t vectors, float maximum, float* e) noexcept {
  FloatVector parts[exp_unroll] = {};
  with_vectors(row, [&](auto take) {
    const auto next = [&]<int count>(std::int64_t v, FloatVector(&x)[count]) {
      for (int i = 0; i < count; ++i) x[i] = take(v + i) - maximum;
      exp_negative(x);
      for (int i = 0; i < count; ++i) {
        store(e + (v + i) * lanes, x[i]);
        parts[i] += x[i];
      }
    };
    FloatVector several[exp_unroll];
    FloatVector one[1];
    std::int64_t v = 0;
    for (; v + exp_unroll <= vectors; v += exp_unroll) next(v, several);
    for (; v < vectors; ++v) next(v, one);
  });
  for (int i = 1; i < exp_unroll; ++i) parts[0] += parts[i];
  return parts[0];
}

// What bins add to the readout, in the order of their exponentials: all, and the upper half.
struct ReadoutValues {
  const float* all;
  const float* upper;
  bool antisymmetric;
};

// Parts of sum_k e[k] values[k].
inline FloatVector moments(const float* e, const ReadoutValues& values, std::int64_t bins,
                           std::int64_t vectors) noexcept {
  FloatVector parts[accumulators] = {};
  if (values.antisymmetric) {
    const std::int64_t half = bins / 2;
    const float* upper = e + bins - half;
    const float* lower = e + half - lanes;
    every_vector((half + lanes - 1) / lanes, [&](std::int64_t v, int c) {
      parts[c] += (load<FloatVector>(upper + v * lanes) - reverse(load<FloatVector>(lower - v * lanes))) *
                  load<FloatVector>(values.upper + v * lanes);
    });
  } else {
    every_vector(vectors, [&](std::int64_t v, int c) {
      parts[c] += load<FloatVector>(e + v * lanes) * load<FloatVector>(values.all + v * lanes);
    });
  }
  return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

inline FloatVector signed_root_core(FloatVector a) noexcept {  // sqrt(1 + a) - 1 without cancellation
  return a / (square_root(a + 1.0f) + 1.0f);
}

// f(y) for each lane.
inline FloatVector transformed(FloatVector y, Transform transform) noexcept {
  if (transform == Transform::linear) return y;
  const FloatVector a = abs(y);
  if (transform == Transform::symlog) return copysign(log1p_positive(a), y);
  const FloatVector x = copysign(signed_root_core(a) + signed_sqrt_slope * a, y);
  return select(a > std::numeric_limits<float>::max(), y, x);
}

// f^-1(x) and its derivative.
struct Inverse {
  FloatVector value;
  FloatVector slope;
};

inline Inverse inverse(FloatVector x, Transform transform) noexcept {
  if (transform == Transform::linear) return {x, splat(1.0f)};
  const FloatVector a = abs(x);
  if (transform == Transform::symlog) {
    const FloatVector y = expm1_positive(a);
    return {copysign(y, x), y + 1.0f};
  }
  // With sqrt(|y| + 1) = 1 + d nothing cancels: |y| = d (d + 2).
  constexpr float e = signed_sqrt_slope;
  const FloatVector root = square_root(4 * e * a + (1 + 4 * e * (1 + e)));
  const FloatVector d = 2.0f * a / (root + (1 + 2 * e));
  return {copysign(d * (d + 2.0f), x), 2.0f * (d + 1.0f) / root};
}

// Position of a target among the bins, in 0 .. bins - 1.
inline FloatVector position(FloatVector target, const BinValues& values, std::int64_t bins) noexcept {
  const FloatVector x = transformed(target, values.transform);
  const FloatVector above = select(x < values.low, splat(values.low), x);
  const FloatVector inside = select(above > values.high, splat(values.high), above);
  const FloatVector p = (inside - values.low) * values.per_bin;
  const float last = static_cast<float>(bins - 1);
  return select(p > last, splat(last), p);
}

// Position of a target among the values of the bins, in 0 .. bins - 1: between those around `near`, that of position(),
// or at one of them.
inline FloatVector raw_position(FloatVector target, FloatVector near, const BinValues& values,
                                std::int64_t bins) noexcept {
  FloatVector bin;
  FloatVector below;
  FloatVector above;
  for (int l = 0; l < lanes; ++l) {
    const float p = near[l];
    const std::int64_t k = p == p ? std::min(static_cast<std::int64_t>(p), bins - 2) : 0;
    bin[l] = static_cast<float>(k);
    below[l] = values.points[k];
    above[l] = values.points[k + 1];
  }
  const FloatVector width = above - below;
  constexpr float smallest = std::numeric_limits<float>::min();  // where float32 cannot tell the two apart
  const FloatVector share = (target - below) / select(width < smallest, splat(smallest), width);
  const FloatVector positive = select(share < 0.0f, FloatVector{}, share);
  return bin + select(positive > 1.0f, splat(1.0f), positive);
}

// sum_k label_k (z_k - maximum), and label_k sum subtracted from e_k. A label of 0 keeps an infinite logit out.
template <class Rows>
inline float apply_two_hot(const Row& z, float* e, float maximum, float sum, float position,
                           std::int64_t bins) noexcept {
  const std::int64_t lower = std::min(static_cast<std::int64_t>(position), bins - 2);
  const float share = position - static_cast<float>(lower);
  const float below = share < 1 ? (1 - share) * (z[lower] - maximum) : 0.0f;
  const float above = share > 0 ? share * (z[lower + 1] - maximum) : 0.0f;
  e[Rows::place(lower)] -= (1 - share) * sum;
  e[Rows::place(lower + 1)] -= share * sum;
  return below + above;
}

inline float apply_hl_gauss(const Row& z, float* e, float* cdf, float maximum, float sum, float position,
                            std::int64_t bins, float sigma) noexcept {
  const float factor = 0.70710678f / sigma;
  // Beyond this many bins float32's erf is 1.
  const float reach = std::min(5.7f * sigma + 0.5f, static_cast<float>(max_bins));
  const std::int64_t first = std::max<std::int64_t>(0, static_cast<std::int64_t>(std::floor(position - reach)));
  const std::int64_t last = std::min(bins - 1, static_cast<std::int64_t>(std::ceil(position + reach)));
  FloatVector index;
  for (int l = 0; l < lanes; ++l) index[l] = static_cast<float>(l);
  // cdf[j]: edge j below bin `first` + j.
  for (std::int64_t j = 0; j <= last - first + 1; j += lanes) {
    const FloatVector edge = index + (static_cast<float>(first + j) - 0.5f);
    store(cdf + j, erf((edge - position) * factor));
  }
  const float per_total = 1.0f / (cdf[last - first + 1] - cdf[0]);
  float result = 0;
  for (std::int64_t k = first; k <= last; ++k) {
    const float label = (cdf[k - first + 1] - cdf[k - first]) * per_total;
    if (label > 0) result += label * (z[k] - maximum);
    e[k] -= label * sum;
  }
  return result;
}

// Writes next(0), next(1), ... to row r of `out`. No entry is NaN, unless the dtype is float32.
template <class Next>
inline void write_row(const Logits& logits, std::int64_t r, void* out, bool non_temporal, Next next) noexcept {
  const std::int64_t whole = logits.bins / lanes;
  const std::size_t rest = static_cast<std::size_t>(logits.bins - whole * lanes);
  if (logits.dtype == Float::float32) {
    float* to = static_cast<float*>(out) + r * logits.bins;
    if (non_temporal) {
      for (std::int64_t v = 0; v < whole; ++v) store_non_temporal(to + v * lanes, next(v));
    } else {
      for (std::int64_t v = 0; v < whole; ++v) store(to + v * lanes, next(v));
    }
    if (rest > 0) {
      const FloatVector last = next(whole);
      std::memcpy(to + whole * lanes, &last, rest * sizeof(float));
    }
    return;
  }
  std::uint16_t* to = static_cast<std::uint16_t*>(out) + r * logits.bins;
  const auto pairs = [&](Float dtype) {
    for (std::int64_t v = 0; v + 2 <= whole; v += 2) narrow(to + v * lanes, next(v), next(v + 1), dtype);
  };
  if (logits.dtype == Float::bfloat16) {
    pairs(Float::bfloat16);
  } else {
    pairs(Float::float16);
  }
  const std::int64_t done = whole / 2 * 2;
  if (done * lanes < logits.bins) {
    std::uint16_t last[2 * lanes];
    narrow(last, next(done), rest > 0 && done < whole ? next(done + 1) : FloatVector{}, logits.dtype);
    std::memcpy(to + done * lanes, last, static_cast<std::size_t>(logits.bins - done * lanes) * sizeof(std::uint16_t));
  }
}

inline void fill_row(const Logits& logits, std::int64_t r, void* out, float value) noexcept {
  if (logits.dtype == Float::float32) {
    std::fill_n(static_cast<float*>(out) + r * logits.bins, logits.bins, value);
  } else {
    const std::uint16_t half = value != value ? 0x7fff : 0;  // a NaN of either dtype, or 0
    std::fill_n(static_cast<std::uint16_t*>(out) + r * logits.bins, logits.bins, half);
  }
}

// Rows of any dtype and number of bins, whose exponentials stand in order.
struct AnyRows {
  static constexpr bool in_order = true;
  static std::int64_t place(std::int64_t k) noexcept { return k; }
  static FloatVector maxima(const Row& row, std::int64_t vectors) noexcept {
    return TWOHOT_CAPABILITY::maxima(row, vectors);
  }
  static FloatVector exponentials(const Row& row, std::int64_t vectors, float maximum, float* e) noexcept {
    return TWOHOT_CAPABILITY::exponentials(row, vectors, maximum, e);
  }
  static void write(const Logits& logits, std::int64_t r, void* out, bool non_temporal, const float* e,
                    float factor) noexcept {
    write_row(logits, r, out, non_temporal, [&](std::int64_t v) { return load<FloatVector>(e + v * lanes) * factor; });
  }
};

// Rows in half precision that are whole vectors of it, whose exponentials stand as widen_both() puts them.
template <Float dtype>
struct HalfRows {
  static constexpr bool in_order = dtype == Float::float16;
  static std::int64_t place(std::int64_t k) noexcept { return widened_place<dtype>(k); }
  static Widened entries(const Row& row, std::int64_t v) noexcept {
    return widen_both<dtype>(static_cast<const std::uint16_t*>(row.entries) + v * lanes);
  }
  static FloatVector maxima(const Row& row, std::int64_t vectors) noexcept {
    FloatVector first = splat(-std::numeric_limits<float>::infinity());
    FloatVector second = first;
    for (std::int64_t v = 0; v < vectors; v += 2) {
      const Widened x = entries(row, v);
      first = max(x.first, first);
      second = max(x.second, second);
    }
    return max(first, second);
  }
  static FloatVector exponentials(const Row& row, std::int64_t vectors, float maximum, float* e) noexcept {
    constexpr float log2e = 1.44269504f;
    FloatVector first{};
    FloatVector second{};
    for (std::int64_t v = 0; v < vectors; v += 2) {
      const Widened x = entries(row, v);
      const FloatVector a = exp2((x.first - maximum) * log2e);
      const FloatVector b = exp2((x.second - maximum) * log2e);
      store(e + v * lanes, a);
      store(e + (v + 1) * lanes, b);
      first += a;
      second += b;
    }
    return first + second;
  }
  static void write(const Logits& logits, std::int64_t r, void* out, bool non_temporal, const float* e,
                    float factor) noexcept {
    std::uint16_t* const to = static_cast<std::uint16_t*>(out) + r * logits.bins;
    for (std::int64_t k = 0; k < logits.bins; k += 2 * lanes) {
      const Integers halves =
          narrow_both<dtype>({load<FloatVector>(e + k) * factor, load<FloatVector>(e + k + lanes) * factor});
      if (non_temporal) {
        store_non_temporal(to + k, (FloatVector)halves);
      } else {
        store(to + k, halves);
      }
    }
  }
};

template <class Rows>
inline void cross_entropy_block(const Logits& logits, const BinValues& values, const ReadoutValues& readouts,
                                const Labels& labels, const CrossEntropy& pass, std::int64_t begin, std::int64_t count,
                                bool non_temporal, Scratch& scratch) noexcept {
  const std::int64_t vectors = (logits.bins + lanes - 1) / lanes;
  alignas(64) float positions[row_batch] = {};
  alignas(64) float sums[row_batch];
  alignas(64) float dots[row_batch] = {};
  alignas(64) float means[row_batch] = {};
  bool counts[row_batch];
  std::int64_t t = (begin + labels.offset) % labels.targets;
  for (std::int64_t i = 0; i < count; ++i) {
    positions[i] = labels.target[t];
    counts[i] = labels.mask == nullptr || labels.mask[t] != 0;
    if (++t == labels.targets) t = 0;
  }
  for (std::int64_t i = 0; i < count; i += lanes) {
    const FloatVector target = load<FloatVector>(positions + i);
    const FloatVector p = position(target, values, logits.bins);
    store(positions + i, labels.kind == LabelKind::two_hot_raw ? raw_position(target, p, values, logits.bins) : p);
  }
  std::fill(sums, sums + row_batch, 1.0f);

  Row group[max_group_rows];
  FloatVector parts[max_group_rows];
  float largest[max_group_rows];
  for (std::int64_t first = 0; first < count; first += scratch.group_rows()) {
    const std::int64_t last = std::min(count, first + scratch.group_rows());
    // Each step for the whole group. A row that does not count is skipped by all of them.
    const auto each = [&](auto step) {
      for (std::int64_t i = first; i < last; ++i) {
        if (counts[i]) step(i, i - first, scratch.e(i - first));
      }
    };
    each([&](std::int64_t i, std::int64_t g, float*) {
      group[g] = row_of(logits, begin + i, labels.kind == LabelKind::hl_gauss, scratch.z(g));
      parts[g] = Rows::maxima(group[g], vectors);
    });
    each([&](std::int64_t, std::int64_t g, float*) { largest[g] = maximum(parts[g]); });
    each([&](std::int64_t, std::int64_t g, float* e) {
      parts[g] = Rows::exponentials(group[g], vectors, largest[g], e);
    });
    each([&](std::int64_t i, std::int64_t g, float*) { sums[i] = sum(parts[g]); });
    if (pass.readout != nullptr) {
      each([&](std::int64_t, std::int64_t g, float* e) { parts[g] = moments(e, readouts, logits.bins, vectors); });
      each([&](std::int64_t i, std::int64_t g, float*) { means[i] = sum(parts[g]); });
    }
    each([&](std::int64_t i, std::int64_t g, float* e) {
      const float p = positions[i];
      if (p != p) {
        dots[i] = p;
      } else if (labels.kind == LabelKind::hl_gauss) {
        dots[i] = apply_hl_gauss(group[g], e, scratch.cdf(), largest[g], sums[i], p, logits.bins, labels.sigma);
      } else {
        dots[i] = apply_two_hot<Rows>(group[g], e, largest[g], sums[i], p, logits.bins);
      }
    });
    if (pass.gradient == nullptr) continue;
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t r = begin + i;
      const float weight = pass.weight == nullptr ? 1.0f : pass.weight[r];
      const float coefficient = pass.scale * weight / sums[i];
      if (!counts[i] || weight == 0) {
        fill_row(logits, r, pass.gradient, 0.0f);
      } else if (positions[i] != positions[i] || coefficient != coefficient) {
        fill_row(logits, r, pass.gradient, std::numeric_limits<float>::quiet_NaN());
      } else {
        Rows::write(logits, r, pass.gradient, non_temporal, scratch.e(i - first), coefficient);
      }
    }
  }

  for (std::int64_t i = 0; i < count; i += lanes) {
    store(dots + i, log_normal(load<FloatVector>(sums + i)) - load<FloatVector>(dots + i));
    const FloatVector mean = load<FloatVector>(means + i) / load<FloatVector>(sums + i);
    store(means + i, values.readout_kind == ReadoutKind::raw ? mean : inverse(mean, values.transform).value);
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t r = begin + i;
    if (pass.readout != nullptr) pass.readout[r] = means[i];
    if (pass.loss != nullptr) pass.loss[r] = counts[i] && pass.weight != nullptr ? dots[i] * pass.weight[r] : dots[i];
  }
}

inline void cross_entropy_rows(const Logits& logits, const BinValues& values, const Labels& labels,
                               const CrossEntropy& pass, std::int64_t begin, std::int64_t end, bool large) noexcept {
  Scratch scratch(logits.bins);
  const std::int64_t halves = logits.dtype == Float::float32 ? 1 : 2;
  const bool whole = logits.bins % (halves * lanes) == 0;
  const bool non_temporal = large && whole && pass.gradient != logits.data &&
                            reinterpret_cast<std::uintptr_t>(pass.gradient) % sizeof(FloatVector) == 0;
  const auto rows = [&]<class Rows>() {
    alignas(64) float values_in_order[Rows::in_order ? 1 : max_bins];
    ReadoutValues readouts{values.all, values.upper, values.antisymmetric};
    if constexpr (!Rows::in_order) {
      for (std::int64_t k = 0; k < logits.bins; ++k) values_in_order[Rows::place(k)] = values.all[k];
      readouts.all = values_in_order;
      readouts.upper = values_in_order + logits.bins / 2;
    }
    for (std::int64_t r = begin; r < end; r += row_batch) {
      cross_entropy_block<Rows>(logits, values, readouts, labels, pass, r, std::min(row_batch, end - r), non_temporal,
                                scratch);
    }
  };
  if (logits.dtype == Float::float32 || !whole || labels.kind == LabelKind::hl_gauss) {
    rows.template operator()<AnyRows>();
  } else if (logits.dtype == Float::bfloat16) {
    rows.template operator()<HalfRows<Float::bfloat16>>();
  } else {
    rows.template operator()<HalfRows<Float::float16>>();
  }
  if (non_temporal) fence();
}

inline void expectation_rows(const Logits& logits, const BinValues& values, const Expectation& pass, std::int64_t begin,
                             std::int64_t end) noexcept {
  Scratch scratch(logits.bins);
  const std::int64_t vectors = (logits.bins + lanes - 1) / lanes;
  const Transform transform = values.readout_kind == ReadoutKind::raw ? Transform::linear : values.transform;
  Row group[max_group_rows];
  FloatVector parts[max_group_rows];
  float sums[max_group_rows];
  float means[max_group_rows];
  for (std::int64_t first = begin; first < end; first += scratch.group_rows()) {
    const std::int64_t count = std::min(end - first, scratch.group_rows());
    const auto each = [&](auto step) {
      for (std::int64_t g = 0; g < count; ++g) step(g);
    };
    each([&](std::int64_t g) {
      group[g] = row_of(logits, first + g, false, scratch.z(g));
      parts[g] = maxima(group[g], vectors);
    });
    each([&](std::int64_t g) { parts[g] = exponentials(group[g], vectors, maximum(parts[g]), scratch.e(g)); });
    each([&](std::int64_t g) {
      sums[g] = sum(parts[g]);
      parts[g] = moments(scratch.e(g), {values.all, values.upper, values.antisymmetric}, logits.bins, vectors);
    });
    each([&](std::int64_t g) { means[g] = sum(parts[g]) / sums[g]; });
    for (std::int64_t g = 0; g < count; ++g) {
      const std::int64_t r = first + g;
      const float mean = means[g];
      const Inverse decoded = inverse(splat(mean), transform);
      if (pass.readout != nullptr) pass.readout[r] = decoded.value[0];
      if (pass.gradient == nullptr) continue;
      const float coefficient = pass.grad_output[r] * decoded.slope[0] / sums[g];
      const float test = coefficient * mean;
      if (test != test) {
        fill_row(logits, r, pass.gradient, test);
        continue;
      }
      const float* e = scratch.e(g);
      write_row(logits, r, pass.gradient, false, [&](std::int64_t v) {
        return load<FloatVector>(e + v * lanes) * (load<FloatVector>(values.all + v * lanes) - mean) * coefficient;
      });
    }
  }
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
