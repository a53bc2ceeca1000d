// The loops of attention_window.h, compiled once for each instruction set: include after defining TWOHOT_CAPABILITY and
// including attention_decode_inl.h.
//
// A tile of queries goes over blocks of keys: scores, softmax as far as it has come, weights times values. Operands are
// words: float32 numbers, or pairs of bfloat16 along the dimension that is summed over.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "ops/attention/attention_kernels.h"
#include "ops/attention/attention_matmul_inl.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

constexpr std::int64_t query_tile = 48;  // a multiple of 24
constexpr float log2e = 1.44269504f;

inline std::int64_t row_start(const Heads& heads, std::int64_t b, std::int64_t h, std::int64_t t) noexcept {
  return b * heads.batch_stride + t * heads.step_stride + h * heads.head_stride;
}

// Row t as float32, rotated where `turned`.
inline void load_row(float* to, const AttentionWindow& w, const Heads& heads, std::int64_t b, std::int64_t h,
                     std::int64_t t, bool turned) noexcept {
  widen_row(to, heads.data, row_start(heads, b, h, t), w.size, w.dtype);
  if (turned && w.cosine != nullptr) rotate(to, w.cosine + t * (w.size / 2), w.sine + t * (w.size / 2), w.size);
}

inline void store_row(const AttentionWindow& w, const Heads& heads, std::int64_t b, std::int64_t h, std::int64_t t,
                      float* from, bool turned) noexcept {
  if (turned && w.cosine != nullptr) rotate(from, w.cosine + t * (w.size / 2), w.sine + t * (w.size / 2), w.size, -1);
  narrow_row(heads.data, row_start(heads, b, h, t), from, w.size, w.dtype);
}

inline void zero_rows(const AttentionWindow& w, const Heads& heads, std::int64_t b, std::int64_t h,
                      std::int64_t from) noexcept {
  const std::size_t bytes = static_cast<std::size_t>(w.size * bytes_of(w.dtype));
  for (std::int64_t t = from; t < w.steps; ++t) {
    std::memset(static_cast<char*>(heads.data) + row_start(heads, b, h, t) * bytes_of(w.dtype), 0, bytes);
  }
}

// Words [rows, stride] of steps t .. t + rows - 1, zeros from step n on and from `depth` on.
template <bool pairs>
inline void load_words(float* to, std::int64_t stride, const AttentionWindow& w, const Heads& heads, std::int64_t b,
                       std::int64_t h, std::int64_t t, std::int64_t rows, std::int64_t n, bool turned) noexcept {
  float row[max_head_size + 2 * lanes] = {};
  const std::int64_t depth = pairs ? w.size / 2 : w.size;
  for (std::int64_t r = 0; r < rows; ++r, to += stride) {
    if (t + r >= n) {
      std::fill_n(to, stride, 0.0f);
      continue;
    }
    if constexpr (pairs) {
      if (turned && w.cosine != nullptr) {
        load_row(row, w, heads, b, h, t + r, true);
        narrow_row(to, 0, row, w.size, Float::bfloat16);
      } else {
        const auto* halves = static_cast<const std::uint16_t*>(heads.data) + row_start(heads, b, h, t + r);
        std::memcpy(to, halves, static_cast<std::size_t>(w.size) * sizeof(std::uint16_t));
      }
    } else {
      load_row(row, w, heads, b, h, t + r, turned);
      std::copy_n(row, w.size, to);
    }
    std::fill_n(to + depth, stride - depth, 0.0f);
  }
}

// Rows of words [rows, stride] as the right side of a product that sums over rows: [rows, size], or rows in pairs.
template <bool pairs>
inline void right_side(float* to, const float* words, std::int64_t stride, std::int64_t rows,
                       std::int64_t size) noexcept {
  if constexpr (pairs) {
    for (std::int64_t r = 0; r < rows; r += 2, to += size) {
      const auto* even = reinterpret_cast<const std::uint16_t*>(words + r * stride);
      const auto* odd = reinterpret_cast<const std::uint16_t*>(words + (r + 1) * stride);
      for (std::int64_t i = 0; i < size; i += lanes) {
        const Words low = __builtin_convertvector(load<Halves>(even + i), Words);
        const Words high = __builtin_convertvector(load<Halves>(odd + i), Words);
        store(to + i, low | (high << 16));
      }
    }
  } else {
    for (std::int64_t r = 0; r < rows; ++r) std::copy_n(words + r * stride, size, to + r * size);
  }
}

// Keys or values of a head, packed in blocks of key_tile steps.
template <bool pairs>
struct Packed {
  std::int64_t block = 0;   // words of a block of `across`
  float* across = nullptr;  // [blocks, words of a row, key_tile]: right side of products that sum over elements
  float* along = nullptr;   // right_side(): of products that sum over steps

  // `words` has room for a block; the rest is taken of the scratch.
  Packed(const AttentionWindow& w, const Heads& heads, std::int64_t b, std::int64_t h, std::int64_t n, bool turned,
         bool with_across, bool with_along, float* words, float*& scratch) noexcept {
    const std::int64_t stride = round_up(pairs ? w.size / 2 : w.size, lanes);
    const std::int64_t along_block = key_tile / (pairs ? 2 : 1) * w.size;
    const std::int64_t blocks = (n + key_tile - 1) / key_tile;
    block = stride * key_tile;
    if (with_across) across = take(scratch, blocks * block);
    if (with_along) along = take(scratch, blocks * along_block);
    for (std::int64_t i = 0; i < blocks; ++i) {
      const std::int64_t rows = std::min(key_tile, round_up(n - i * key_tile, lanes));  // as many as are multiplied
      load_words<pairs>(words, stride, w, heads, b, h, i * key_tile, rows, n, turned);
      if (with_across) transpose(across + i * block, key_tile, words, stride, rows, stride);
      if (with_along) right_side<pairs>(along + i * along_block, words, stride, rows, w.size);
    }
  }
};

// Which keys of a block some queries see.
struct Sight {
  std::int64_t columns;  // of the block, a multiple of lanes; 0: none
  bool masked;           // whether some query does not see some column
};

inline Sight sight(const AttentionWindow& w, std::int64_t m, std::int64_t k, std::int64_t n) noexcept {
  const std::int64_t last = std::min(m + query_tile, n);
  const std::int64_t end = std::min(k + key_tile, last);
  const bool old = w.window > 0 && end <= m - w.window + 1 && k >= w.sinks;
  if (k >= last || old) return {0, false};
  const bool window_cuts = w.window > 0 && k <= last - 1 - w.window;
  return {round_up(end - k, lanes), end - k < key_tile || k + key_tile > m + 1 || window_cuts};
}

// Which of the columns k .. k + lanes - 1 step t sees.
inline Integers seen_by(const AttentionWindow& w, std::int64_t t, std::int64_t k) noexcept {
  Integers column{};
  for (int l = 0; l < lanes; ++l) column[l] = static_cast<std::int32_t>(k) + l;
  const std::int32_t step = static_cast<std::int32_t>(t);
  Integers seen = column <= step;
  if (w.window > 0) {
    seen &= (column > step - static_cast<std::int32_t>(w.window)) | (column < static_cast<std::int32_t>(w.sinks));
  }
  return seen;
}

// A row of numbers as the words of a left side that sums over columns; `columns` is a multiple of lanes.
template <bool pairs>
inline void left_side(float* to, const float* from, std::int64_t columns) noexcept {
#if defined(__AVX512BF16__)
  if constexpr (pairs) {
    for (std::int64_t i = 0; i < columns; i += lanes) {
      store(to + i / 2, _mm512_cvtneps_pbh((__m512)load<FloatVector>(from + i)));
    }
    return;
  }
#endif
  if (to != from) std::copy_n(from, columns, to);
}

// Rows of numbers [query_tile, key_tile] as words whose pairs are of two rows.
template <bool pairs>
inline void pair_rows(float* to, const float* from) noexcept {
#if defined(__AVX512BF16__)
  if constexpr (pairs) {
    for (std::int64_t r = 0; r < query_tile; r += 2) {
      for (std::int64_t i = 0; i < key_tile; i += lanes) {
        const Halves even = (Halves)_mm512_cvtneps_pbh((__m512)load<FloatVector>(from + r * key_tile + i));
        const Halves odd = (Halves)_mm512_cvtneps_pbh((__m512)load<FloatVector>(from + (r + 1) * key_tile + i));
        const Words high = __builtin_convertvector(odd, Words) << 16;
        store(to + r / 2 * key_tile + i, __builtin_convertvector(even, Words) | high);
      }
    }
  }
#else
  (void)to;
  (void)from;
#endif
}

template <bool pairs>
void forward_pass(const AttentionWindow& w, std::int64_t head, float* scratch) noexcept {
  const std::int64_t b = head / w.heads;
  const std::int64_t h = head % w.heads;
  const std::int64_t n = w.lengths == nullptr ? w.steps : w.lengths[b];
  const std::int64_t depth = pairs ? w.size / 2 : w.size;
  constexpr std::int64_t per_word = pairs ? 2 : 1;
  alignas(64) float query[query_tile * max_head_size];
  alignas(64) float scores[query_tile * key_tile];
  alignas(64) float weights[pairs ? query_tile * key_tile / 2 : 1];
  alignas(64) float sums[query_tile * max_head_size + 2 * lanes];
  float top[query_tile];
  float total[query_tile];
  float* const words = take(scratch, key_tile * w.size);
  const Packed<pairs> keys(w, w.key, b, h, n, true, true, false, words, scratch);
  const Packed<pairs> values(w, w.value, b, h, n, false, false, true, words, scratch);
  for (std::int64_t g = 0; g < w.groups; ++g) {
    const std::int64_t q = h * w.groups + g;
    float* lse = w.lse + (b * w.heads * w.groups + q) * w.steps;
    for (std::int64_t m = 0; m < n; m += query_tile) {
      load_words<pairs>(query, depth, w, w.query, b, q, m, query_tile, n, true);
      std::fill_n(sums, query_tile * w.size, 0.0f);
      std::fill_n(top, query_tile, -std::numeric_limits<float>::infinity());
      std::fill_n(total, query_tile, 0.0f);
      const std::int64_t rows = std::min(query_tile, n - m);
      for (std::int64_t k = 0; k < n; k += key_tile) {
        const auto [columns, masked] = sight(w, m, k, n);
        if (columns == 0) continue;
        product<pairs>(scores, key_tile, rows, columns, {query, depth, 1}, keys.across + k / key_tile * keys.block,
                       key_tile, depth, false);
        for (std::int64_t r = 0; r < rows; ++r) {
          float* row = scores + r * key_tile;
          FloatVector highest = splat(top[r]);
          for (std::int64_t i = 0; i < columns; i += lanes) {
            FloatVector s = load<FloatVector>(row + i) * w.scale;
            if (w.softcap > 0) s = w.softcap * tanh(s / w.softcap);
            if (masked) s = select(seen_by(w, m + r, k + i), s, splat(-std::numeric_limits<float>::infinity()));
            highest = select(s > highest, s, highest);
            store(row + i, s);
          }
          const float now = maximum(highest);
          const float base = std::isinf(now) && now < 0 ? 0.0f : now;
          const float factor = exp_negative(splat(top[r] - base))[0];
          FloatVector more{};
          for (std::int64_t i = 0; i < columns; i += lanes) {
            const FloatVector p = exp_negative(load<FloatVector>(row + i) - base);
            more += p;
            store(row + i, p);
          }
          if (now > top[r]) {
            for (std::int64_t i = 0; i < w.size; i += lanes) {
              store(sums + r * w.size + i, load<FloatVector>(sums + r * w.size + i) * factor);
            }
            total[r] *= factor;
            top[r] = now;
          }
          total[r] += sum(more);
          if constexpr (pairs) left_side<pairs>(weights + r * (key_tile / 2), row, columns);
        }
        const Left left{pairs ? weights : scores, key_tile / per_word, 1};
        product<pairs>(sums, w.size, rows, w.size, left, values.along + k / per_word * w.size, w.size,
                       columns / per_word, true);
      }
      for (std::int64_t r = 0; r < rows; ++r) {
        float* row = sums + r * w.size;
        for (std::int64_t i = 0; i < w.size; i += lanes) store(row + i, load<FloatVector>(row + i) / total[r]);
        store_row(w, w.output, b, q, m + r, row, false);
        lse[m + r] = top[r] * log2e + std::log2(total[r]);
      }
    }
    zero_rows(w, w.output, b, q, n);
    std::fill(lse + n, lse + w.steps, 0.0f);
  }
}

inline void forward_head(const AttentionWindow& w, std::int64_t head, float* scratch) noexcept {
  if (multiplies_bfloat16 && w.dtype == Float::bfloat16) return forward_pass<multiplies_bfloat16>(w, head, scratch);
  forward_pass<false>(w, head, scratch);
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY

#include "ops/attention/attention_gradient_inl.h"
