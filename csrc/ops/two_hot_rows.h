// The row loops of two_hot.h, compiled once for each instruction set: include after defining TWOHOT_CAPABILITY, the
// namespace that this copy lives in. Plain loops over `lanes` independent sums, which a compiler turns into vectors.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "ops/two_hot.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif
constexpr int chains = 4;  // independent sums, so that no addition waits for the one before it
constexpr std::int64_t most_bins = 4096;

// exp(x) for x <= 0, to 2 ulp; 0 below the smallest normal number. NaN stays NaN. Cody and Waite's reduction, then a
// polynomial of degree 6 on [-ln 2 / 2, ln 2 / 2].
inline float exp_negative(float x) noexcept {
  const float clamped = x < -87.0f ? -87.0f : x;
  constexpr float shift = 12582912.0f;  // 1.5 x 2^23: adding it rounds to the nearest integer
  const float shifted = clamped * 1.44269504f + shift;
  const float n = shifted - shift;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // The integer stands in the low bits of the shifted number; 2^n has it as its exponent.
  const std::int32_t exponent = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(shift) + 127;
  const float power = std::bit_cast<float>(exponent << 23);
  const float result = p * power;
  return x < -87.0f ? 0.0f : result;
}

inline float widen(std::uint16_t half, Float dtype) noexcept {
  if (dtype == Float::bfloat16) return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t rest = static_cast<std::uint32_t>(half & 0x7fffu) << 13;
  // Scaling by 2^112 moves the exponent's bias, and makes subnormal halves normal.
  float value = std::bit_cast<float>(rest) * 0x1p112f;
  if (rest >= 0x0f800000u) value = std::bit_cast<float>(rest | 0x7f800000u);  // infinity and NaN
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
}

inline std::uint16_t narrow_bfloat16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline std::uint16_t narrow_float16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds to infinity
  if (magnitude < 0x38800000u) {  // subnormal: let the addition round
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

// The row as float32: itself, or a copy in `scratch`.
inline const float* load_row(const Rows& rows, std::int64_t r, float* scratch) noexcept {
  if (rows.dtype == Float::float32) return static_cast<const float*>(rows.logits) + r * rows.bins;
  const std::uint16_t* source = static_cast<const std::uint16_t*>(rows.logits) + r * rows.bins;
  if (rows.dtype == Float::bfloat16) {
    for (std::int64_t k = 0; k < rows.bins; ++k) scratch[k] = widen(source[k], Float::bfloat16);
  } else {
    for (std::int64_t k = 0; k < rows.bins; ++k) scratch[k] = widen(source[k], Float::float16);
  }
  return scratch;
}

// One vector register, in GCC's and Clang's own notation: arrays of sums would live in memory, and each addition would
// wait for the store before it.
typedef float Lanes __attribute__((vector_size(lanes * sizeof(float))));

inline void load(Lanes& v, const float* from) noexcept { std::memcpy(&v, from, sizeof v); }

// The largest entry that is no NaN; -inf without one.
inline float row_maximum(const float* z, std::int64_t bins) noexcept {
  float largest = -std::numeric_limits<float>::infinity();
  Lanes best[chains];
  for (Lanes& chain : best) chain = Lanes{} + largest;
  std::int64_t k = 0;
  for (; k + chains * lanes <= bins; k += chains * lanes) {
    for (int c = 0; c < chains; ++c) {
      Lanes v;
      load(v, z + k + c * lanes);
      best[c] = v > best[c] ? v : best[c];
    }
  }
  for (; k < bins; ++k) largest = z[k] > largest ? z[k] : largest;
  best[0] = best[0] > best[1] ? best[0] : best[1];
  best[2] = best[2] > best[3] ? best[2] : best[3];
  best[0] = best[0] > best[2] ? best[0] : best[2];
  for (int l = 0; l < lanes; ++l) largest = best[0][l] > largest ? best[0][l] : largest;
  return largest;
}

inline float sum_chains(const Lanes (&sums)[chains]) noexcept {
  const Lanes v = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  float parts[lanes];
  std::memcpy(parts, &v, sizeof v);
  for (int width = lanes / 2; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) parts[l] += parts[l + width];
  }
  return parts[0];
}

// e[k] = exp(z[k] - maximum); returns their sum, NaN where z holds one.
inline float exponentials(const float* z, std::int64_t bins, float maximum, float* e) noexcept {
  for (std::int64_t k = 0; k < bins; ++k) e[k] = exp_negative(z[k] - maximum);
  Lanes sums[chains] = {};
  float rest = 0;
  std::int64_t k = 0;
  for (; k + chains * lanes <= bins; k += chains * lanes) {
    for (int c = 0; c < chains; ++c) {
      Lanes v;
      load(v, e + k + c * lanes);
      sums[c] += v;
    }
  }
  for (; k < bins; ++k) rest += e[k];
  return sum_chains(sums) + rest;
}

// sum_k a[k] b[k].
inline float dot(const float* a, const float* b, std::int64_t count) noexcept {
  Lanes sums[chains] = {};
  float rest = 0;
  std::int64_t k = 0;
  for (; k + chains * lanes <= count; k += chains * lanes) {
    for (int c = 0; c < chains; ++c) {
      Lanes x;
      Lanes y;
      load(x, a + k + c * lanes);
      load(y, b + k + c * lanes);
      sums[c] += x * y;
    }
  }
  for (; k < count; ++k) rest += a[k] * b[k];
  return sum_chains(sums) + rest;
}

// sum_k e[k] values[k]; overwrites the upper half of e where the values are antisymmetric.
inline float moment(float* e, const float* values, std::int64_t bins, bool antisymmetric) noexcept {
  if (!antisymmetric) return dot(e, values, bins);
  const std::int64_t half = bins / 2;
  float* upper = e + bins - half;
  for (std::int64_t k = 0; k < half; ++k) upper[k] -= e[half - 1 - k];
  return dot(upper, values + bins - half, half);
}

// The two bins around a position and their shares of the mass.
struct Label {
  std::int64_t lower;
  float upper_share;
};

inline Label label_of(float position, std::int64_t bins) noexcept {
  if (!(position >= 0.0f)) return {0, position != position ? position : 0.0f};
  const std::int64_t lower = std::min(static_cast<std::int64_t>(position), bins - 2);
  return {lower, std::min(position - static_cast<float>(lower), 1.0f)};
}

inline void forward_rows(const Rows& rows, const Forward& out, std::int64_t begin, std::int64_t end) noexcept {
  alignas(64) float scratch[most_bins];
  alignas(64) float e[most_bins];
  for (std::int64_t r = begin; r < end; ++r) {
    const std::int64_t t = r % rows.targets;
    if (out.mask != nullptr && out.mask[t] == 0) {
      if (out.loss != nullptr) out.loss[r] = 0;
      if (out.maximum != nullptr) out.maximum[r] = 0;
      if (out.log_sum != nullptr) out.log_sum[r] = 0;
      if (out.readout != nullptr) out.readout[r] = 0;
      continue;
    }
    const float* z = load_row(rows, r, scratch);
    const float maximum = row_maximum(z, rows.bins);
    const float sum = exponentials(z, rows.bins, maximum, e);
    const float log_sum = std::log(sum);
    if (out.loss != nullptr) {
      const Label label = label_of(out.position[t], rows.bins);
      const float share = label.upper_share;
      // A share of 0 keeps an infinite logit out of the loss.
      const float below = share < 1 ? (1 - share) * (z[label.lower] - maximum) : share - share;
      const float above = share > 0 ? share * (z[label.lower + 1] - maximum) : 0.0f;
      out.loss[r] = share != share ? share : log_sum - below - above;
    }
    if (out.maximum != nullptr) out.maximum[r] = maximum;
    if (out.log_sum != nullptr) out.log_sum[r] = log_sum;
    if (out.readout != nullptr) out.readout[r] = moment(e, out.values, rows.bins, out.antisymmetric) / sum;
  }
}

inline void store_row(const float* row, const Rows& rows, std::int64_t r, void* out) noexcept {
  std::uint16_t* target = static_cast<std::uint16_t*>(out) + r * rows.bins;
  if (rows.dtype == Float::bfloat16) {
    for (std::int64_t k = 0; k < rows.bins; ++k) target[k] = narrow_bfloat16(row[k]);
  } else {
    for (std::int64_t k = 0; k < rows.bins; ++k) target[k] = narrow_float16(row[k]);
  }
}

inline void backward_rows(const Rows& rows, const Backward& pass, std::int64_t begin, std::int64_t end) noexcept {
  alignas(64) float scratch[most_bins];
  alignas(64) float buffer[most_bins];
  const bool direct = rows.dtype == Float::float32;
  const std::size_t width = static_cast<std::size_t>(rows.bins) * (direct ? sizeof(float) : sizeof(std::uint16_t));
  for (std::int64_t r = begin; r < end; ++r) {
    const std::int64_t t = r % rows.targets;
    const float g = pass.gradient[r];
    if (g == 0.0f || (pass.mask != nullptr && pass.mask[t] == 0)) {
      std::memset(static_cast<char*>(pass.out) + static_cast<std::size_t>(r) * width, 0, width);
      continue;
    }
    const float* z = load_row(rows, r, scratch);
    float* d = direct ? static_cast<float*>(pass.out) + r * rows.bins : buffer;
    const float top = pass.maximum[r];
    const float scale = g * std::exp(-pass.log_sum[r]);
    for (std::int64_t k = 0; k < rows.bins; ++k) d[k] = scale * exp_negative(z[k] - top);
    const Label label = label_of(pass.position[t], rows.bins);
    d[label.lower] -= g * (1 - label.upper_share);
    d[label.lower + 1] -= g * label.upper_share;
    if (label.upper_share != label.upper_share) std::fill_n(d, rows.bins, label.upper_share);
    if (!direct) store_row(d, rows, r, pass.out);
  }
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
