// Two vectors of neighbouring numbers of any dtype as float32: include after defining TWOHOT_CAPABILITY.
#pragma once

#include <cstdint>
#include <cstring>

#include "ops/simd/vector_math.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

constexpr std::int64_t two_vectors = 2 * lanes;

// Two vectors of neighbouring numbers.
struct Pair {
  FloatVector first;
  FloatVector second;
};

template <Float dtype>
constexpr std::int64_t bytes = bytes_of(dtype);

template <Float dtype>
inline Pair load_pair(const char* from) noexcept {
  if constexpr (dtype == Float::float32)
    return {load<FloatVector>(from), load<FloatVector>(from + sizeof(FloatVector))};
  const auto* halves = reinterpret_cast<const std::uint16_t*>(from);
  return {widen(halves, dtype), widen(halves + lanes, dtype)};
}

// The first `count` numbers of a pair; the others are 0.
template <Float dtype>
inline Pair load_pair(const char* from, std::int64_t count) noexcept {
  if (count >= two_vectors) return load_pair<dtype>(from);
  char whole[two_vectors * 4] = {};
  std::memcpy(whole, from, static_cast<std::size_t>(count * bytes<dtype>));
  return load_pair<dtype>(whole);
}

template <Float dtype>
inline void store_pair(char* to, Pair x) noexcept {
  if constexpr (dtype == Float::float32) {
    store(to, x.first);
    store(to + sizeof(FloatVector), x.second);
    return;
  }
  auto* halves = reinterpret_cast<std::uint16_t*>(to);
  narrow(halves, x.first, x.second, dtype);
#if !defined(__AVX512BF16__)
  constexpr std::uint16_t nan = dtype == Float::bfloat16 ? 0x7fc0 : 0x7e00;
  for (int l = 0; l < lanes; ++l) {  // narrow() takes none
    if (x.first[l] != x.first[l]) halves[l] = nan;
    if (x.second[l] != x.second[l]) halves[lanes + l] = nan;
  }
#endif
}

template <Float dtype>
inline void store_pair(char* to, Pair x, std::int64_t count) noexcept {
  if (count >= two_vectors) return store_pair<dtype>(to, x);
  char whole[two_vectors * 4];
  store_pair<dtype>(whole, x);
  std::memcpy(to, whole, static_cast<std::size_t>(count * bytes<dtype>));
}

inline Pair operator+(Pair x, Pair y) noexcept { return {x.first + y.first, x.second + y.second}; }
inline Pair operator-(Pair x, Pair y) noexcept { return {x.first - y.first, x.second - y.second}; }
inline Pair operator*(Pair x, Pair y) noexcept { return {x.first * y.first, x.second * y.second}; }
inline Pair operator+(Pair x, float y) noexcept { return {x.first + y, x.second + y}; }
inline Pair operator-(Pair x, float y) noexcept { return {x.first - y, x.second - y}; }
inline Pair operator*(Pair x, float y) noexcept { return {x.first * y, x.second * y}; }

inline float sum(Pair x) noexcept { return sum(x.first + x.second); }

inline Pair leaky(Pair x, float slope) noexcept {
  return {select(x.first > 0.0f, x.first, slope * x.first), select(x.second > 0.0f, x.second, slope * x.second)};
}

// The derivative of leaky() by its output.
inline Pair leaky_backward(Pair g, Pair y, float slope) noexcept {
  return {select(y.first > 0.0f, g.first, slope * g.first), select(y.second > 0.0f, g.second, slope * g.second)};
}

inline const char* floats(const float* from) noexcept { return reinterpret_cast<const char*>(from); }
inline char* floats(float* from) noexcept { return reinterpret_cast<char*>(from); }

}  // namespace twohot::ops::TWOHOT_CAPABILITY
