// The loops of images.h, compiled once for each instruction set: include after defining TWOHOT_CAPABILITY.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "ops/images/images_kernels.h"
#include "ops/simd/vector_math.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

typedef std::uint8_t Bytes __attribute__((vector_size(lanes)));

// As integers(Halves), GCC 12 needs help with these conversions.
inline Integers integers(Bytes bytes) noexcept {
#if defined(__AVX512F__)
  return (Integers)_mm512_maskz_cvtepu8_epi32(0xffff, (__m128i)bytes);
#else
  return __builtin_convertvector(bytes, Integers);
#endif
}

inline Bytes low_bytes(Integers words) noexcept {
#if defined(__AVX512F__)
  return (Bytes)_mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)words);
#else
  return __builtin_convertvector(words, Bytes);
#endif
}

inline void pool_image(const Images& shape, const float* x, float* out, std::uint8_t* argmax,
                       std::int64_t image) noexcept {
  const std::int64_t channels = shape.channels;
  const std::int64_t row = shape.width * channels;
  const std::int64_t rows = pooled(shape.height);
  const std::int64_t columns = pooled(shape.width);
  x += image * shape.height * row;
  std::int64_t to = image * rows * columns * channels;
  for (std::int64_t y = 0; y < rows; ++y) {
    for (std::int64_t column = 0; column < columns; ++column) {
      const float* corner = x + 2 * y * row + 2 * column * channels;
      for (std::int64_t c = 0; c < channels; c += lanes, to += lanes) {
        FloatVector most = load<FloatVector>(corner + c);
        Integers where{};
        for (int k = 1; k < 9; ++k) {
          const FloatVector other = load<FloatVector>(corner + k / 3 * row + k % 3 * channels + c);
          const Integers better = (other > most) | (other != other);
          most = select(better, other, most);
          where = better ? Integers{} + k : where;
        }
        store(out + to, most);
        store(argmax + to, low_bytes(where));
      }
    }
  }
}

// An input pixel belongs to at most four squares.
inline void pool_image_backward(const Images& shape, const float* grad_output, const std::uint8_t* argmax,
                                float* grad_x, std::int64_t image) noexcept {
  const std::int64_t channels = shape.channels;
  const std::int64_t rows = pooled(shape.height);
  const std::int64_t columns = pooled(shape.width);
  grad_output += image * rows * columns * channels;
  argmax += image * rows * columns * channels;
  grad_x += image * shape.height * shape.width * channels;
  for (std::int64_t y = 0; y < shape.height; ++y) {
    for (std::int64_t x = 0; x < shape.width; ++x) {
      for (std::int64_t c = 0; c < channels; c += lanes, grad_x += lanes) {
        FloatVector total{};
        for (std::int64_t i = std::max<std::int64_t>((y - 1) / 2, 0); i <= std::min(y / 2, rows - 1); ++i) {
          for (std::int64_t j = std::max<std::int64_t>((x - 1) / 2, 0); j <= std::min(x / 2, columns - 1); ++j) {
            const std::int64_t from = (i * columns + j) * channels + c;
            const auto mine = static_cast<std::int32_t>(3 * (y - 2 * i) + x - 2 * j);
            const Integers where = integers(load<Bytes>(argmax + from));
            total += select(where == mine, load<FloatVector>(grad_output + from), FloatVector{});
          }
        }
        store(grad_x, total);
      }
    }
  }
}

// Sums over pixels [channels] to sums over groups, which each channel of a group then holds, times `factor`.
inline void over_groups(float* sums, std::int64_t channels, std::int64_t groups, float factor) noexcept {
  const std::int64_t size = channels / groups;
  for (std::int64_t c = 0; c < channels; c += size) {
    float total = 0;
    for (std::int64_t i = 0; i < size; ++i) total += sums[c + i];
    std::fill_n(sums + c, size, total * factor);
  }
}

// Invokes each(i) for the vectors of a channel, pixel by pixel.
template <class Each>
inline void over_pixels(const Images& shape, std::int64_t channel, const Each& each) noexcept {
  const std::int64_t end = shape.height * shape.width * shape.channels;
  for (std::int64_t i = channel; i < end; i += shape.channels) each(i);
}

// The sum of each(i), four at a time so that none waits for the one before.
template <class Each>
inline FloatVector pixel_sum(const Images& shape, std::int64_t channel, const Each& each) noexcept {
  const std::int64_t pixels = shape.height * shape.width;
  const std::int64_t stride = shape.channels;
  FloatVector sums[4] = {};
  std::int64_t p = 0;
  for (; p + 4 <= pixels; p += 4) {
    for (int k = 0; k < 4; ++k) sums[k] += each(channel + (p + k) * stride);
  }
  for (; p < pixels; ++p) sums[0] += each(channel + p * stride);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// One image's statistics, for each channel those of its group.
struct GroupStatistics {
  alignas(64) float mean[max_channels];
  alignas(64) float factor[max_channels];  // one over the standard deviation
};

inline void group_statistics(GroupStatistics& of, const ResidualNorm& norm, const float* image) noexcept {
  const Images& shape = norm.shape;
  const float share = static_cast<float>(norm.groups) / static_cast<float>(shape.height * shape.width * shape.channels);
  for (std::int64_t c = 0; c < shape.channels; c += lanes) {
    store(of.mean + c, pixel_sum(shape, c, [&](std::int64_t i) { return load<FloatVector>(image + i); }));
  }
  over_groups(of.mean, shape.channels, norm.groups, share);
  for (std::int64_t c = 0; c < shape.channels; c += lanes) {
    const FloatVector mean = load<FloatVector>(of.mean + c);
    store(of.factor + c, pixel_sum(shape, c, [&](std::int64_t i) {
            const FloatVector centred = load<FloatVector>(image + i) - mean;
            return centred * centred;
          }));
  }
  over_groups(of.factor, shape.channels, norm.groups, share);
  for (std::int64_t c = 0; c < shape.channels; ++c) of.factor[c] = 1 / std::sqrt(of.factor[c] + norm.epsilon);
}

inline void norm_image(const ResidualNorm& norm, const float* x, const float* residual, float* sum, float* out,
                       std::int64_t image) noexcept {
  const Images& shape = norm.shape;
  const std::int64_t size = shape.height * shape.width * shape.channels;
  const std::int64_t first = image * size;
  sum += first;
  out += first;
  for (std::int64_t i = 0; i < size; i += lanes) {
    store(sum + i, load<FloatVector>(x + first + i) + load<FloatVector>(residual + first + i));
  }
  GroupStatistics s;
  group_statistics(s, norm, sum);
  for (std::int64_t c = 0; c < shape.channels; c += lanes) {
    const FloatVector scale = load<FloatVector>(s.factor + c) * load<FloatVector>(norm.weight + c);
    const FloatVector mean = load<FloatVector>(s.mean + c);
    const FloatVector bias = load<FloatVector>(norm.bias + c);
    over_pixels(shape, c, [&](std::int64_t i) { store(out + i, (load<FloatVector>(sum + i) - mean) * scale + bias); });
  }
}

inline void norm_image_backward(const ResidualNorm& norm, const float* grad_output, const float* sum, float* grad_sum,
                                float* grad_parameters, std::int64_t image) noexcept {
  const Images& shape = norm.shape;
  const std::int64_t first = image * shape.height * shape.width * shape.channels;
  const float share = static_cast<float>(norm.groups) / static_cast<float>(shape.height * shape.width * shape.channels);
  grad_output += first;
  sum += first;
  grad_sum += first;
  GroupStatistics s;
  group_statistics(s, norm, sum);
  alignas(64) float offset[max_channels];
  alignas(64) float along[max_channels];
  for (std::int64_t c = 0; c < shape.channels; c += lanes) {
    const FloatVector mean = load<FloatVector>(s.mean + c);
    const FloatVector total = pixel_sum(shape, c, [&](std::int64_t i) { return load<FloatVector>(grad_output + i); });
    const FloatVector moment = load<FloatVector>(s.factor + c) * pixel_sum(shape, c, [&](std::int64_t i) {
                                 return load<FloatVector>(grad_output + i) * (load<FloatVector>(sum + i) - mean);
                               });
    float* const grad_weight = grad_parameters + c;
    float* const grad_bias = grad_parameters + shape.channels + c;
    store(grad_weight, load<FloatVector>(grad_weight) + moment);
    store(grad_bias, load<FloatVector>(grad_bias) + total);
    store(offset + c, total * load<FloatVector>(norm.weight + c));
    store(along + c, moment * load<FloatVector>(norm.weight + c));
  }
  over_groups(offset, shape.channels, norm.groups, share);
  over_groups(along, shape.channels, norm.groups, share);
  for (std::int64_t c = 0; c < shape.channels; c += lanes) {
    const FloatVector factor = load<FloatVector>(s.factor + c);
    const FloatVector weight = load<FloatVector>(norm.weight + c);
    const FloatVector mean = load<FloatVector>(s.mean + c);
    const FloatVector mean_gradient = load<FloatVector>(offset + c);
    const FloatVector slope = load<FloatVector>(along + c) * factor;
    over_pixels(shape, c, [&](std::int64_t i) {
      const FloatVector centred = load<FloatVector>(sum + i) - mean;
      store(grad_sum + i, (load<FloatVector>(grad_output + i) * weight - mean_gradient - centred * slope) * factor);
    });
  }
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
