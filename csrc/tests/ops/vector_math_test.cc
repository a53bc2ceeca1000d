// The functions of vector_math.h, in the form of this file's own instruction set.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

#define TWOHOT_CAPABILITY test
#include "ops/simd/vector_math.h"
#include "tests/ops/two_hot_numbers.h"

namespace twohot::ops::tests {
namespace {

namespace math = twohot::ops::test;

struct Errors {
  double absolute = 0;
  double ulp = 0;
};

// Of `f` over every `stride`-th float from `from` to `to`, both of one sign, away from 0.
template <class Function, class Exact>
Errors errors(Function f, Exact exact, float from, float to, std::uint32_t stride = 1009) {
  Errors worst;
  const std::uint64_t end = std::bit_cast<std::uint32_t>(to);
  for (std::uint64_t bits = std::bit_cast<std::uint32_t>(from); bits <= end; bits += math::lanes * stride) {
    math::FloatVector x{};
    for (std::uint64_t l = 0; l < math::lanes; ++l) {
      x[l] = std::bit_cast<float>(static_cast<std::uint32_t>(std::min(bits + l * stride, end)));
    }
    const math::FloatVector y = f(x);
    for (int l = 0; l < math::lanes; ++l) {
      const double truth = exact(static_cast<double>(x[l]));
      const double error = std::fabs(static_cast<double>(y[l]) - truth);
      const double unit = std::ldexp(1.0, std::max(std::ilogb(truth), -126) - 23);
      // Written so that NaN is the worst.
      if (!(error <= worst.absolute)) worst.absolute = error;
      if (!(error <= worst.ulp * unit)) worst.ulp = error / unit;
    }
  }
  return worst;
}

void test_functions() {
  at = "vector math";
  constexpr float endless = std::numeric_limits<float>::infinity();
  const auto zero = [](double) { return 0.0; };
  const auto one = [](double) { return 1.0; };
  const auto exp = [](double x) { return std::exp(x); };
  const auto log = [](double x) { return std::log(x); };
  const auto log1p = [](double x) { return std::log1p(x); };
  const auto erf = [](double x) { return std::erf(x); };
  const auto exp_negative = [](math::FloatVector x) {
    math::FloatVector vectors[] = {x};
    math::exp_negative(vectors);
    return vectors[0];
  };
  // 1.1e-7 of the polynomial's own, and its roundings.
  const auto exp2 = [](double x) { return std::exp2(x); };
  CHECK(errors(math::exp2_fraction, exp2, 0x1p-40f, 0.5f).absolute < 2.3e-7);
  CHECK(errors(math::exp2_fraction, exp2, -0x1p-40f, -0.5f).absolute < 1.4e-7);
  CHECK(errors(exp_negative, exp, -0x1p-40f, -0.25f).ulp < 2.3);
  CHECK(errors(exp_negative, exp, -0.25f, -1).ulp < 2.6);
  CHECK(errors(exp_negative, exp, -0x1p-40f, -4).absolute < 1.4e-7);
  CHECK(errors(exp_negative, exp, -4, -85.99f).absolute < 1e-8);
  CHECK(errors(exp_negative, exp, -4, -85.99f).ulp < 66);
  CHECK(errors(exp_negative, zero, -86.00001f, -endless).absolute == 0);
  // Of its value: 1.4e-7 of the polynomial's, and a rounding of the power; the short one's alone.
  const auto power = [](math::FloatVector x) { return math::exp2(x); };
  const auto coarse = [](math::FloatVector x) { return math::exp2<true>(x); };
  for (const float end : {-125.9f, 127.4f}) {
    CHECK(errors(power, exp2, std::copysign(0x1p-40f, end), end).ulp < 3);
    CHECK(errors(coarse, exp2, std::copysign(0x1p-40f, end), end).ulp < 1.1e-4 * 0x1p24);
  }
  CHECK(errors(power, zero, -151, -endless).absolute == 0);
  CHECK(errors(coarse, zero, -151, -endless).absolute == 0);
  const auto expm1 = [](double x) { return std::expm1(x); };
  CHECK(errors(math::expm1_positive, expm1, 0x1p-126f, 88.72283f).ulp < 2);
  CHECK(errors(math::log_normal, log, 0x1p-126f, 0.99999f).ulp < 2);
  CHECK(errors(math::log_normal, log, 1.00001f, largest).ulp < 2);
  CHECK(errors(math::log1p_positive, log1p, 0x1p-126f, largest).ulp < 3);
  CHECK(errors(math::erf, erf, 0x1p-126f, endless).absolute < 1.5e-7);
  CHECK(errors(math::erf, erf, -0x1p-126f, -endless).absolute < 1.5e-7);
  CHECK(errors(math::erf, one, 4, endless).absolute < 1.6e-8);
  const auto root = [](double x) { return std::sqrt(x); };
  CHECK(errors(math::square_root, root, 0x1p-126f, largest).ulp <= 0.5);

  const auto lane = [](math::FloatVector (*f)(math::FloatVector), float x) {
    return f(math::splat(x))[math::lanes - 1];
  };
  CHECK(lane(exp_negative, 0) == 1 && lane(exp_negative, -0.0f) == 1);
  CHECK(lane(power, 0) == 1 && lane(coarse, 0) == 1 && lane(power, -endless) == 0 && lane(coarse, -endless) == 0);
  CHECK(lane(math::expm1_positive, 0) == 0 && lane(math::log_normal, 1) == 0 && lane(math::log1p_positive, 0) == 0);
  CHECK(lane(math::erf, 0) == 0 && lane(math::square_root, 0) == 0);
  CHECK(lane(math::expm1_positive, 88.73f) == endless && lane(math::expm1_positive, endless) == endless);
  CHECK(std::fabs(lane(math::log1p_positive, endless) - 88.72f) < 0.01f);
  for (const std::uint32_t bits : {0x7fc00000u, 0xffc00000u, 0x7fffffffu, 0xffffffffu, 0x7fc00001u, 0x7f800001u}) {
    at = "NaN " + std::to_string(bits);
    const float x = std::bit_cast<float>(bits);
    CHECK(std::isnan(lane(exp_negative, x)));
    CHECK(std::isnan(lane(power, x)) && std::isnan(lane(coarse, x)));
    CHECK(std::isnan(lane(math::expm1_positive, x)));
    CHECK(std::isnan(lane(math::log_normal, x)));
    CHECK(std::isnan(lane(math::log1p_positive, x)));
    CHECK(std::isnan(lane(math::erf, x)));
    CHECK(std::isnan(lane(math::square_root, x)));
  }
}

void test_lanes() {
  at = "lanes";
  math::FloatVector v{};
  for (int l = 0; l < math::lanes; ++l) v[l] = static_cast<float>(l % 2 == 0 ? l + 1 : -l);
  float total = 0;
  const math::FloatVector mirror = math::reverse(v);
  const math::FloatVector magnitude = math::abs(v);
  const math::FloatVector back = math::copysign(magnitude, v);
  for (int l = 0; l < math::lanes; ++l) {
    total += v[l];
    CHECK(mirror[l] == v[math::lanes - 1 - l]);
    CHECK(magnitude[l] == std::fabs(v[l]) && back[l] == v[l]);
  }
  CHECK(math::sum(v) == total);
  for (int l = 0; l < math::lanes; ++l) {
    math::FloatVector w = v;
    w[l] = 1000;
    CHECK(math::maximum(w) == 1000);
  }
}

void test_halves() {
  for (const Float dtype : {Float::bfloat16, Float::float16}) {
    at = name(dtype);
    int wrong = 0;
    for (int bits = 0; bits < 1 << 16; bits += 2 * math::lanes) {
      std::uint16_t halves[2 * math::lanes];
      for (int l = 0; l < 2 * math::lanes; ++l) halves[l] = static_cast<std::uint16_t>(bits + l);
      const math::FloatVector a = math::widen(halves, dtype);
      const math::FloatVector b = math::widen(halves + math::lanes, dtype);
      std::uint16_t again[2 * math::lanes];
      math::narrow(again, a, b, dtype);
      for (int l = 0; l < 2 * math::lanes; ++l) {
        const double wide = static_cast<double>(l < math::lanes ? a[l] : b[l - math::lanes]);
        const double truth = decode(halves[l], dtype);
        const bool right = wide == truth && std::signbit(wide) == std::signbit(truth) && again[l] == halves[l];
        wrong += std::isnan(truth) ? !std::isnan(wide) : !right;
      }
    }
    CHECK(wrong == 0);
    // Every 1009th float, and both neighbours of each tie.
    std::vector<float> numbers;
    for (std::uint64_t bits = 0; bits <= 0x7f800000u; bits += 1009) {
      numbers.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
    }
    for (int bits = 0; bits + 1 < (dtype == Float::bfloat16 ? 0x7f80 : 0x7c00); ++bits) {
      const double below = decode(static_cast<std::uint16_t>(bits), dtype);
      const float tie = static_cast<float>((below + decode(static_cast<std::uint16_t>(bits + 1), dtype)) / 2);
      numbers.insert(numbers.end(), {tie, std::nextafter(tie, 0.0f), std::nextafter(tie, largest)});
    }
    numbers.resize((numbers.size() + math::lanes - 1) / math::lanes * math::lanes);
    wrong = 0;
    for (std::size_t i = 0; i < numbers.size(); i += math::lanes) {
      const math::FloatVector x = math::load<math::FloatVector>(numbers.data() + i);
      std::uint16_t out[2 * math::lanes];
      math::narrow(out, x, -x, dtype);
      for (std::size_t l = 0; l < math::lanes; ++l) {
        const double truth = rounded(static_cast<double>(numbers[i + l]), dtype);
        wrong += decode(out[l], dtype) != truth || decode(out[math::lanes + l], dtype) != -truth;
      }
    }
    CHECK(wrong == 0);
  }
}

}  // namespace
}  // namespace twohot::ops::tests

int main() {
  using namespace twohot::ops::tests;
  test_functions();
  test_lanes();
  test_halves();
  return report();
}
