// The CPU kernels of value classification against double precision, in every form that this machine runs.
//
// Tolerances are what float32 explains. What counts most is where a target lies among the bins: float32 places it only
// to within a fraction of a bin, so the truth is taken at both ends of that interval.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/random.h"
#if defined(__x86_64__) && !defined(TWOHOT_X86)
#define TWOHOT_X86
#endif
#include "ops/two_hot.h"
#include "ops/two_hot_kernels.h"
#define TWOHOT_CAPABILITY test
#include "ops/vector_math.h"

namespace {

using twohot::RandomStream;
using namespace twohot::ops;

constexpr double epsilon = 0x1p-23;  // of float32
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr float largest = std::numeric_limits<float>::max();

int passed = 0;
int failed = 0;
std::string at;  // what is being checked

void check(bool holds, const char* text, int line) {
  ++(holds ? passed : failed);
  static std::map<int, int> shown;
  if (!holds && ++shown[line] <= 3) std::printf("line %d: %s (%s)\n", line, text, at.c_str());
}

#define CHECK(...) check((__VA_ARGS__), #__VA_ARGS__, __LINE__)

double uniform(RandomStream& random, double low, double high) {
  return low + (high - low) * static_cast<double>(random.next() >> 11) * 0x1p-53;
}

double normal(RandomStream& random) {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += uniform(random, 0, 1);
  return sum;
}

// Number formats.

struct Format {
  int fraction;  // stored bits of the fraction
  int least;     // exponents of the normal numbers
  int most;
};

Format format(Float dtype) {
  if (dtype == Float::float16) return {10, -14, 15};
  return {dtype == Float::bfloat16 ? 7 : 23, -126, 127};
}

const char* name(Float dtype) {
  return dtype == Float::float32 ? "float32" : dtype == Float::bfloat16 ? "bfloat16" : "float16";
}

// The number of `dtype` that is nearest to x, ties to even.
double rounded(double x, Float dtype) {
  if (dtype == Float::float32) return static_cast<double>(static_cast<float>(x));
  if (!std::isfinite(x) || x == 0) return x;
  const Format f = format(dtype);
  const double unit = std::ldexp(1.0, std::max(std::ilogb(x), f.least) - f.fraction);
  const double nearest = std::nearbyint(x / unit) * unit;
  return std::fabs(nearest) < std::ldexp(1.0, f.most + 1) ? nearest : std::copysign(infinity, x);
}

double decode(std::uint16_t bits, Float dtype) {
  const Format f = format(dtype);
  const int exponent = (bits & 0x7fff) >> f.fraction;
  const int fraction = bits & ((1 << f.fraction) - 1);
  double magnitude = std::ldexp(fraction, f.least - f.fraction);
  if (exponent == 2 * f.most + 1) {
    magnitude = fraction == 0 ? infinity : nan;
  } else if (exponent > 0) {
    magnitude = std::ldexp(fraction + (1 << f.fraction), exponent - 1 + f.least - f.fraction);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

std::uint16_t encode(double x, Float dtype) {
  const Format f = format(dtype);
  const int sign = std::signbit(x) ? 0x8000 : 0;
  if (std::isnan(x)) return 0x7fff;
  const double magnitude = std::fabs(rounded(x, dtype));
  if (magnitude == 0) return static_cast<std::uint16_t>(sign);
  if (std::isinf(magnitude)) return static_cast<std::uint16_t>(sign | (2 * f.most + 1) << f.fraction);
  const int exponent = std::max(std::ilogb(magnitude), f.least);
  // The leading bit of a normal number adds 1 to the exponent's field.
  const int fraction = static_cast<int>(std::ldexp(magnitude, f.fraction - exponent));
  return static_cast<std::uint16_t>(sign | (((exponent - f.least) << f.fraction) + fraction));
}

// Whether a result is the rounding of something that is at most `tolerance` from the truth.
bool near(double result, double truth, double tolerance, Float dtype = Float::float32) {
  if (std::isnan(truth)) return std::isnan(result);
  if (std::isinf(truth)) return result == truth;
  return result >= rounded(truth - tolerance, dtype) && result <= rounded(truth + tolerance, dtype);
}

// Memory.

// `count` numbers that begin `shift` numbers behind a 64-byte boundary, all NaN at first, between guards. Without one
// at the end the heap block ends with the last number, for AddressSanitizer to see who reads beyond.
class Array {
 public:
  Array(Float dtype, std::int64_t count, std::int64_t shift = 0, bool end_guard = true)
      : dtype_(dtype),
        size_(dtype == Float::float32 ? 4 : 2),
        count_(count),
        begin_(guard + static_cast<std::size_t>(shift) * size_),
        end_(begin_ + static_cast<std::size_t>(count) * size_),
        bytes_(end_ + (end_guard ? guard : 0)),
        memory_(static_cast<unsigned char*>(::operator new(bytes_, alignment))) {
    std::memset(memory_, guard_value, bytes_);
    std::memset(memory_ + begin_, poison, end_ - begin_);
  }
  Array(const Array& other)
      : dtype_(other.dtype_),
        size_(other.size_),
        count_(other.count_),
        begin_(other.begin_),
        end_(other.end_),
        bytes_(other.bytes_),
        memory_(static_cast<unsigned char*>(::operator new(bytes_, alignment))) {
    std::memcpy(memory_, other.memory_, bytes_);
  }
  Array& operator=(const Array&) = delete;
  ~Array() { ::operator delete(memory_, alignment); }

  Float dtype() const { return dtype_; }
  std::int64_t count() const { return count_; }
  void* data() const { return memory_ + begin_; }
  float* floats() const { return reinterpret_cast<float*>(memory_ + begin_); }
  std::uint16_t* halves() const { return reinterpret_cast<std::uint16_t*>(memory_ + begin_); }

  double operator[](std::int64_t i) const {
    return dtype_ == Float::float32 ? static_cast<double>(floats()[i]) : decode(halves()[i], dtype_);
  }

  void set(std::int64_t i, double x) {
    if (dtype_ == Float::float32) {
      floats()[i] = static_cast<float>(x);
    } else {
      halves()[i] = encode(x, dtype_);
    }
  }

  // Whether every byte around the numbers is as it was.
  bool intact() const {
    const auto guards = [](unsigned char byte) { return byte == guard_value; };
    return std::all_of(memory_, memory_ + begin_, guards) && std::all_of(memory_ + end_, memory_ + bytes_, guards);
  }

  // Whether numbers from .. to - 1 are the other's, bit by bit, and the others are as they were at first.
  bool same(const Array& other, std::int64_t from, std::int64_t to) const {
    const std::size_t first = begin_ + static_cast<std::size_t>(from) * size_;
    const std::size_t last = begin_ + static_cast<std::size_t>(to) * size_;
    const auto untouched = [](unsigned char byte) { return byte == poison; };
    return std::memcmp(memory_ + first, other.memory_ + other.begin_ + (first - begin_), last - first) == 0 &&
           std::all_of(memory_ + begin_, memory_ + first, untouched) &&
           std::all_of(memory_ + last, memory_ + end_, untouched);
  }
  bool same(const Array& other) const { return same(other, 0, count_); }
  bool untouched() const { return same(*this, 0, 0); }

 private:
  static constexpr std::size_t guard = 128;
  static constexpr unsigned char guard_value = 0x5a;
  static constexpr unsigned char poison = 0xff;
  static constexpr std::align_val_t alignment{64};

  Float dtype_;
  std::size_t size_;
  std::int64_t count_;
  std::size_t begin_;
  std::size_t end_;
  std::size_t bytes_;
  unsigned char* memory_;
};

// The truth.

double transformed(double y, Transform transform) {
  const double a = std::fabs(y);
  if (transform == Transform::symlog) return std::copysign(std::log1p(a), y);
  if (transform == Transform::signed_sqrt) return std::copysign(std::sqrt(a + 1) - 1 + 1e-3 * a, y);
  return y;
}

double inverse(double x, Transform transform) {
  const double a = std::fabs(x);
  if (transform == Transform::symlog) return std::copysign(std::expm1(a), x);
  if (transform == Transform::signed_sqrt) {
    const double root = (std::sqrt(1 + 4e-3 * (a + 1 + 1e-3)) - 1) / 2e-3;
    return std::copysign(root * root - 1, x);
  }
  return x;
}

// Derivative of inverse().
double slope(double x, Transform transform) {
  if (transform == Transform::symlog) return std::exp(std::fabs(x));
  if (transform == Transform::signed_sqrt) return 1 / (0.5 / std::sqrt(std::fabs(inverse(x, transform)) + 1) + 1e-3);
  return 1;
}

std::vector<double> label_at(double place, std::int64_t bins, double sigma) {
  std::vector<double> label(static_cast<std::size_t>(bins));
  const auto cdf = [&](double edge) { return std::erf((edge - place) / (std::sqrt(2.0) * sigma)); };
  double below = sigma > 0 ? cdf(-0.5) : 0;
  const double total = sigma > 0 ? cdf(static_cast<double>(bins) - 0.5) - below : 0;
  for (std::size_t k = 0; k < label.size(); ++k) {
    const double bin = static_cast<double>(k);
    if (sigma == 0) {
      label[k] = std::max(0.0, 1 - std::fabs(place - bin));
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
        logits(dtype, rows * bins, shift, false),
        target(static_cast<std::size_t>(targets), 0.0f),
        mask(static_cast<std::size_t>(targets), 1),
        weight(static_cast<std::size_t>(rows), 1.0f),
        rows(rows),
        bins(bins) {}

  Rows view(const void* data) const { return {data, logits.dtype(), rows, bins}; }
  Labels labels() const {
    return {target.data(), masked ? mask.data() : nullptr, static_cast<std::int64_t>(target.size()), offset,
            sigma};
  }
  std::size_t target_of(std::int64_t r) const {
    return static_cast<std::size_t>((r + offset) % static_cast<std::int64_t>(target.size()));
  }
  bool counts(std::int64_t r) const { return !masked || mask[target_of(r)] != 0; }

  Support support;
  float sigma;
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

RowTruth truth_of(const Problem& p, std::int64_t r) {
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
  const bool raw = s.raw || s.transform == Transform::linear;
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
  const double upstream = static_cast<double>(p.weight[static_cast<std::size_t>(r)]);
  for (std::size_t k = 0; k < n; ++k) {
    const double apart = value[k] - mean;
    const double relative = common + 6 * epsilon + mean_error;  // of `rate` over the sum
    result.expectation_gradient[k] = {
        upstream * rate * probability[k] * apart,
        std::fabs(upstream) * rate *
            ((error[k] + probability[k] * relative) * std::fabs(apart) +
             probability[k] * (mean_error + epsilon * (std::fabs(value[k]) + std::fabs(mean))))};
  }

  // The loss.
  if (!p.counts(r)) {
    result.readout = {0, 0};
    return result;
  }
  const double weight = p.weighted ? upstream : 1;
  const double coefficient = static_cast<double>(p.scale) * weight;
  const double y = static_cast<double>(p.target[p.target_of(r)]);
  if (std::isnan(y)) {
    result.loss = {nan, 0};
    if (weight != 0) std::fill(result.gradient.begin(), result.gradient.end(), Truth{nan, 0});
    return result;
  }
  const double sigma = static_cast<double>(p.sigma);
  const double last = static_cast<double>(p.bins - 1);
  const double place = (std::clamp(transformed(y, s.transform), s.low, s.high) - s.low) / width;
  // The transform is right to 3 eps, the support's ends, the difference and the product to 1 each.
  const double reach = 6 * epsilon * std::max(std::fabs(s.low), std::fabs(s.high)) / width;
  const std::vector<double> label = label_at(place, p.bins, sigma);
  const std::vector<double> lower = label_at(std::max(0.0, place - reach), p.bins, sigma);
  const std::vector<double> upper = label_at(std::min(last, place + reach), p.bins, sigma);
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
    const auto cdf = [&](double edge) { return std::erf((edge - place) / (std::sqrt(2.0) * sigma)); };
    erf_error = 5 * epsilon / (cdf(last + 0.5) - cdf(-0.5));
  }
  for (std::size_t k = 0; k < n; ++k) {
    const bool inside = std::fabs(static_cast<double>(k) - place) < 6 * sigma + 1.5;
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

// Runs of the kernels.

// Every form that this machine runs, as two_hot.cc chooses among them.
std::vector<const Kernels*> forms() {
  std::vector<const Kernels*> result{&portable_kernels};
#ifdef TWOHOT_X86
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    result.push_back(&avx2_kernels);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq")) {
      result.push_back(&avx512_kernels);
      if (__builtin_cpu_supports("avx512bf16")) result.push_back(&avx512_bf16_kernels);
    }
  }
#endif
  return result;
}

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

CrossEntropy cross_entropy_pass(const Problem& p, const Outputs& out) {
  const float* weight = p.weighted ? p.weight.data() : nullptr;
  return {weight, p.scale, out.loss.floats(), out.readout.floats(), out.gradient.data()};
}

Expectation expectation_pass(const Problem& p, const Outputs& out) {
  return {p.weight.data(), out.readout.floats(), out.gradient.data()};
}

// Every way to ask for one result gives the same bits.
void check_ways(const Kernels& form, const Problem& p, const Values& values, const Outputs& all) {
  const auto run = [&](const Rows& rows, const CrossEntropy& pass, std::int64_t begin, std::int64_t end, bool large) {
    form.cross_entropy(rows, values, p.labels(), pass, begin, end, large);
  };
  const Rows rows = p.view(p.logits.data());
  for (const std::int64_t shift : {0, 1}) {
    Outputs large(p, shift);
    run(rows, cross_entropy_pass(p, large), 0, p.rows, true);
    CHECK(large.same(all) && large.intact());
    Array in_place(p.logits.dtype(), p.rows * p.bins, shift);
    std::memcpy(in_place.data(), p.logits.data(), static_cast<std::size_t>(p.rows * p.bins) *
                                                      (p.logits.dtype() == Float::float32 ? 4 : 2));
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

void check_expectation_ways(const Kernels& form, const Problem& p, const Values& values, const Outputs& all) {
  const Rows rows = p.view(p.logits.data());
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
  const Values values(p.support, p.bins, true);
  const Float dtype = p.logits.dtype();
  for (const Kernels* each : forms()) {
    const Kernels& form = *each;
    // AVX-512's own conversion to bfloat16 takes subnormal numbers for 0.
    const double flushed = dtype == Float::bfloat16 ? 0x1p-126 : 0;
    const Array before(p.logits);
    Outputs classified(p, 1);
    Outputs expected(p, 1);
    const Rows rows = p.view(p.logits.data());
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

// Random problems of every kind.

const char* name(Transform transform) {
  return transform == Transform::linear ? "linear" : transform == Transform::symlog ? "symlog" : "signed_sqrt";
}

Support support_of(Transform transform, bool symmetric, bool raw) {
  if (transform == Transform::linear) return {symmetric ? -10.0 : -3.3, symmetric ? 10.0 : 9.1, transform, raw};
  if (transform == Transform::symlog) return {symmetric ? -20.0 : -2.2, symmetric ? 20.0 : 11.3, transform, raw};
  return {symmetric ? -25.5 : -3.7, symmetric ? 25.5 : 300.0, transform, raw};
}

void fill(Problem& p, RandomStream& random) {
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

void test_against_doubles() {
  RandomStream random(3);
  int number = 0;
  const float sigmas[] = {0.75f, 0.75f, 0.25f, 2, 10, 0.1f, 0.5f};
  for (const std::int64_t bins : {2, 3, 5, 7, 8, 16, 17, 101, 128, 255, 601, 4096}) {
    for (const Transform transform : {Transform::linear, Transform::symlog, Transform::signed_sqrt}) {
      for (const Float dtype : {Float::float32, Float::bfloat16, Float::float16}) {
        for (const int kind : {0, 1, 2, 3}) {
          const bool raw = kind % 2 == 1;
          const float sigma = kind < 2 ? 0 : sigmas[number % 7];
          ++number;
          // 67 rows are one block of 64 and an odd number more.
          const std::int64_t rows = bins < 200 ? 67 : bins < 1000 ? 13 : 3;
          Problem p(dtype, rows, bins, support_of(transform, number % 3 != 0, raw), sigma, number % 4 == 0 ? rows : 23,
                    number % 5 % 2);
          p.offset = number % 2 == 0 ? 0 : 1 + number % 50;
          p.masked = number % 3 != 1;
          p.weighted = number % 5 != 2;
          p.scale = number % 2 == 0 ? 1.0f : 0.3f;
          fill(p, random);
          check_against_truth(p, std::to_string(bins) + " bins, " + name(transform) + ", " + name(dtype) + ", raw " +
                                  std::to_string(raw) + ", sigma " + std::to_string(sigma));
        }
      }
    }
  }
}


// Rows that say something of their own. `bins` centers at -(bins - 1) / 2 ... (bins - 1) / 2, a unit apart.

Problem unit_bins(Float dtype, std::int64_t rows, std::int64_t bins, float sigma = 0) {
  const double end = static_cast<double>(bins - 1) / 2;
  return {dtype, rows, bins, {-end, end, Transform::linear, true}, sigma, rows};
}

float center(const Problem& p, std::int64_t bin) {
  return static_cast<float>(p.support.low + static_cast<double>(bin));
}

// Results of cross_entropy, whose guards are looked at.
Outputs classify(const Kernels& form, const Problem& p) {
  Outputs out(p);
  const Values values(p.support, p.bins, true);
  const CrossEntropy pass = cross_entropy_pass(p, out);
  form.cross_entropy(p.view(p.logits.data()), values, p.labels(), pass, 0, p.rows, false);
  CHECK(out.intact());
  return out;
}

Outputs expect(const Kernels& form, const Problem& p) {
  Outputs out(p);
  const Values values(p.support, p.bins, true);
  form.expectation(p.view(p.logits.data()), values, expectation_pass(p, out), 0, p.rows);
  CHECK(out.intact());
  return out;
}

// How many numbers of a row satisfy `condition`.
template <class Condition>
std::int64_t count_row(const Array& array, std::int64_t r, std::int64_t bins, Condition condition) {
  std::int64_t count = 0;
  for (std::int64_t k = 0; k < bins; ++k) count += condition(array[r * bins + k]);
  return count;
}

const auto is_nan = [](double x) { return std::isnan(x); };
const auto is_zero = [](double x) { return x == 0; };

constexpr Float dtypes[] = {Float::float32, Float::bfloat16, Float::float16};

void test_symmetric_distributions(const Kernels& form) {
  RandomStream random(5);
  for (const Float dtype : dtypes) {
    for (const std::int64_t bins : {2, 3, 8, 17, 33, 255, 600, 4096}) {
      for (const Transform transform : {Transform::linear, Transform::symlog, Transform::signed_sqrt}) {
        for (const bool raw : {false, true}) {
          Problem p(dtype, 3, bins, {-7.7, 7.7, transform, raw}, 0, 1);
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

void test_targets_at_bins(const Kernels& form) {
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
void test_impossible_bins(const Kernels& form, Float dtype, std::int64_t bins, double place, float sigma) {
  Problem p = unit_bins(dtype, bins, bins, sigma);
  std::fill(p.target.begin(), p.target.end(), center(p, 0) + static_cast<float>(place));
  for (std::int64_t i = 0; i < bins * bins; ++i) p.logits.set(i, i % bins == i / bins ? -infinity : 1);
  const Outputs out = classify(form, p);
  const Outputs expected = expect(form, p);
  const std::vector<double> label = label_at(place, bins, static_cast<double>(sigma));
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

void test_impossible_bins(const Kernels& form) {
  for (const Float dtype : dtypes) {
    for (const std::int64_t bins : {16, 37}) {
      for (const double place : {0.0, 8.0, static_cast<double>(bins - 1)}) {
        test_impossible_bins(form, dtype, bins, place, 0);
        test_impossible_bins(form, dtype, bins, place == 8 ? 8.3 : place, 0.75f);
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
void test_nan(const Kernels& form) {
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

void test_enormous_logits(const Kernels& form) {
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
void test_every_half_as_logit(const Kernels& form) {
  constexpr std::int64_t bins = 35;
  for (const Float dtype : {Float::bfloat16, Float::float16}) {
    Problem p(dtype, 1 << 16, bins, {-17, 17, Transform::linear, true}, 0, 1 << 16);
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
void test_rounding_of_gradients(const Kernels& form) {
  RandomStream random(9);
  for (const Float dtype : {Float::bfloat16, Float::float16}) {
    for (const std::int64_t bins : {64, 32, 16, 8, 4, 2}) {
      const double end = static_cast<double>(bins - 1);
      Problem p(dtype, 1500, bins, {-end, end, Transform::linear, true}, 0, 1);
      for (std::int64_t i = 0; i < p.rows * bins; ++i) p.logits.set(i, 0);
      for (float& upstream : p.weight) {
        const double fraction = static_cast<double>(1 + random.below(1 << 12)) * (random.below(2) == 0 ? 1 : -1);
        const int exponent = dtype == Float::float16 ? -38 + static_cast<int>(random.below(46))
                                                     : -120 + static_cast<int>(random.below(234));
        upstream = static_cast<float>(std::ldexp(fraction, exponent));
      }
      const Outputs out = expect(form, p);
      int wrong = 0;
      for (std::int64_t i = 0; i < p.rows * bins; ++i) {
        const double upstream = static_cast<double>(p.weight[static_cast<std::size_t>(i / bins)]);
        const double truth = upstream * static_cast<double>(2 * (i % bins) - (bins - 1)) / static_cast<double>(bins);
        wrong += out.gradient[i] != rounded(truth, dtype);
      }
      CHECK(wrong == 0);
    }
  }
}

void test_special_rows() {
  for (const Kernels* each : forms()) {
    const Kernels& form = *each;
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

// The functions of two_hot.h.

// What capability() says under `wanted`, asked in a child since a process reads the variable once.
bool picks(const char* wanted, const std::string& expected) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    setenv("TWOHOT_CPU_CAPABILITY", wanted, 1);
    _exit(expected == capability() ? 0 : 1);
  }
  int status = 1;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void test_capability() {
  at = "capability";
  for (const Kernels* form : forms()) CHECK(picks(form->name, form->name));
  CHECK(picks("", forms().back()->name));
  CHECK(picks("none such", forms().back()->name));
}

void test_threads() {
  at = "threads";
  RandomStream random(13);
  const Kernels* chosen = nullptr;
  for (const Kernels* form : forms()) {
    if (std::string(capability()) == form->name) chosen = form;
  }
  CHECK(chosen != nullptr);
  if (chosen == nullptr) return;
  // Below and above the number of elements from which threads are woken, and from which the gradient is streamed.
  for (const auto& [rows, bins] : {std::pair<std::int64_t, std::int64_t>{50, 101}, {3001, 128}, {1025, 4096}}) {
    for (const Float dtype : {Float::float32, Float::bfloat16}) {
      Problem p(dtype, rows, bins, support_of(Transform::symlog, true, false), bins == 101 ? 0.75f : 0, 257);
      p.offset = 11;
      p.masked = true;
      p.weighted = true;
      fill(p, random);
      for (std::int64_t i = 0; i < rows * bins && bins == 4096; ++i) p.logits.set(i, p.logits[i % (bins * 7)]);
      const Outputs classified = classify(*chosen, p);
      const Outputs expected = expect(*chosen, p);
      const Rows view = p.view(p.logits.data());
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
  const Support support{-1, 1, Transform::linear, true};
  const float target = 0;
  for (const int threads : {1, 2}) {
    cross_entropy({nullptr, Float::float32, 0, 8}, support, {&target, nullptr, 1, 0, 0}, {}, threads);
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

// The functions of vector_math.h, in the form of this file's own instruction set.

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
    math::Lanes x{};
    for (std::uint64_t l = 0; l < math::lanes; ++l) {
      x[l] = std::bit_cast<float>(static_cast<std::uint32_t>(std::min(bits + l * stride, end)));
    }
    const math::Lanes y = f(x);
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
  const auto exp_negative = [](math::Lanes x) {
    math::Lanes vectors[] = {x};
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

  const auto lane = [](math::Lanes (*f)(math::Lanes), float x) { return f(math::all(x))[math::lanes - 1]; };
  CHECK(lane(exp_negative, 0) == 1 && lane(exp_negative, -0.0f) == 1);
  CHECK(lane(math::expm1_positive, 0) == 0 && lane(math::log_normal, 1) == 0 && lane(math::log1p_positive, 0) == 0);
  CHECK(lane(math::erf, 0) == 0 && lane(math::square_root, 0) == 0);
  CHECK(lane(math::expm1_positive, 88.73f) == endless && lane(math::expm1_positive, endless) == endless);
  CHECK(std::fabs(lane(math::log1p_positive, endless) - 88.72f) < 0.01f);
  for (const std::uint32_t bits : {0x7fc00000u, 0xffc00000u, 0x7fffffffu, 0xffffffffu, 0x7fc00001u, 0x7f800001u}) {
    at = "NaN " + std::to_string(bits);
    const float x = std::bit_cast<float>(bits);
    CHECK(std::isnan(lane(exp_negative, x)));
    CHECK(std::isnan(lane(math::expm1_positive, x)));
    CHECK(std::isnan(lane(math::log_normal, x)));
    CHECK(std::isnan(lane(math::log1p_positive, x)));
    CHECK(std::isnan(lane(math::erf, x)));
    CHECK(std::isnan(lane(math::square_root, x)));
  }
}

void test_lanes() {
  at = "lanes";
  math::Lanes v{};
  for (int l = 0; l < math::lanes; ++l) v[l] = static_cast<float>(l % 2 == 0 ? l + 1 : -l);
  float total = 0;
  const math::Lanes mirror = math::reversed(v);
  const math::Lanes magnitude = math::absolute(v);
  const math::Lanes back = math::with_sign(magnitude, v);
  for (int l = 0; l < math::lanes; ++l) {
    total += v[l];
    CHECK(mirror[l] == v[math::lanes - 1 - l]);
    CHECK(magnitude[l] == std::fabs(v[l]) && back[l] == v[l]);
  }
  CHECK(math::sum(v) == total);
  for (int l = 0; l < math::lanes; ++l) {
    math::Lanes w = v;
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
      const math::Lanes a = math::widen(halves, dtype);
      const math::Lanes b = math::widen(halves + math::lanes, dtype);
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
      const math::Lanes x = math::load<math::Lanes>(numbers.data() + i);
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

int main() {
  test_capability();  // forks, hence before there are threads
  test_functions();
  test_lanes();
  test_halves();
  test_against_doubles();
  test_special_rows();
  test_threads();
  test_nothing_to_do();
  test_sum();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
