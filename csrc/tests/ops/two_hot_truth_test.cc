// The CPU kernels of value classification against double precision, in every form that this machine runs.
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "tests/ops/two_hot_runs.h"

namespace twohot::ops::tests {
namespace {

// Every way to ask for one result gives the same bits.
void check_ways(const TwoHotKernels& form, const Problem& p, const BinValues& values, const Outputs& all) {
  const auto run = [&](const Logits& rows, const CrossEntropy& pass, std::int64_t begin, std::int64_t end, bool large) {
    form.cross_entropy(rows, values, p.labels(), pass, begin, end, large);
  };
  const Logits rows = p.view(p.logits.data());
  for (const std::int64_t shift : {0, 1}) {
    Outputs large(p, shift);
    run(rows, cross_entropy_pass(p, large), 0, p.rows, true);
    CHECK(large.same(all) && large.intact());
    Array in_place(p.logits.dtype(), p.rows * p.bins, shift);
    std::memcpy(in_place.data(), p.logits.data(),
                static_cast<std::size_t>(p.rows * p.bins) * (p.logits.dtype() == Float::float32 ? 4 : 2));
    Outputs others(p);
    run(p.view(in_place.data()), {cross_entropy_pass(p, others).weight, p.scale, nullptr, nullptr, in_place.data()}, 0,
        p.rows, shift == 0);
    CHECK(in_place.same(all.gradient) && in_place.intact());
  }
  Outputs part(p);
  const std::int64_t begin = p.rows / 3;
  const std::int64_t end = p.rows - p.rows / 4;
  run(rows, cross_entropy_pass(p, part), begin, end, false);
  CHECK(part.same(all, begin, end, p.bins) && part.intact());
  Outputs one(p);
  CrossEntropy pass = cross_entropy_pass(p, one);
  pass.readout = nullptr;
  pass.gradient = nullptr;
  run(rows, pass, 0, p.rows, false);
  CHECK(one.loss.same(all.loss) && one.readout.untouched() && one.gradient.untouched());
  pass = cross_entropy_pass(p, one);
  pass.loss = nullptr;
  pass.gradient = nullptr;
  run(rows, pass, 0, p.rows, false);
  CHECK(one.readout.same(all.readout) && one.gradient.untouched());
}

void check_expectation_ways(const TwoHotKernels& form, const Problem& p, const BinValues& values, const Outputs& all) {
  const Logits rows = p.view(p.logits.data());
  Array in_place(p.logits);
  form.expectation(p.view(in_place.data()), values, {p.weight.data(), nullptr, in_place.data()}, 0, p.rows);
  CHECK(in_place.same(all.gradient) && in_place.intact());
  Outputs part(p);
  const std::int64_t begin = p.rows / 3;
  const std::int64_t end = p.rows - p.rows / 4;
  const Expectation pass = expectation_pass(p, part);
  form.expectation(rows, values, pass, begin, end);
  CHECK(part.readout.same(all.readout, begin, end) && part.gradient.same(all.gradient, begin * p.bins, end * p.bins));
  CHECK(part.intact());
  Outputs one(p);
  form.expectation(rows, values, {nullptr, one.readout.floats(), nullptr}, 0, p.rows);
  CHECK(one.readout.same(all.readout) && one.gradient.untouched());
}

void check_against_truth(const Problem& p, const std::string& what) {
  std::vector<RowTruth> truth;
  for (std::int64_t r = 0; r < p.rows; ++r) truth.push_back(truth_of(p, r));
  const BinValues values(p.support, p.bins, true, p.label_kind);
  const Float dtype = p.logits.dtype();
  for (const TwoHotKernels* each : forms<TwoHotKernels>()) {
    const TwoHotKernels& form = *each;
    // AVX-512's own conversion to bfloat16 takes subnormal numbers for 0.
    const double flushed = dtype == Float::bfloat16 ? 0x1p-126 : 0;
    const Array before(p.logits);
    Outputs classified(p, 1);
    Outputs expected(p, 1);
    const Logits rows = p.view(p.logits.data());
    form.cross_entropy(rows, values, p.labels(), cross_entropy_pass(p, classified), 0, p.rows, false);
    form.expectation(rows, values, expectation_pass(p, expected), 0, p.rows);
    for (std::int64_t r = 0; r < p.rows; ++r) {
      at = std::string(form.name) + ", " + what + ", row " + std::to_string(r);
      const RowTruth& t = truth[static_cast<std::size_t>(r)];
      CHECK(near(classified.loss[r], t.loss.value, t.loss.tolerance));
      CHECK(near(classified.readout[r], t.readout.value, t.readout.tolerance));
      const bool counts = p.counts(r);
      CHECK(!counts || near(expected.readout[r], t.readout.value, t.readout.tolerance));
      int wrong = 0;
      int expectation_wrong = 0;
      for (std::int64_t k = 0; k < p.bins; ++k) {
        const Truth& g = t.gradient[static_cast<std::size_t>(k)];
        wrong += !near(classified.gradient[r * p.bins + k], g.value, g.tolerance + flushed, dtype);
        const Truth& e = t.expectation_gradient[static_cast<std::size_t>(k)];
        expectation_wrong += counts && !near(expected.gradient[r * p.bins + k], e.value, e.tolerance + flushed, dtype);
      }
      CHECK(wrong == 0);
      CHECK(expectation_wrong == 0);
    }
    at = std::string(form.name) + ", " + what;
    CHECK(classified.intact() && expected.intact() && p.logits.same(before));
    check_ways(form, p, values, classified);
    check_expectation_ways(form, p, values, expected);
  }
}

void test_against_doubles() {
  RandomStream random(3);
  int number = 0;
  const float sigmas[] = {0.75f, 0.75f, 0.25f, 2, 10, 0.1f, 0.5f};
  for (const std::int64_t bins : {2, 3, 5, 7, 8, 16, 17, 101, 128, 255, 601, 4096}) {
    for (const Transform transform : {Transform::linear, Transform::symlog, Transform::signed_sqrt}) {
      for (const Float dtype : {Float::float32, Float::bfloat16, Float::float16}) {
        for (const int kind : {0, 1, 2, 3}) {
          const ReadoutKind readout_kind = kind % 2 == 1 ? ReadoutKind::raw : ReadoutKind::transformed;
          const float sigma = kind < 2 ? 0 : sigmas[number % 7];
          ++number;
          // 67 rows are one block of 64 and an odd number more.
          const std::int64_t rows = bins < 200 ? 67 : bins < 1000 ? 13 : 3;
          Problem p(dtype, rows, bins, support_of(transform, number % 3 != 0, readout_kind), sigma,
                    number % 4 == 0 ? rows : 23, number % 5 % 2);
          p.offset = number % 2 == 0 ? 0 : 1 + number % 50;
          p.masked = number % 3 != 1;
          p.weighted = number % 5 != 2;
          if (kind < 2 && number / 4 % 2 == 1) p.label_kind = LabelKind::two_hot_raw;
          p.scale = number % 2 == 0 ? 1.0f : 0.3f;
          fill(p, random);
          check_against_truth(p, std::to_string(bins) + " bins, " + name(transform) + ", " + name(dtype) + ", " +
                                     name(readout_kind) + ", " + name(p.label_kind) + ", sigma " +
                                     std::to_string(sigma));
        }
      }
    }
  }
}

}  // namespace
}  // namespace twohot::ops::tests

int main() {
  using namespace twohot::ops::tests;
  test_against_doubles();
  return report();
}
