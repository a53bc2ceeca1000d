// The two-hot kernels against double precision, for sanitizers to watch.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <vector>

#include "core/random.h"
#include "ops/two_hot.h"

namespace {

using twohot::RandomStream;
using namespace twohot::ops;

int passed = 0;
int failed = 0;

void check(bool condition, const char* what, int line) {
  condition ? ++passed : ++failed;
  if (!condition) std::printf("line %d: %s\n", line, what);
}

#define CHECK(condition) check((condition), #condition, __LINE__)

float uniform(RandomStream& random) { return static_cast<float>(random.next() >> 40) * 0x1p-24f; }

std::uint16_t bfloat16(float value) { return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16); }

struct Case {
  std::int64_t rows;
  std::int64_t bins;
  std::int64_t targets;
  int threads;
};

void compare(const Case& c, Float dtype) {
  RandomStream random(7);
  const auto count = static_cast<std::size_t>(c.rows * c.bins);
  std::vector<float> logits(count);
  std::vector<std::uint16_t> halves(count);
  for (std::size_t i = 0; i < count; ++i) {
    halves[i] = bfloat16(10 * uniform(random) - 5);
    logits[i] = std::bit_cast<float>(static_cast<std::uint32_t>(halves[i]) << 16);
  }
  const auto n = static_cast<std::size_t>(c.rows);
  std::vector<float> position(static_cast<std::size_t>(c.targets)), values(static_cast<std::size_t>(c.bins));
  std::vector<float> loss(n), maximum(n), log_sum(n), readout(n), gradient(n, 2.0f), out(count);
  std::vector<std::uint16_t> half_out(count);
  std::vector<std::uint8_t> mask(position.size());
  for (std::size_t t = 0; t < position.size(); ++t) {
    position[t] = uniform(random) * static_cast<float>(c.bins - 1);
    mask[t] = t % 3 != 1;
  }
  position[0] = static_cast<float>(c.bins - 1);
  for (std::size_t k = 0; k < values.size(); ++k) {
    values[k] = static_cast<float>(k) - 0.5f * static_cast<float>(c.bins - 1);
  }
  const void* data = dtype == Float::float32 ? static_cast<const void*>(logits.data()) : halves.data();
  void* target = dtype == Float::float32 ? static_cast<void*>(out.data()) : half_out.data();
  const Rows rows{data, dtype, c.rows, c.bins, c.targets};
  two_hot_forward(rows,
                  {position.data(), mask.data(), values.data(), true, loss.data(), maximum.data(), log_sum.data(),
                   readout.data()},
                  c.threads);
  two_hot_backward(rows, {position.data(), mask.data(), maximum.data(), log_sum.data(), gradient.data(), target},
                   c.threads);
  double worst = 0;
  for (std::int64_t r = 0; r < c.rows; ++r) {
    const auto row = static_cast<std::size_t>(r);
    const auto t = static_cast<std::size_t>(r % c.targets);
    const float* z = logits.data() + r * c.bins;
    double sum = 0;
    double mean = 0;
    for (std::int64_t k = 0; k < c.bins; ++k) {
      sum += std::exp(static_cast<double>(z[k]));
      mean += std::exp(static_cast<double>(z[k])) * static_cast<double>(values[static_cast<std::size_t>(k)]);
    }
    const auto lower = std::min(static_cast<std::int64_t>(position[t]), c.bins - 2);
    const double share = static_cast<double>(position[t]) - static_cast<double>(lower);
    const double expected = std::log(sum) - (1 - share) * static_cast<double>(z[lower]) -
                            share * static_cast<double>(z[lower + 1]);
    worst = std::max(worst, std::fabs(static_cast<double>(loss[row]) - (mask[t] != 0 ? expected : 0)));
    worst = std::max(worst, std::fabs(static_cast<double>(readout[row]) - (mask[t] != 0 ? mean / sum : 0)) /
                                static_cast<double>(c.bins));
    if (dtype != Float::float32) continue;
    for (std::int64_t k = 0; k < c.bins; ++k) {
      const double label = k == lower ? 1 - share : k == lower + 1 ? share : 0;
      const double d = 2 * (std::exp(static_cast<double>(z[k])) / sum - label);
      worst = std::max(worst, std::fabs(static_cast<double>(out[static_cast<std::size_t>(r * c.bins + k)]) -
                                        (mask[t] != 0 ? d : 0)));
    }
  }
  CHECK(worst < 1e-5);
}

void test_against_doubles() {
  for (const std::int64_t bins : {2, 3, 16, 17, 64, 65, 128, 255, 4096}) {
    compare({12, bins, 4, 1}, Float::float32);
    compare({12, bins, 12, 1}, Float::bfloat16);
  }
  compare({5000, 128, 2500, 2}, Float::float32);
  compare({5000, 128, 5000, 3}, Float::bfloat16);
}

void test_numbers_out_of_range() {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> logits{1e4f, -1e4f, 0, 0, nan, 0, 0, 0, -infinity, 0, 0, 0, 0, 0, 0, 0, infinity, 0, 0, 0};
  const std::vector<float> position{0, 1, 2.5f, nan, 3};
  std::vector<float> loss(5), maximum(5), log_sum(5), gradient(5, 1), out(20);
  const Rows rows{logits.data(), Float::float32, 5, 4, 5};
  two_hot_forward(rows, {position.data(), nullptr, nullptr, false, loss.data(), maximum.data(), log_sum.data(), nullptr},
                  1);
  two_hot_backward(rows, {position.data(), nullptr, maximum.data(), log_sum.data(), gradient.data(), out.data()}, 1);
  CHECK(loss[0] == 0);
  CHECK(std::isnan(loss[1]));
  CHECK(std::fabs(loss[2] - std::log(3.0f)) < 1e-6f);
  CHECK(std::isnan(loss[3]) && std::isnan(out[12]) && std::isnan(out[15]));
  CHECK(!std::isfinite(loss[4]));
  CHECK(out[8] == 0);
}

void test_nothing_to_do() {
  two_hot_forward({nullptr, Float::float32, 0, 8, 1}, {}, 2);
  two_hot_backward({nullptr, Float::float32, 0, 8, 1}, {}, 2);
  CHECK(capability() != nullptr);
}

}  // namespace

int main() {
  test_against_doubles();
  test_numbers_out_of_range();
  test_nothing_to_do();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
