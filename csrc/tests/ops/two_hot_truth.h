// What the two-hot kernels should give, in double precision, and how far from it float32 may end.
//
// What counts most is where a target lies among the bins: float32 locates it only to within a fraction of a bin, so the
// truth is taken at both ends of that interval.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/ops/two_hot_numbers.h"

namespace twohot::ops::tests {

// The truth.

inline double transformed(double y, Transform transform) {
  const double a = std::fabs(y);
  if (transform == Transform::symlog) return std::copysign(std::log1p(a), y);
  if (transform == Transform::signed_sqrt) return std::copysign(std::sqrt(a + 1) - 1 + 1e-3 * a, y);
  return y;
}

inline double inverse(double x, Transform transform) {
  const double a = std::fabs(x);
  if (transform == Transform::symlog) return std::copysign(std::expm1(a), x);
  if (transform == Transform::signed_sqrt) {
    const double root = (std::sqrt(1 + 4e-3 * (a + 1 + 1e-3)) - 1) / 2e-3;
    return std::copysign(root * root - 1, x);
  }
  return x;
}

// Derivative of inverse().
inline double slope(double x, Transform transform) {
  if (transform == Transform::symlog) return std::exp(std::fabs(x));
  if (transform == Transform::signed_sqrt) return 1 / (0.5 / std::sqrt(std::fabs(inverse(x, transform)) + 1) + 1e-3);
  return 1;
}

inline std::vector<double> label_at(double position, std::int64_t bins, double sigma) {
  std::vector<double> label(static_cast<std::size_t>(bins));
  const auto cdf = [&](double edge) { return std::erf((edge - position) / (std::sqrt(2.0) * sigma)); };
  double below = sigma > 0 ? cdf(-0.5) : 0;
  const double total = sigma > 0 ? cdf(static_cast<double>(bins) - 0.5) - below : 0;
  for (std::size_t k = 0; k < label.size(); ++k) {
    const double bin = static_cast<double>(k);
    if (sigma == 0) {
      label[k] = std::max(0.0, 1 - std::fabs(position - bin));
    } else {
      const double above = cdf(bin + 0.5);
      label[k] = (above - below) / total;
      below = above;
    }
  }
  return label;
}

// A number and how far from it a float32 computation may end.
struct Truth {
  double value;
  double tolerance;
};

struct Problem {
  Problem(Float dtype, std::int64_t rows, std::int64_t bins, const Support& support, float sigma, std::int64_t targets,
          std::int64_t shift = 0)
      : support(support),
        sigma(sigma),
        label_kind(sigma > 0 ? LabelKind::hl_gauss : LabelKind::two_hot),
        logits(dtype, rows * bins, shift, false),
        target(static_cast<std::size_t>(targets), 0.0f),
        mask(static_cast<std::size_t>(targets), 1),
        weight(static_cast<std::size_t>(rows), 1.0f),
        rows(rows),
        bins(bins) {}

  Logits view(const void* data) const { return {data, logits.dtype(), rows, bins}; }
  Labels labels() const {
    return {target.data(), masked ? mask.data() : nullptr, static_cast<std::int64_t>(target.size()), offset, label_kind,
            sigma};
  }
  std::size_t target_of(std::int64_t r) const {
    return static_cast<std::size_t>((r + offset) % static_cast<std::int64_t>(target.size()));
  }
  bool counts(std::int64_t r) const { return !masked || mask[target_of(r)] != 0; }

  Support support;
  float sigma;
  LabelKind label_kind;
  Array logits;
  std::vector<float> target;
  std::vector<std::uint8_t> mask;
  std::vector<float> weight;
  std::int64_t rows;
  std::int64_t bins;
  std::int64_t offset = 0;
  bool masked = false;
  bool weighted = false;
  float scale = 1;
};

struct RowTruth {
  Truth loss;
  Truth readout;
  std::vector<Truth> gradient;
  std::vector<Truth> expectation_gradient;
};

inline RowTruth truth_of(const Problem& p, std::int64_t r) {
  const std::size_t n = static_cast<std::size_t>(p.bins);
  RowTruth result{{0, 0}, {0, 0}, std::vector<Truth>(n), std::vector<Truth>(n)};
  std::vector<double> x(n);  // logits less their maximum
  double maximum = -infinity;
  for (std::size_t k = 0; k < n; ++k) {
    x[k] = p.logits[r * p.bins + static_cast<std::int64_t>(k)];
    maximum = std::max(maximum, x[k]);
  }
  double sum = 0;
  for (double& each : x) sum += std::exp(each -= maximum);
  const double log_sum = std::log(sum);

  // An exponential is right to 3 eps, and to two roundings of its argument: of the difference and of its product with
  // log2(e), whose own error adds some. Below -86 the kernels take 0.
  std::vector<double> probability(n), error(n);
  double common = 2 * epsilon;  // of the sum of exponentials
  for (std::size_t k = 0; k < n; ++k) {
    probability[k] = std::exp(x[k]) / sum;
    error[k] = x[k] < -85 ? probability[k] : probability[k] * epsilon * (3 - 1.2 * x[k]);
    common += error[k];
  }

  // The readout.
  const Support& s = p.support;
  const bool raw = s.readout_kind == ReadoutKind::raw || s.transform == Transform::linear;
  const double width = (s.high - s.low) / static_cast<double>(p.bins - 1);
  std::vector<double> value(n);
  double mean = 0;
  double mean_error = 0;
  for (std::size_t k = 0; k < n; ++k) {
    const double center = s.low + (s.high - s.low) * static_cast<double>(k) / static_cast<double>(p.bins - 1);
    value[k] = raw ? inverse(center, s.transform) : center;
    mean += probability[k] * value[k];
    mean_error += (error[k] + 2 * epsilon * probability[k]) * std::fabs(value[k]);
  }
  mean_error += common * std::fabs(mean);
  const Transform transform = raw ? Transform::linear : s.transform;
  const double rate = slope(mean, transform);
  const double readout = inverse(mean, transform);
  result.readout = {readout, rate * mean_error + 6 * epsilon * (1 + std::fabs(readout))};
  const double grad_output = static_cast<double>(p.weight[static_cast<std::size_t>(r)]);
  for (std::size_t k = 0; k < n; ++k) {
    const double apart = value[k] - mean;
    const double relative = common + 6 * epsilon + mean_error;  // of `rate` over the sum
    result.expectation_gradient[k] = {
        grad_output * rate * probability[k] * apart,
        std::fabs(grad_output) * rate *
            ((error[k] + probability[k] * relative) * std::fabs(apart) +
             probability[k] * (mean_error + epsilon * (std::fabs(value[k]) + std::fabs(mean))))};
  }

  // The loss.
  if (!p.counts(r)) {
    result.readout = {0, 0};
    return result;
  }
  const double weight = p.weighted ? grad_output : 1;
  const double coefficient = static_cast<double>(p.scale) * weight;
  const double y = static_cast<double>(p.target[p.target_of(r)]);
  if (std::isnan(y)) {
    result.loss = {nan, 0};
    if (weight != 0) std::fill(result.gradient.begin(), result.gradient.end(), Truth{nan, 0});
    return result;
  }
  const double sigma = static_cast<double>(p.sigma);
  const double last = static_cast<double>(p.bins - 1);
  double position = (std::clamp(transformed(y, s.transform), s.low, s.high) - s.low) / width;
  // The transform is right to 3 eps, the support's ends, the difference and the product to 1 each.
  double reach = 6 * epsilon * std::max(std::fabs(s.low), std::fabs(s.high)) / width;
  if (p.label_kind == LabelKind::two_hot_raw) {
    const auto value_of = [&](double bin) { return inverse(s.low + bin * width, s.transform); };
    const double bin = std::min(std::floor(position), last - 1);
    const double below = value_of(bin);
    const double above = value_of(bin + 1);
    position = bin + std::clamp((y - below) / (above - below), 0.0, 1.0);
    // A position that falls to the wrong side of a center in transformed space ends at that center; a bin in
    // transformed space stretches by at most 1 + width. Both values, their differences and the position are right to 1
    // eps each.
    const double size = std::max(std::fabs(below), std::fabs(above));
    reach = (1 + width) * reach + epsilon * (4 * size / (above - below) + last);
  }
  const std::vector<double> label = label_at(position, p.bins, sigma);
  const std::vector<double> lower = label_at(std::max(0.0, position - reach), p.bins, sigma);
  const std::vector<double> upper = label_at(std::min(last, position + reach), p.bins, sigma);
  const auto loss_of = [&](const std::vector<double>& of) {
    double loss = 0;
    for (std::size_t k = 0; k < n; ++k) loss += of[k] > 0 ? of[k] * (log_sum - x[k]) : 0;
    return loss;
  };
  const double loss = loss_of(label);
  double loss_error = epsilon * (4 + log_sum + 2 * loss) + common +
                      std::max(std::fabs(loss_of(lower) - loss), std::fabs(loss_of(upper) - loss));
  // Both values of erf that make a label, and their sum, are right to 2.5 eps.
  double erf_error = 0;
  if (sigma > 0) {
    const auto cdf = [&](double edge) { return std::erf((edge - position) / (std::sqrt(2.0) * sigma)); };
    erf_error = 5 * epsilon / (cdf(last + 0.5) - cdf(-0.5));
  }
  for (std::size_t k = 0; k < n; ++k) {
    const bool inside = std::fabs(static_cast<double>(k) - position) < 6 * sigma + 1.5;
    const double label_error = sigma == 0 ? 0 : inside ? erf_error * (1 + label[k]) : label[k];
    if (label_error > 0) loss_error += label_error * -x[k];
    const double moved = std::max(std::fabs(lower[k] - label[k]), std::fabs(upper[k] - label[k]));
    result.gradient[k] = {coefficient * (probability[k] - label[k]),
                          std::fabs(coefficient) * (error[k] + label_error + moved + common * probability[k] +
                                                    2 * epsilon * (probability[k] + label[k]))};
  }
  result.loss = {weight * loss, std::fabs(weight) * loss_error};
  return result;
}

}  // namespace twohot::ops::tests
