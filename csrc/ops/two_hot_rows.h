// The row loops of two_hot.h, compiled once for each instruction set: include after defining TWOHOT_CAPABILITY, the
// namespace that this copy lives in.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "ops/two_hot_kernels.h"
#include "ops/vector_math.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

constexpr std::int64_t rows_at_once = 64;  // rows whose scalars (positions, logarithms) are computed together
constexpr std::int64_t most_grouped = 2;   // rows that go through each step together, so that no step waits for one row
constexpr int chains = 4;                  // independent maxima, for the same reason

// A group of rows as float32 and their exponentials. Each row stands in whole vectors; one vector before and one after
// the exponentials are zeros that readers may touch.
class Scratch {
 public:
  explicit Scratch(std::int64_t bins) noexcept
      : padded_((bins + lanes - 1) / lanes * lanes), grouped_(std::clamp<std::int64_t>(most_bins / bins, 1, most_grouped)) {
    for (std::int64_t g = 0; g < grouped_; ++g) {
      store(e(g) - lanes, Lanes{});
      store(e(g) + padded_, Lanes{});
    }
  }

  std::int64_t grouped() const noexcept { return grouped_; }
  float* z(std::int64_t g) noexcept { return z_ + g * padded_; }
  float* e(std::int64_t g) noexcept { return e_ + g * (padded_ + 2 * lanes) + lanes; }
  float* cdf() noexcept { return cdf_; }

 private:
  static constexpr std::int64_t size = most_bins + most_grouped * 3 * lanes;
  alignas(64) float z_[size];
  alignas(64) float e_[size];
  alignas(64) float cdf_[most_bins + 2 * lanes];
  std::int64_t padded_;
  std::int64_t grouped_;
};

struct Row {
  const float* z;  // in whole vectors, filled up with -inf
  float maximum;   // the largest entry that is no NaN; -inf without one
};

// Row r of the logits: in place, or as a copy in `copy`.
inline Row load_row(const Rows& rows, std::int64_t r, float* copy) noexcept {
  const std::int64_t whole = rows.bins / lanes;
  const std::int64_t tail = whole * lanes;
  const std::size_t rest = static_cast<std::size_t>(rows.bins - tail);
  Lanes best[chains];
  for (Lanes& chain : best) chain = all(-std::numeric_limits<float>::infinity());
  const auto compare = [&](int chain, Lanes x) { best[chain] = select(x > best[chain], x, best[chain]); };
  // take(v) gives vector v of the row.
  const auto every = [&](std::int64_t vectors, auto take) {
    std::int64_t v = 0;
    for (; v + chains <= vectors; v += chains) {
      for (int c = 0; c < chains; ++c) compare(c, take(v + c));
    }
    for (; v < vectors; ++v) compare(0, take(v));
  };
  const float* z = copy;
  if (rest > 0) store(copy + tail, all(-std::numeric_limits<float>::infinity()));
  if (rows.dtype == Float::float32) {
    const float* row = static_cast<const float*>(rows.logits) + r * rows.bins;
    if (rest == 0) {
      z = row;
    } else {
      std::memcpy(copy, row, static_cast<std::size_t>(rows.bins) * sizeof(float));
    }
    every(whole + (rest > 0), [&](std::int64_t v) { return load<Lanes>(z + v * lanes); });
  } else {
    const std::uint16_t* row = static_cast<const std::uint16_t*>(rows.logits) + r * rows.bins;
    const auto widened = [&](std::int64_t v, Float dtype) {
      const Lanes x = widen(row + v * lanes, dtype);
      store(copy + v * lanes, x);
      return x;
    };
    if (rows.dtype == Float::bfloat16) {
      every(whole, [&](std::int64_t v) { return widened(v, Float::bfloat16); });
    } else {
      every(whole, [&](std::int64_t v) { return widened(v, Float::float16); });
    }
    if (rest > 0) {
      std::uint16_t last[lanes] = {};
      std::memcpy(last, row + tail, rest * sizeof(std::uint16_t));
      const Lanes x = widen(last, rows.dtype);
      std::memcpy(copy + tail, &x, rest * sizeof(float));
      compare(0, load<Lanes>(copy + tail));
    }
  }
  const Lanes a = select(best[0] > best[1], best[0], best[1]);
  const Lanes b = select(best[2] > best[3], best[2], best[3]);
  return {z, maximum(select(a > b, a, b))};
}

// e[k] = exp(z[k] - maximum); returns their sum, NaN where z holds one.
inline float exponentials(const float* z, std::int64_t vectors, float maximum, float* e) noexcept {
  Lanes even{};
  Lanes odd{};
  const auto take = [&](std::int64_t v) {
    const Lanes x = exp_negative(load<Lanes>(z + v * lanes) - maximum);
    store(e + v * lanes, x);
    return x;
  };
  std::int64_t v = 0;
  for (; v + 2 <= vectors; v += 2) {
    even += take(v);
    odd += take(v + 1);
  }
  if (v < vectors) even += take(v);
  return sum(even + odd);
}

// sum_k e[k] values[k].
inline float moment(const float* e, const Values& values, std::int64_t bins, std::int64_t vectors) noexcept {
  Lanes even{};
  Lanes odd{};
  std::int64_t v = 0;
  if (!values.antisymmetric) {
    const auto product = [&](std::int64_t v) { return load<Lanes>(e + v * lanes) * load<Lanes>(values.all + v * lanes); };
    for (; v + 2 <= vectors; v += 2) {
      even += product(v);
      odd += product(v + 1);
    }
    if (v < vectors) even += product(v);
    return sum(even + odd);
  }
  const std::int64_t half = bins / 2;
  const std::int64_t half_vectors = (half + lanes - 1) / lanes;
  const float* upper = e + bins - half;
  const float* lower = e + half - lanes;
  const auto product = [&](std::int64_t v) {
    return (load<Lanes>(upper + v * lanes) - reversed(load<Lanes>(lower - v * lanes))) *
           load<Lanes>(values.upper + v * lanes);
  };
  for (; v + 2 <= half_vectors; v += 2) {
    even += product(v);
    odd += product(v + 1);
  }
  if (v < half_vectors) even += product(v);
  return sum(even + odd);
}

inline Lanes signed_root_core(Lanes a) noexcept {  // sqrt(1 + a) - 1 without cancellation
  return a / (square_root(a + 1.0f) + 1.0f);
}

// f(y) for each lane.
inline Lanes transformed(Lanes y, Transform transform) noexcept {
  if (transform == Transform::linear) return y;
  const Lanes a = absolute(y);
  if (transform == Transform::symlog) return with_sign(log1p_positive(a), y);
  const Lanes x = with_sign(signed_root_core(a) + signed_sqrt_slope * a, y);
  return select(a > std::numeric_limits<float>::max(), y, x);
}

// f^-1(x) and its derivative.
struct Inverse {
  Lanes value;
  Lanes slope;
};

inline Inverse inverse(Lanes x, Transform transform) noexcept {
  if (transform == Transform::linear) return {x, all(1.0f)};
  const Lanes a = absolute(x);
  if (transform == Transform::symlog) {
    const Lanes y = expm1_positive(a);
    return {with_sign(y, x), y + 1.0f};
  }
  // With sqrt(|y| + 1) = 1 + d nothing cancels: |y| = d (d + 2).
  constexpr float e = signed_sqrt_slope;
  const Lanes root = square_root(4 * e * a + (1 + 4 * e * (1 + e)));
  const Lanes d = 2.0f * a / (root + (1 + 2 * e));
  return {with_sign(d * (d + 2.0f), x), 2.0f * (d + 1.0f) / root};
}

// Place of a target among the bins, in 0 .. bins - 1.
inline Lanes position(Lanes target, const Values& values, std::int64_t bins) noexcept {
  const Lanes x = transformed(target, values.transform);
  const Lanes above = select(x < values.low, all(values.low), x);
  const Lanes inside = select(above > values.high, all(values.high), above);
  const Lanes p = (inside - values.low) * values.per_bin;
  const float last = static_cast<float>(bins - 1);
  return select(p > last, all(last), p);
}

// sum_k label_k (z_k - maximum), and label_k sum subtracted from e_k. A label of 0 keeps an infinite logit out.
inline float apply_two_hot(const float* z, float* e, float maximum, float sum, float place, std::int64_t bins) noexcept {
  const std::int64_t lower = std::min(static_cast<std::int64_t>(place), bins - 2);
  const float share = place - static_cast<float>(lower);
  const float below = share < 1 ? (1 - share) * (z[lower] - maximum) : 0.0f;
  const float above = share > 0 ? share * (z[lower + 1] - maximum) : 0.0f;
  e[lower] -= (1 - share) * sum;
  e[lower + 1] -= share * sum;
  return below + above;
}

inline float apply_hl_gauss(const float* z, float* e, float* cdf, float maximum, float sum, float place, std::int64_t bins,
                            float sigma) noexcept {
  const float factor = 0.70710678f / sigma;
  // Beyond this many bins float32's erf is 1.
  const float reach = std::min(5.7f * sigma + 0.5f, static_cast<float>(most_bins));
  const std::int64_t first = std::max<std::int64_t>(0, static_cast<std::int64_t>(std::floor(place - reach)));
  const std::int64_t last = std::min(bins - 1, static_cast<std::int64_t>(std::ceil(place + reach)));
  Lanes index;
  for (int l = 0; l < lanes; ++l) index[l] = static_cast<float>(l);
  // cdf[j]: edge j below bin `first` + j.
  for (std::int64_t j = 0; j <= last - first + 1; j += lanes) {
    const Lanes edge = index + (static_cast<float>(first + j) - 0.5f);
    store(cdf + j, erf((edge - place) * factor));
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
inline void write_row(const Rows& rows, std::int64_t r, void* out, bool streaming, Next next) noexcept {
  const std::int64_t whole = rows.bins / lanes;
  const std::size_t rest = static_cast<std::size_t>(rows.bins - whole * lanes);
  if (rows.dtype == Float::float32) {
    float* to = static_cast<float*>(out) + r * rows.bins;
    if (streaming) {
      for (std::int64_t v = 0; v < whole; ++v) stream(to + v * lanes, next(v));
    } else {
      for (std::int64_t v = 0; v < whole; ++v) store(to + v * lanes, next(v));
    }
    if (rest > 0) {
      const Lanes last = next(whole);
      std::memcpy(to + whole * lanes, &last, rest * sizeof(float));
    }
    return;
  }
  std::uint16_t* to = static_cast<std::uint16_t*>(out) + r * rows.bins;
  const auto pairs = [&](Float dtype) {
    for (std::int64_t v = 0; v + 2 <= whole; v += 2) narrow(to + v * lanes, next(v), next(v + 1), dtype);
  };
  if (rows.dtype == Float::bfloat16) {
    pairs(Float::bfloat16);
  } else {
    pairs(Float::float16);
  }
  const std::int64_t done = whole / 2 * 2;
  if (done * lanes < rows.bins) {
    std::uint16_t last[2 * lanes];
    narrow(last, next(done), rest > 0 && done < whole ? next(done + 1) : Lanes{}, rows.dtype);
    std::memcpy(to + done * lanes, last, static_cast<std::size_t>(rows.bins - done * lanes) * sizeof(std::uint16_t));
  }
}

inline void fill_row(const Rows& rows, std::int64_t r, void* out, float value) noexcept {
  if (rows.dtype == Float::float32) {
    std::fill_n(static_cast<float*>(out) + r * rows.bins, rows.bins, value);
  } else {
    const std::uint16_t half = value != value ? 0x7fff : 0;  // a NaN of either dtype, or 0
    std::fill_n(static_cast<std::uint16_t*>(out) + r * rows.bins, rows.bins, half);
  }
}

inline void cross_entropy_block(const Rows& rows, const Values& values, const Labels& labels, const CrossEntropy& pass,
                                std::int64_t begin, std::int64_t count, bool streaming, Scratch& scratch) noexcept {
  const std::int64_t vectors = (rows.bins + lanes - 1) / lanes;
  alignas(64) float place[rows_at_once] = {};
  alignas(64) float sums[rows_at_once];
  alignas(64) float dots[rows_at_once] = {};
  alignas(64) float moments[rows_at_once] = {};
  bool counts[rows_at_once];
  std::int64_t t = (begin + labels.offset) % labels.targets;
  for (std::int64_t i = 0; i < count; ++i) {
    place[i] = labels.target[t];
    counts[i] = labels.mask == nullptr || labels.mask[t] != 0;
    if (++t == labels.targets) t = 0;
  }
  for (std::int64_t i = 0; i < count; i += lanes) store(place + i, position(load<Lanes>(place + i), values, rows.bins));
  std::fill(sums, sums + rows_at_once, 1.0f);

  Row group[most_grouped];
  for (std::int64_t first = 0; first < count; first += scratch.grouped()) {
    const std::int64_t last = std::min(count, first + scratch.grouped());
    // Each step for the whole group. A row that does not count is skipped by all of them.
    const auto each = [&](auto step) {
      for (std::int64_t i = first; i < last; ++i) {
        if (counts[i]) step(i, begin + i, group[i - first], scratch.e(i - first));
      }
    };
    each([&](std::int64_t i, std::int64_t r, Row& row, float*) { row = load_row(rows, r, scratch.z(i - first)); });
    each([&](std::int64_t i, std::int64_t, const Row& row, float* e) {
      sums[i] = exponentials(row.z, vectors, row.maximum, e);
    });
    if (pass.readout != nullptr) {
      each([&](std::int64_t i, std::int64_t, const Row&, float* e) { moments[i] = moment(e, values, rows.bins, vectors); });
    }
    each([&](std::int64_t i, std::int64_t, const Row& row, float* e) {
      const float p = place[i];
      if (p != p) {
        dots[i] = p;
      } else if (labels.sigma > 0) {
        dots[i] = apply_hl_gauss(row.z, e, scratch.cdf(), row.maximum, sums[i], p, rows.bins, labels.sigma);
      } else {
        dots[i] = apply_two_hot(row.z, e, row.maximum, sums[i], p, rows.bins);
      }
    });
    if (pass.gradient == nullptr) continue;
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t r = begin + i;
      const float weight = pass.weight == nullptr ? 1.0f : pass.weight[r];
      const float coefficient = pass.scale * weight / sums[i];
      if (!counts[i] || weight == 0) {
        fill_row(rows, r, pass.gradient, 0.0f);
      } else if (place[i] != place[i] || coefficient != coefficient) {
        fill_row(rows, r, pass.gradient, std::numeric_limits<float>::quiet_NaN());
      } else {
        const float* e = scratch.e(i - first);
        write_row(rows, r, pass.gradient, streaming,
                  [&](std::int64_t v) { return load<Lanes>(e + v * lanes) * coefficient; });
      }
    }
  }

  for (std::int64_t i = 0; i < count; i += lanes) {
    store(dots + i, log_normal(load<Lanes>(sums + i)) - load<Lanes>(dots + i));
    const Lanes mean = load<Lanes>(moments + i) / load<Lanes>(sums + i);
    store(moments + i, values.raw ? mean : inverse(mean, values.transform).value);
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t r = begin + i;
    if (pass.readout != nullptr) pass.readout[r] = moments[i];
    if (pass.loss != nullptr) pass.loss[r] = counts[i] && pass.weight != nullptr ? dots[i] * pass.weight[r] : dots[i];
  }
}

inline void cross_entropy_rows(const Rows& rows, const Values& values, const Labels& labels, const CrossEntropy& pass,
                               std::int64_t begin, std::int64_t end, bool large) noexcept {
  Scratch scratch(rows.bins);
  const bool streaming = large && rows.dtype == Float::float32 && rows.bins % lanes == 0 &&
                         reinterpret_cast<std::uintptr_t>(pass.gradient) % sizeof(Lanes) == 0 &&
                         pass.gradient != rows.logits;
  for (std::int64_t r = begin; r < end; r += rows_at_once) {
    cross_entropy_block(rows, values, labels, pass, r, std::min(rows_at_once, end - r), streaming, scratch);
  }
  if (streaming) fence();
}

inline void expectation_rows(const Rows& rows, const Values& values, const Expectation& pass, std::int64_t begin,
                             std::int64_t end) noexcept {
  Scratch scratch(rows.bins);
  const std::int64_t vectors = (rows.bins + lanes - 1) / lanes;
  const Transform transform = values.raw ? Transform::linear : values.transform;
  float sums[most_grouped];
  float means[most_grouped];
  Row group[most_grouped];
  for (std::int64_t first = begin; first < end; first += scratch.grouped()) {
    const std::int64_t count = std::min(end - first, scratch.grouped());
    for (std::int64_t g = 0; g < count; ++g) group[g] = load_row(rows, first + g, scratch.z(g));
    for (std::int64_t g = 0; g < count; ++g) {
      sums[g] = exponentials(group[g].z, vectors, group[g].maximum, scratch.e(g));
    }
    for (std::int64_t g = 0; g < count; ++g) means[g] = moment(scratch.e(g), values, rows.bins, vectors) / sums[g];
    for (std::int64_t g = 0; g < count; ++g) {
      const std::int64_t r = first + g;
      const float mean = means[g];
      const Inverse read = inverse(all(mean), transform);
      if (pass.readout != nullptr) pass.readout[r] = read.value[0];
      if (pass.gradient == nullptr) continue;
      const float coefficient = pass.upstream[r] * read.slope[0] / sums[g];
      const float test = coefficient * mean;
      if (test != test) {
        fill_row(rows, r, pass.gradient, test);
        continue;
      }
      const float* e = scratch.e(g);
      write_row(rows, r, pass.gradient, false, [&](std::int64_t v) {
        return load<Lanes>(e + v * lanes) * (load<Lanes>(values.all + v * lanes) - mean) * coefficient;
      });
    }
  }
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
