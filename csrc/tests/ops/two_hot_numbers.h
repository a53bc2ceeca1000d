// Checks, number formats and guarded memory for the tests of the two-hot kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>
#include <string>

#include "core/random.h"
#include "ops/two_hot/two_hot.h"
#include "tests/ops/checks.h"

namespace twohot::ops::tests {

inline constexpr double epsilon = 0x1p-23;  // of float32
inline constexpr double infinity = std::numeric_limits<double>::infinity();
inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();
inline constexpr float largest = std::numeric_limits<float>::max();

inline double uniform(RandomStream& random, double low, double high) {
  return low + (high - low) * static_cast<double>(random.next() >> 11) * 0x1p-53;
}

inline double normal(RandomStream& random) {
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

inline Format format(Float dtype) {
  if (dtype == Float::float16) return {10, -14, 15};
  return {dtype == Float::bfloat16 ? 7 : 23, -126, 127};
}

inline const char* name(Float dtype) {
  return dtype == Float::float32 ? "float32" : dtype == Float::bfloat16 ? "bfloat16" : "float16";
}

// The number of `dtype` that is nearest to x, ties to even.
inline double rounded(double x, Float dtype) {
  if (dtype == Float::float32) return static_cast<double>(static_cast<float>(x));
  if (!std::isfinite(x) || x == 0) return x;
  const Format f = format(dtype);
  const double unit = std::ldexp(1.0, std::max(std::ilogb(x), f.least) - f.fraction);
  const double nearest = std::nearbyint(x / unit) * unit;
  return std::fabs(nearest) < std::ldexp(1.0, f.most + 1) ? nearest : std::copysign(infinity, x);
}

inline double decode(std::uint16_t bits, Float dtype) {
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

inline std::uint16_t encode(double x, Float dtype) {
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
inline bool near(double result, double truth, double tolerance, Float dtype = Float::float32) {
  if (std::isnan(truth)) return std::isnan(result);
  if (std::isinf(truth)) return result == truth;
  return result >= rounded(truth - tolerance, dtype) && result <= rounded(truth + tolerance, dtype);
}

// Memory.

// `count` numbers that begin `shift` numbers after a 64-byte boundary, all NaN at first, between guards. Without one
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

}  // namespace twohot::ops::tests
