// Rows that say something of their own, in every form of the kernels that this machine runs.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "tests/ops/two_hot_runs.h"

namespace twohot::ops::tests {
namespace {

void test_symmetric_distributions(const TwoHotKernels& form) {
  RandomStream random(5);
  for (const Float dtype : dtypes) {
    for (const std::int64_t bins : {2, 3, 8, 17, 33, 255, 600, 4096}) {
      for (const Transform transform : {Transform::linear, Transform::symlog, Transform::signed_sqrt}) {
        for (const ReadoutKind readout_kind : {ReadoutKind::transformed, ReadoutKind::raw}) {
          Problem p(dtype, 3, bins, {-7.7, 7.7, transform, readout_kind}, 0, 1);
          for (std::int64_t k = 0; k < (bins + 1) / 2; ++k) {
            const double z[] = {2.5, normal(random), 1000 * normal(random)};
            for (std::int64_t r = 0; r < 3; ++r) {
              p.logits.set(r * bins + k, z[r]);
              p.logits.set(r * bins + bins - 1 - k, z[r]);
            }
          }
          const Outputs out = classify(form, p);
          const Outputs expected = expect(form, p);
          for (std::int64_t r = 0; r < 3; ++r) {
            CHECK(out.readout[r] == 0);
            CHECK(expected.readout[r] == 0);
          }
          // Equal logits: log(bins), whatever the label.
          const double logarithm = std::log(static_cast<double>(bins));
          CHECK(near(out.loss[0], logarithm, 1.5 * epsilon * logarithm));
        }
      }
    }
  }
}

void test_targets_at_bins(const TwoHotKernels& form) {
  for (const Float dtype : dtypes) {
    for (const std::int64_t bins : {2, 5, 16, 101}) {
      Problem p = unit_bins(dtype, bins + 4, bins);
      for (std::int64_t r = 0; r < p.rows; ++r) {
        p.target[static_cast<std::size_t>(r)] = center(p, r);
        for (std::int64_t k = 0; k < bins; ++k) p.logits.set(r * bins + k, k % 2 == 0 ? 0 : 30);
      }
      // The last four lie beyond the ends.
      const std::int64_t bin_of[] = {0, 0, bins - 1, bins - 1};
      p.target[static_cast<std::size_t>(bins)] = center(p, 0) - 0.25f;
      p.target[static_cast<std::size_t>(bins) + 1] = static_cast<float>(-infinity);
      p.target[static_cast<std::size_t>(bins) + 2] = largest;
      p.target[static_cast<std::size_t>(bins) + 3] = static_cast<float>(infinity);
      const Outputs out = classify(form, p);
      const double high = static_cast<double>(bins / 2);
      const double sum = high + static_cast<double>(bins - bins / 2) * std::exp(-30.0);
      for (std::int64_t r = 0; r < p.rows; ++r) {
        const std::int64_t bin = r < bins ? r : bin_of[r - bins];
        CHECK(near(out.loss[r], std::log(sum) + (bin % 2 == 0 ? 30 : 0), 3 * epsilon * (bin % 2 == 0 ? 30 : 4)));
        int wrong = 0;
        for (std::int64_t k = 0; k < bins; ++k) {
          const double probability = (k % 2 == 0 ? std::exp(-30.0) : 1) / sum;
          wrong += !near(out.gradient[r * bins + k], probability - (k == bin), 40 * epsilon * probability, dtype);
        }
        CHECK(wrong == 0);
      }
    }
  }
}

// A logit of -inf: none of its row's business where the label is 0, an infinite loss with a finite gradient elsewhere.
void test_impossible_bins(const TwoHotKernels& form, Float dtype, std::int64_t bins, double position, float sigma) {
  Problem p = unit_bins(dtype, bins, bins, sigma);
  std::fill(p.target.begin(), p.target.end(), center(p, 0) + static_cast<float>(position));
  for (std::int64_t i = 0; i < bins * bins; ++i) p.logits.set(i, i % bins == i / bins ? -infinity : 1);
  const Outputs out = classify(form, p);
  const Outputs expected = expect(form, p);
  const std::vector<double> label = label_at(position, bins, static_cast<double>(sigma));
  for (std::int64_t r = 0; r < p.rows; ++r) {
    const double impossible = label[static_cast<std::size_t>(r)];
    // In between the label is too small for float32 to tell it from 0.
    if (impossible < 1e-10) CHECK(near(out.loss[r], std::log(static_cast<double>(bins - 1)), 25 * epsilon));
    if (impossible > 1e-6) CHECK(out.loss[r] == infinity);
    int wrong = 0;
    for (std::int64_t k = 0; k < bins; ++k) {
      const double truth = (k == r ? 0 : 1 / static_cast<double>(bins - 1)) - label[static_cast<std::size_t>(k)];
      wrong += !near(out.gradient[r * bins + k], truth, 10 * epsilon, dtype);
    }
    CHECK(wrong == 0);
    CHECK(expected.gradient[r * bins + r] == 0 && std::isfinite(expected.readout[r]));
  }
}

void test_impossible_bins(const TwoHotKernels& form) {
  for (const Float dtype : dtypes) {
    for (const std::int64_t bins : {16, 37}) {
      for (const double position : {0.0, 8.0, static_cast<double>(bins - 1)}) {
        test_impossible_bins(form, dtype, bins, position, 0);
        test_impossible_bins(form, dtype, bins, position == 8 ? 8.3 : position, 0.75f);
      }
    }
  }
}

// The NaN of `dtype` whose bits are the top ones of `bits`.
void set_nan(Array& array, std::int64_t i, std::uint32_t bits) {
  if (array.dtype() == Float::float32) {
    std::memcpy(array.floats() + i, &bits, sizeof bits);
  } else {
    array.halves()[i] = static_cast<std::uint16_t>(bits >> 16);
  }
}

// One row of NaN leaves its neighbours alone, wherever in it the NaN is and whatever its payload.
void test_nan(const TwoHotKernels& form) {
  const std::int64_t bins = 37;
  for (const Float dtype : dtypes) {
    for (const float sigma : {0.0f, 0.75f}) {
      for (const std::uint32_t bits : {0x7fc00000u, 0xffc00000u, 0x7fffffffu, 0xffffffffu, 0x7fc00001u, 0x7f810001u}) {
        at = std::string(form.name) + ", " + name(dtype) + ", NaN " + std::to_string(bits);
        Problem p = unit_bins(dtype, 2 * bins, bins, sigma);
        for (std::int64_t i = 0; i < p.rows * bins; ++i) p.logits.set(i, static_cast<double>(i % 5));
        for (std::int64_t k = 0; k < bins; ++k) {
          p.target[static_cast<std::size_t>(2 * k)] = 0.25f;
          p.target[static_cast<std::size_t>(2 * k) + 1] = 0.25f;
          set_nan(p.logits, (2 * k + 1) * bins + k, bits);
        }
        const Outputs out = classify(form, p);
        const Outputs expected = expect(form, p);
        for (std::int64_t r = 0; r < p.rows; ++r) {
          const bool broken = r % 2 == 1;
          CHECK(std::isnan(out.loss[r]) == broken);
          CHECK(std::isnan(out.readout[r]) == broken);
          CHECK(std::isnan(expected.readout[r]) == broken);
          CHECK(count_row(out.gradient, r, bins, is_nan) == (broken ? bins : 0));
          CHECK(count_row(expected.gradient, r, bins, is_nan) == (broken ? bins : 0));
        }
        // A target that is NaN leaves the readout, a weight of 0 the gradient; a mask hides both.
        Problem q = unit_bins(dtype, 4, bins, sigma);
        for (std::int64_t i = 0; i < q.rows * bins; ++i) q.logits.set(i, static_cast<double>(i % 5));
        std::memcpy(&q.target[1], &bits, sizeof bits);
        std::memcpy(&q.target[2], &bits, sizeof bits);
        for (std::int64_t k = 0; k < bins; ++k) set_nan(q.logits, 2 * bins + k, bits);
        set_nan(q.logits, 3 * bins, bits);
        q.mask = {1, 1, 0, 1};
        q.masked = true;
        q.weight[3] = 0;
        q.weighted = true;
        const Outputs special = classify(form, q);
        CHECK(std::isfinite(special.loss[0]) && count_row(special.gradient, 0, bins, is_nan) == 0);
        CHECK(std::isnan(special.loss[1]) && count_row(special.gradient, 1, bins, is_nan) == bins);
        CHECK(std::isfinite(special.readout[1]));
        CHECK(special.loss[2] == 0 && special.readout[2] == 0 && count_row(special.gradient, 2, bins, is_zero) == bins);
        CHECK(count_row(special.gradient, 3, bins, is_zero) == bins);
      }
    }
  }
}

void test_enormous_logits(const TwoHotKernels& form) {
  for (const Float dtype : dtypes) {
    for (const std::int64_t bins : {2, 7, 32, 101}) {
      const double size = rounded(1e4, dtype);
      Problem p = unit_bins(dtype, 3, bins);
      for (std::int64_t k = 0; k < bins; ++k) {
        p.logits.set(k, k == 1 ? size : -size);
        p.logits.set(bins + k, k == 1 ? size : -size);
        p.logits.set(2 * bins + k, k == 1 ? infinity : 0);
      }
      p.target = {center(p, 0), center(p, 1), 0};
      const Outputs out = classify(form, p);
      CHECK(out.loss[0] == 2 * size && out.loss[1] == 0);
      CHECK(out.readout[0] == static_cast<double>(center(p, 1)));
      CHECK(out.gradient[0] == -1 && out.gradient[1] == 1);
      CHECK(count_row(out.gradient, 1, bins, is_zero) == bins);
      CHECK(std::isnan(out.loss[2]));
    }
  }
}

// Every half as a logit, in each place of a row, against closed forms.
void test_every_half_as_logit(const TwoHotKernels& form) {
  constexpr std::int64_t bins = 35;
  for (const Float dtype : {Float::bfloat16, Float::float16}) {
    Problem p(dtype, 1 << 16, bins, {-17, 17, Transform::linear, ReadoutKind::raw}, 0, 1 << 16);
    for (std::int64_t r = 0; r < p.rows; ++r) {
      p.target[static_cast<std::size_t>(r)] = center(p, r % bins);
      for (std::int64_t k = 0; k < bins; ++k) p.logits.set(r * bins + k, 0);
      p.logits.halves()[r * bins + r % bins] = static_cast<std::uint16_t>(r);
    }
    const Outputs out = classify(form, p);
    int wrong = 0;
    for (std::int64_t r = 0; r < p.rows; ++r) {
      const double z = decode(static_cast<std::uint16_t>(r), dtype);
      // log(34 + exp(z)) - z
      double truth = z > 0 ? std::log1p(34 * std::exp(-z)) : std::log(34 + std::exp(z)) - z;
      if (z == infinity) truth = nan;
      wrong += !near(out.loss[r], truth, 6 * epsilon * std::max(1.0, std::fabs(truth)));
    }
    CHECK(wrong == 0);
  }
}

// How a gradient rounds to a half, from products that float32 holds exactly: 64 equal logits over odd integers.
void test_rounding_of_gradients(const TwoHotKernels& form) {
  RandomStream random(9);
  for (const Float dtype : {Float::bfloat16, Float::float16}) {
    for (const std::int64_t bins : {64, 32, 16, 8, 4, 2}) {
      const double end = static_cast<double>(bins - 1);
      Problem p(dtype, 1500, bins, {-end, end, Transform::linear, ReadoutKind::raw}, 0, 1);
      for (std::int64_t i = 0; i < p.rows * bins; ++i) p.logits.set(i, 0);
      for (float& grad_output : p.weight) {
        const double fraction = static_cast<double>(1 + random.below(1 << 12)) * (random.below(2) == 0 ? 1 : -1);
        const int exponent = dtype == Float::float16 ? -38 + static_cast<int>(random.below(46))
                                                     : -120 + static_cast<int>(random.below(234));
        grad_output = static_cast<float>(std::ldexp(fraction, exponent));
      }
      const Outputs out = expect(form, p);
      int wrong = 0;
      for (std::int64_t i = 0; i < p.rows * bins; ++i) {
        const double grad_output = static_cast<double>(p.weight[static_cast<std::size_t>(i / bins)]);
        const double truth = grad_output * static_cast<double>(2 * (i % bins) - (bins - 1)) / static_cast<double>(bins);
        wrong += out.gradient[i] != rounded(truth, dtype);
      }
      CHECK(wrong == 0);
    }
  }
}

void test_special_rows() {
  for (const TwoHotKernels* each : forms<TwoHotKernels>()) {
    const TwoHotKernels& form = *each;
    at = form.name;
    test_symmetric_distributions(form);
    test_targets_at_bins(form);
    test_impossible_bins(form);
    test_enormous_logits(form);
    test_every_half_as_logit(form);
    test_rounding_of_gradients(form);
    test_nan(form);
  }
}

}  // namespace
}  // namespace twohot::ops::tests

int main() {
  using namespace twohot::ops::tests;
  test_special_rows();
  return report();
}
