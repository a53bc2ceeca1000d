// The functions of two_hot.h: threads, nothing to do, sums.
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/ops/two_hot_runs.h"

namespace twohot::ops::tests {
namespace {

void test_threads() {
  at = "threads";
  RandomStream random(13);
  // Below and above the number of elements from which threads are woken, and from which the gradient is streamed.
  for (const auto& [rows, bins] : {std::pair<std::int64_t, std::int64_t>{50, 101}, {3001, 128}, {1025, 4096}}) {
    for (const Float dtype : {Float::float32, Float::bfloat16}) {
      Problem p(dtype, rows, bins, support_of(Transform::symlog, true, ReadoutKind::transformed),
                bins == 101 ? 0.75f : 0, 257);
      p.offset = 11;
      p.masked = true;
      p.weighted = true;
      fill(p, random);
      for (std::int64_t i = 0; i < rows * bins && bins == 4096; ++i) p.logits.set(i, p.logits[i % (bins * 7)]);
      const Outputs classified = classify(kernels<TwoHotKernels>(), p);
      const Outputs expected = expect(kernels<TwoHotKernels>(), p);
      const Logits view = p.view(p.logits.data());
      const auto run = [&](int threads) {
        Outputs out(p);
        cross_entropy(view, p.support, p.labels(), cross_entropy_pass(p, out), threads);
        const bool same = out.same(classified) && out.intact();
        Outputs other(p);
        expectation(view, p.support, expectation_pass(p, other), threads);
        return same && other.readout.same(expected.readout) && other.gradient.same(expected.gradient) && other.intact();
      };
      for (const int threads : {1, 2, 3}) CHECK(run(threads));
      bool same = false;
      std::thread caller([&] { same = run(2); });
      CHECK(run(3));
      caller.join();
      CHECK(same);
    }
  }
}

void test_nothing_to_do() {
  at = "no rows";
  const Support support{-1, 1, Transform::linear, ReadoutKind::raw};
  const float target = 0;
  for (const int threads : {1, 2}) {
    cross_entropy({nullptr, Float::float32, 0, 8}, support, {&target, nullptr, 1, 0, LabelKind::two_hot, 0}, {},
                  threads);
    expectation({nullptr, Float::float16, 0, 8}, support, {}, threads);
  }
  CHECK(sum(nullptr, 0) == 0);
}

void test_sum() {
  at = "sum";
  std::vector<float> loss;
  double truth = 0;
  for (int rows = 0; rows < 40; ++rows) {
    CHECK(sum(loss.data(), rows) == truth);
    loss.push_back(static_cast<float>(rows % 3 == 0 ? 1 << 28 : 3 * rows + 1));
    truth += static_cast<double>(loss.back());
  }
  RandomStream random(17);
  loss.resize(10007);
  double exact = 0;
  for (float& each : loss) {
    each = static_cast<float>(normal(random));
    exact += static_cast<double>(each);
  }
  const double first = sum(loss.data(), 10007);
  CHECK(std::fabs(first - exact) < 1e-9);
  const std::vector<float> elsewhere(loss);
  CHECK(sum(elsewhere.data(), 10007) == first);
  loss[9000] = static_cast<float>(nan);
  CHECK(std::isnan(sum(loss.data(), 10007)));
}

}  // namespace
}  // namespace twohot::ops::tests

int main() {
  using namespace twohot::ops::tests;
  test_threads();
  test_nothing_to_do();
  test_sum();
  return report();
}
