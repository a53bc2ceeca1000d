// Vectors of floats and the functions that the loops need, for one instruction set: include after defining
// TWOHOT_CAPABILITY. A vector is written in GCC's and Clang's own notation. NaN stays NaN everywhere.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>

// AVX-512 by its zero-masked intrinsics: GCC 12 warns of uninitialised memory inside of the plain ones.
#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "ops/simd/float.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

#if defined(__AVX512F__) || defined(TWOHOT_EMULATED_TILES)
#define TWOHOT_LANES 16
#elif defined(__AVX__)
#define TWOHOT_LANES 8
#else
#define TWOHOT_LANES 4
#endif
constexpr int lanes = TWOHOT_LANES;

// Those of AVX-512 and of arm64 hold the sums of larger tiles.
#if defined(__ARM_NEON)
constexpr int registers = 32;
#else
constexpr int registers = lanes == 16 ? 32 : 16;
#endif
constexpr int exp_unroll = registers == 32 ? 4 : 2;  // vectors whose exponentials are interleaved, to hide latency

// Whether bfloat16 is multiplied in pairs, by vectors or by tiles.
#if defined(__AVX512BF16__) || defined(TWOHOT_EMULATED_TILES)
constexpr bool multiplies_bfloat16 = true;
#else
constexpr bool multiplies_bfloat16 = false;
#endif

typedef float FloatVector __attribute__((vector_size(lanes * sizeof(float))));
typedef std::int32_t Integers __attribute__((vector_size(lanes * sizeof(std::int32_t))));
typedef std::uint32_t Words __attribute__((vector_size(lanes * sizeof(std::uint32_t))));  // integers that may wrap
typedef std::uint16_t Halves __attribute__((vector_size(lanes * sizeof(std::uint16_t))));

template <class T>
inline T load(const void* from) noexcept {
  T v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(void* to, T v) noexcept {
  std::memcpy(to, &v, sizeof v);
}

// x - 0 is x, so that this is a load; 0 + x, which is 0 for -0, would be an addition.
inline FloatVector splat(float x) noexcept { return x - FloatVector{}; }

// first, first + 1, ...
inline Integers counted(std::int32_t first) noexcept {
  static constexpr std::int32_t from_zero[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load<Integers>(from_zero) + first;
}

inline FloatVector select(Integers condition, FloatVector yes, FloatVector no) noexcept { return condition ? yes : no; }

// The larger, and `second` where either is NaN.
inline FloatVector max(FloatVector first, FloatVector second) noexcept {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(0xffff, first, second);
#elif defined(__AVX__)
  return _mm256_max_ps(first, second);
#elif defined(__SSE2__)
  return _mm_max_ps(first, second);
#else
  return select(first > second, first, second);
#endif
}

inline FloatVector abs(FloatVector x) noexcept { return (FloatVector)((Integers)x & 0x7fffffff); }

// `magnitude` with the sign of `sign`.
inline FloatVector copysign(FloatVector magnitude, FloatVector sign) noexcept {
  return (FloatVector)((Integers)magnitude | ((Integers)sign & std::numeric_limits<std::int32_t>::min()));
}

inline FloatVector reverse(FloatVector v) noexcept {
#if TWOHOT_LANES == 16
  return __builtin_shufflevector(v, v, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
#elif TWOHOT_LANES == 8
  return __builtin_shufflevector(v, v, 7, 6, 5, 4, 3, 2, 1, 0);
#else
  return __builtin_shufflevector(v, v, 3, 2, 1, 0);
#endif
}

// combine() over all lanes, halves against halves.
template <class Combine>
inline float reduce(FloatVector v, Combine combine) noexcept {
  typedef float Four __attribute__((vector_size(16)));
#if TWOHOT_LANES == 16
  typedef float Eight __attribute__((vector_size(32)));
  const Eight eight = combine(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                              __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
#elif TWOHOT_LANES == 8
  const FloatVector eight = v;
#endif
#if TWOHOT_LANES >= 8
  const Four four =
      combine(__builtin_shufflevector(eight, eight, 0, 1, 2, 3), __builtin_shufflevector(eight, eight, 4, 5, 6, 7));
#else
  const Four four = v;
#endif
  const Four two = combine(four, __builtin_shufflevector(four, four, 2, 3, 0, 1));
  return combine(two, __builtin_shufflevector(two, two, 1, 0, 3, 2))[0];
}

inline float sum(FloatVector v) noexcept {
  return reduce(v, [](auto a, auto b) { return a + b; });
}

// The largest that is no NaN, or a NaN.
inline float maximum(FloatVector v) noexcept {
  return reduce(v, [](auto a, auto b) { return a > b ? a : b; });
}

// Adding it to a small number rounds that to an integer, which then stands in the low bits.
constexpr float rounding = 12582912.0f;  // 1.5 x 2^23

// 2^n for the integers that `rounding` left in `rounded`, -126 <= n <= 127.
inline FloatVector power_of_two(FloatVector rounded) noexcept {
  return (FloatVector)(((Integers)rounded - (std::bit_cast<std::int32_t>(rounding) - 127)) << 23);
}

// 2^f for -0.5 <= f <= 0.5 by falling powers of f, to an error of 1.4e-7 before rounding; exactly 1 at 0.
constexpr float exp2_series[] = {1.3264724e-3f, 9.671513e-3f, 5.5507336e-2f, 2.4022242e-1f, 6.93147e-1f, 1.0f};

inline FloatVector exp2_fraction(FloatVector f) noexcept {
  FloatVector p = splat(exp2_series[0]);
  for (int term = 1; term < 6; ++term) p = p * f + exp2_series[term];
  return p;
}

// exp(x) for each x <= 0, to an absolute error of 1.5e-7 and, near 0, 3 ulp; 0 below -86, exactly 1 at 0. Several
// vectors are interleaved to hide the latency of each step.
template <int count>
inline void exp_negative(FloatVector (&x)[count]) noexcept {
  constexpr float log2e = 1.44269504f;
  constexpr float biased = rounding + 127.0f;  // leaves the exponent's bits of a power of two
  FloatVector power[count];
  FloatVector fraction[count];
  FloatVector result[count];
  const auto each = [](auto step) {
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) step(i);
  };
  each([&](int i) { power[i] = x[i] * log2e + biased; });
  each([&](int i) { fraction[i] = power[i] - biased; });
  each([&](int i) { fraction[i] = x[i] * log2e - fraction[i]; });
  each([&](int i) { result[i] = fraction[i] * exp2_series[0] + exp2_series[1]; });
#pragma GCC unroll 8
  for (int term = 2; term < 6; ++term) each([&](int i) { result[i] = result[i] * fraction[i] + exp2_series[term]; });
  each([&](int i) { result[i] *= (FloatVector)((Words)power[i] << 23); });
  each([&](int i) { x[i] = select(x[i] < -86.0f, FloatVector{}, result[i]); });
}

inline FloatVector exp_negative(FloatVector x) noexcept {
  FloatVector one[1] = {x};
  exp_negative(one);
  return one[0];
}

constexpr float coarse_exp2_series[] = {5.500906e-2f, 2.4221097e-1f, 6.932829e-1f, 1.0f};

// 2^x, exactly 1 at 0, to an error of 1.4e-7 of it before rounding; `coarse`, to 1.1e-4, a seventeenth of what rounding
// to bfloat16 may lose. 0 below -150; numbers below 2^-126 may be 0.
template <bool coarse = false>
inline FloatVector exp2(FloatVector x) noexcept {
  const auto series = [](FloatVector f) {
    if constexpr (!coarse) return exp2_fraction(f);
    FloatVector p = splat(coarse_exp2_series[0]);
    for (int term = 1; term < 4; ++term) p = p * f + coarse_exp2_series[term];
    return p;
  };
#if defined(__AVX512F__)
  const FloatVector bounded = max(splat(-200.0f), x);  // NaN stays; infinities have no fraction
  const FloatVector n = _mm512_maskz_roundscale_ps(0xffff, bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return _mm512_maskz_scalef_ps(0xffff, series(bounded - n), n);
#else
  constexpr float biased = rounding + 127.0f;          // leaves the exponent's bits of a power of two
  const FloatVector bounded = max(splat(-127.0f), x);  // whose power is 0
  const FloatVector power = bounded + biased;
  return series(bounded - (power - biased)) * (FloatVector)((Words)power << 23);
#endif
}

// expm1(x) for x >= 0 to 2 ulp; infinity beyond float32.
inline FloatVector expm1_positive(FloatVector x) noexcept {
  const FloatVector rounded = x * 1.44269504f + rounding;
  const FloatVector n = rounded - rounding;
  const FloatVector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  FloatVector p = splat(1.984588e-4f);
  p = p * r + 1.3940654e-3f;
  p = p * r + 8.33339e-3f;
  p = p * r + 4.1666362e-2f;
  p = p * r + 1.6666666e-1f;
  p = p * r + 0.5f;
  const FloatVector small = p * r * r + r;
  // 2^n (expm1(r) + 1) - 1, in halves so that n = 128 passes.
  const FloatVector half = power_of_two(rounded - 1.0f);
  const FloatVector result = 2.0f * (half * small + (half - 0.5f));
  return select(x > 88.72283f, splat(std::numeric_limits<float>::infinity()), result);
}

// log(x) for normal x > 0, to 2 ulp: x = 2^e m with m in [0.707, 1.414], then the series of atanh((m - 1) / (m + 1)).
inline FloatVector log_normal(FloatVector x) noexcept {
  constexpr std::int32_t root_half = 0x3f3504f3;
  const Integers exponent = ((Integers)x - root_half) >> 23;
  const FloatVector m = (FloatVector)((Integers)x - (exponent << 23));
  const FloatVector e = __builtin_convertvector(exponent, FloatVector);
  const FloatVector f = m - 1.0f;
  const FloatVector s = f / (f + 2.0f);
  const FloatVector z = s * s;
  FloatVector p = splat(0.11111111f);
  p = p * z + 0.14285715f;
  p = p * z + 0.2f;
  p = p * z + 0.33333334f;
  // 2 s = f - s f, which leaves the leading term exact.
  const FloatVector log_m = f - s * (f - 2.0f * z * p);
  const FloatVector result = e * 0.693359375f + (log_m - e * 2.12194440e-4f);
  return select(x == x, result, x);
}

// log(1 + x) for x >= 0 to 3 ulp; 88.72 for infinity. What 1 + x loses in rounding is added again.
inline FloatVector log1p_positive(FloatVector x) noexcept {
  const FloatVector finite = select(x > std::numeric_limits<float>::max(), splat(std::numeric_limits<float>::max()), x);
  const FloatVector u = finite + 1.0f;
  return log_normal(u) + (finite - (u - 1.0f)) / u;
}

// erf(x) to an absolute error of 1.5e-7: 1 - 2^(-x S(x)) with a polynomial S.
inline FloatVector erf(FloatVector x) noexcept {
  const FloatVector a = abs(x);
  const FloatVector c = select(a > 4.0f, splat(4.0f), a);
  FloatVector s = splat(4.5358523e-5f);
  s = s * c + -4.4550683e-4f;
  s = s * c + 1.4894385e-3f;
  s = s * c + 7.746356e-4f;
  s = s * c + -2.8253688e-2f;
  s = s * c + 1.4848162e-1f;
  s = s * c + 9.184164e-1f;
  s = s * c + 1.6279086f;
  const FloatVector t = -c * s;
  const FloatVector rounded = t + rounding;
  const FloatVector f = t - (rounded - rounding);
  const FloatVector tail = (FloatVector)((Words)exp2_fraction(f) + ((Words)rounded << 23));
  return select(x == x, copysign(1.0f - tail, x), x);
}

// tanh(x) to 4 ulp.
inline FloatVector tanh(FloatVector x) noexcept {
  const FloatVector a = 2.0f * abs(x);
  const FloatVector e = expm1_positive(select(a > 40.0f, splat(40.0f), a));
  return copysign(e / (e + 2.0f), x);
}

inline FloatVector square_root(FloatVector x) noexcept {
#if defined(__AVX512F__)
  return _mm512_maskz_sqrt_ps(0xffff, x);
#elif defined(__AVX__)
  return _mm256_sqrt_ps(x);
#elif defined(__SSE2__)
  return _mm_sqrt_ps(x);
#elif defined(__ARM_NEON)
  return (FloatVector)vsqrtq_f32((float32x4_t)x);
#else
  for (int l = 0; l < lanes; ++l) x[l] = __builtin_sqrtf(x[l]);
  return x;
#endif
}

// GCC 12 makes five instructions of these conversions for AVX-512.
inline Integers integers(Halves halves) noexcept {
#if defined(__AVX512F__)
  return (Integers)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)halves);
#else
  return __builtin_convertvector(halves, Integers);
#endif
}

inline Halves low_halves(Integers words) noexcept {
#if defined(__AVX512F__)
  return (Halves)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)words);
#else
  return __builtin_convertvector(words, Halves);
#endif
}

// Half-precision numbers as float32; narrow() rounds back, to nearest even.
inline FloatVector widen(const std::uint16_t* from, Float dtype) noexcept {
  if (dtype == Float::bfloat16) return (FloatVector)(integers(load<Halves>(from)) << 16);
#if defined(__AVX512F__)
  return _mm512_maskz_cvtph_ps(0xffff, load<__m256i>(from));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(load<__m128i>(from));
#elif defined(__ARM_NEON)
  return (FloatVector)vcvt_f32_f16(load<float16x4_t>(from));
#else
  const Integers bits = integers(load<Halves>(from));
  const Integers rest = (bits & 0x7fff) << 13;
  // Scaling by 2^112 moves the exponent's bias, and makes subnormal halves normal.
  const FloatVector finite = (FloatVector)rest * 0x1p112f;
  const FloatVector value = select(rest >= 0x0f800000, (FloatVector)(rest | 0x7f800000), finite);  // infinity and NaN
  return (FloatVector)((Integers)value | ((bits & 0x8000) << 16));
#endif
}

// bfloat16's bits of numbers that are no NaN, in the low halves.
inline Integers bfloat16_bits(FloatVector value) noexcept {
  const Integers bits = (Integers)value;
  const Integers nearest = bits + 0x7fff + ((bits >> 16) & 1);
  return (nearest >> 16) & 0xffff;
}

// bfloat16 of any numbers.
inline Halves bfloat16_halves(FloatVector value) noexcept {
#if defined(__AVX512BF16__)
  return (Halves)_mm512_cvtneps_pbh((__m512)value);
#else
  return low_halves(value == value ? bfloat16_bits(value) : Integers{} + 0x7fc0);
#endif
}

inline Integers float16_bits(FloatVector value) noexcept {
  const Integers bits = (Integers)value;
  const Integers sign = (bits >> 16) & 0x8000;
  const Integers magnitude = bits & 0x7fffffff;
  const Integers subnormal = (Integers)((FloatVector)magnitude + 0.5f) - 0x3f000000;  // the addition rounds
  const Integers normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13;
  const Integers finite = magnitude < 0x38800000 ? subnormal : normal;
  return (magnitude >= 0x477ff000 ? Integers{} + 0x7c00 : finite) | sign;  // or rounds to infinity
}

// Two vectors of numbers that are no NaN.
inline void narrow(std::uint16_t* to, FloatVector a, FloatVector b, Float dtype) noexcept {
  if (dtype == Float::float16) {
#if defined(__AVX512F__)
    store(to, _mm512_maskz_cvtps_ph(0xffff, a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    store(to + lanes, _mm512_maskz_cvtps_ph(0xffff, b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
    store(to, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    store(to + lanes, _mm256_cvtps_ph(b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__ARM_NEON)
    store(to, vcvt_f16_f32((float32x4_t)a));
    store(to + lanes, vcvt_f16_f32((float32x4_t)b));
#else
    store(to, low_halves(float16_bits(a)));
    store(to + lanes, low_halves(float16_bits(b)));
#endif
    return;
  }
#if defined(__AVX512BF16__)
  store(to, _mm512_maskz_cvtne2ps_pbh(0xffffffff, b, a));
#else
  const Integers low = bfloat16_bits(a);
  const Integers high = bfloat16_bits(b);
#if defined(__AVX2__) && !defined(__AVX512F__)
  store(to, _mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i)low, (__m256i)high), 0xd8));
#else
  store(to, low_halves(low));
  store(to + lanes, low_halves(high));
#endif
#endif
}

// Vectors of half-precision numbers in one of their own, as two neighbouring vectors of float32. bfloat16 comes in
// pairs: even numbers first, odd numbers second, which costs one instruction a vector.
struct Widened {
  FloatVector first;
  FloatVector second;
};

template <Float dtype>
inline Widened widen_both(const std::uint16_t* from) noexcept {
  if constexpr (dtype == Float::float16) return {widen(from, dtype), widen(from + lanes, dtype)};
  const Integers words = load<Integers>(from);
  return {(FloatVector)(words << 16), (FloatVector)(words & static_cast<std::int32_t>(0xffff0000))};
}

// Where widen_both() of a row puts number k.
template <Float dtype>
constexpr std::int64_t widened_place(std::int64_t k) noexcept {
  const auto in_pair = static_cast<std::uint64_t>(k) % (2 * lanes);  // unsigned, for it is computed for each row
  return dtype == Float::float16 ? k : k - static_cast<std::int64_t>(in_pair - in_pair % 2 * lanes - in_pair / 2);
}

#if defined(__AVX512BW__)
// The first half of what are sixteen bits each, between its second half.
inline Integers interleaved(Integers halves) noexcept {
  static constexpr std::uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                              8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return (Integers)_mm512_maskz_permutexvar_epi16(0xffffffff, load<__m512i>(order), (__m512i)halves);
}
#endif

// Back, for numbers that are no NaN: to nearest even.
template <Float dtype>
inline Integers narrow_both(Widened x) noexcept {
#if defined(__AVX512BF16__)
  if constexpr (dtype == Float::bfloat16) {
    return interleaved((Integers)_mm512_maskz_cvtne2ps_pbh(0xffffffff, x.second, x.first));
  }
#else
  if constexpr (dtype == Float::bfloat16) return bfloat16_bits(x.first) | (bfloat16_bits(x.second) << 16);
#endif
#if defined(__AVX512F__)
  typedef std::int32_t Eight __attribute__((vector_size(32)));
  constexpr int rounding_mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  const auto low = (Eight)_mm512_maskz_cvtps_ph(0xffff, x.first, rounding_mode);
  const auto high = (Eight)_mm512_maskz_cvtps_ph(0xffff, x.second, rounding_mode);
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#else
  std::uint16_t halves[2 * lanes];
  narrow(halves, x.first, x.second, dtype);
  return load<Integers>(halves);
#endif
}

// Writes past the caches, for outputs larger than them; `to` is aligned to the vector. End a run of them with fence().
inline void store_non_temporal(void* to, FloatVector v) noexcept {
#if defined(__AVX512F__)
  _mm512_stream_ps(static_cast<float*>(to), v);
#elif defined(__AVX__)
  _mm256_stream_ps(static_cast<float*>(to), v);
#elif defined(__SSE2__)
  _mm_stream_ps(static_cast<float*>(to), v);
#else
  store(to, v);
#endif
}

inline void fence() noexcept {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
