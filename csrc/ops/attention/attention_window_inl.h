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

#include "core/prefetch.h"
#include "ops/attention/attention_kernels.h"
#include "ops/simd/matmul.h"
#include "ops/simd/transpose.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

constexpr std::int64_t query_tile = 48;  // a multiple of 24
template <bool pairs>
constexpr bool in_tiles = pairs && multiplies_tiles;
// What the numbers of keys that products take together are a multiple of.
template <bool pairs>
constexpr std::int64_t key_step = in_tiles<pairs> ? 2 * tile_side : lanes;
constexpr float log2e = 1.44269504f;

inline std::int64_t row_start(const Heads& heads, std::int64_t b, std::int64_t h, std::int64_t t) noexcept {
  return b * heads.batch_stride + t * heads.step_stride + h * heads.head_stride;
}

// Asks for what is read some rows after row t: rows are far apart, so that the processor does not see where they go on.
[[gnu::always_inline]] inline void prefetch_after(const AttentionWindow& w, const Heads& heads, std::int64_t b,
                                                  std::int64_t h, std::int64_t t) noexcept {
  constexpr std::int64_t ahead = 12;
  if (t + ahead >= w.steps) return;
  prefetch(static_cast<const char*>(heads.data) + row_start(heads, b, h, t + ahead) * bytes_of(w.dtype),
           static_cast<std::size_t>(w.size * bytes_of(w.dtype)));
}

// Row t as float32, rotated where `turned`.
inline void load_row(float* to, const AttentionWindow& w, const Heads& heads, std::int64_t b, std::int64_t h,
                     std::int64_t t, bool turned) noexcept {
  prefetch_after(w, heads, b, h, t);
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
  const bool rotated = turned && w.cosine != nullptr;
  for (std::int64_t r = 0; r < rows; ++r, to += stride) {
    if (t + r >= n) {
      std::fill_n(to, stride, 0.0f);
    } else if (!pairs) {
      load_row(to, w, heads, b, h, t + r, turned);
    } else {
      if (rotated) {
        load_row(row, w, heads, b, h, t + r, true);
        narrow_row(to, 0, row, w.size, Float::bfloat16);
      } else {
        prefetch_after(w, heads, b, h, t + r);
        const auto* halves = static_cast<const std::uint16_t*>(heads.data) + row_start(heads, b, h, t + r);
        for (std::int64_t i = 0; i < w.size; i += lanes) store(to + i / 2, load<Halves>(halves + i));
      }
      std::fill_n(to + depth, stride - depth, 0.0f);
    }
  }
}

// Rows of pairs [rows, stride] as the right side of a product that sums over rows: pairs of rows [rows / 2, size].
inline void right_side(float* to, const float* words, std::int64_t stride, std::int64_t rows,
                       std::int64_t size) noexcept {
  for (std::int64_t r = 0; r < rows; r += 2, to += size) {
    const auto* even = reinterpret_cast<const std::uint16_t*>(words + r * stride);
    const auto* odd = reinterpret_cast<const std::uint16_t*>(words + (r + 1) * stride);
    for (std::int64_t i = 0; i < size; i += lanes) store(to + i, row_pairs(even + i, odd + i));
  }
}

// Words of a row of queries, with zeros up to whole tiles.
template <bool pairs>
inline std::int64_t depth_of(const AttentionWindow& w) noexcept {
  return in_tiles<pairs> ? round_up(w.size / 2, tile_side) : pairs ? w.size / 2 : w.size;
}

// Keys or values of a head, packed in blocks of key_tile steps.
template <bool pairs>
struct Packed {
  std::int64_t block = 0;   // words of a block of `across`
  float* across = nullptr;  // [blocks, words of a row, key_tile]: right side of products that sum over elements
  float* along = nullptr;   // rows of words, or right_side() of pairs: right side of products that sum over steps

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
      const std::int64_t rows = std::min(key_tile, round_up(n - i * key_tile, key_step<pairs>));  // as many as count
      float* const to = !pairs && with_along ? along + i * along_block : words;
      load_words<pairs>(to, stride, w, heads, b, h, i * key_tile, rows, n, turned);
      if (with_across) transpose(across + i * block, key_tile, to, stride, rows, stride);
      if (pairs && with_along) right_side(along + i * along_block, words, stride, rows, w.size);
    }
  }
};

// Which keys of a block some queries see.
struct Sight {
  std::int64_t columns;  // of the block, a multiple of key_step; 0: none
  bool masked;           // whether some query does not see some column
};

template <bool pairs>
inline Sight sight(const AttentionWindow& w, std::int64_t m, std::int64_t k, std::int64_t n) noexcept {
  const std::int64_t last = std::min(m + query_tile, n);
  const std::int64_t end = std::min(k + key_tile, last);
  const bool old = w.window > 0 && end <= m - w.window + 1 && k >= w.sinks;
  if (k >= last || old) return {0, false};
  const bool window_cuts = w.window > 0 && k <= last - 1 - w.window;
  return {round_up(end - k, key_step<pairs>), end - k < key_tile || k + key_tile > m + 1 || window_cuts};
}

// Which of the columns k .. k + lanes - 1 step t sees.
inline Integers seen_by(const AttentionWindow& w, std::int64_t t, std::int64_t k) noexcept {
  const Integers column = counted(static_cast<std::int32_t>(k));
  const std::int32_t step = static_cast<std::int32_t>(t);
  Integers seen = column <= step;
  if (w.window > 0) {
    seen &= (column > step - static_cast<std::int32_t>(w.window)) | (column < static_cast<std::int32_t>(w.sinks));
  }
  return seen;
}

// A vector of numbers as the words of a left side that sums over columns.
template <bool pairs>
inline void put_left(float* row, std::int64_t i, FloatVector x) noexcept {
  if constexpr (pairs) return store(row + i / 2, bfloat16_halves(x));
  store(row + i, x);
}

// The softmax of a tile of queries as far as it has come: totals and sums are relative to 2^reference, beyond which no
// score, in base 2, is by more than `slack`.
struct Softmax {
  FloatVector total[query_tile];
  float reference[query_tile];
};

// Scores of a block of keys [query_tile, key_tile] become weights, as the left side of a product.
template <bool pairs>
inline void weigh(const AttentionWindow& w, Softmax& softmax, float* sums, float* scores, float* weights,
                  std::int64_t m, std::int64_t k, std::int64_t rows, std::int64_t columns, bool masked) noexcept {
  const FloatVector lowest = splat(-std::numeric_limits<float>::infinity());
  const bool capped = w.softcap > 0;
  const float scale = capped ? 1.0f : w.scale * log2e;
  const float left = masked ? 1.0f : scale;  // what the numbers that stand in a row lack
  for (std::int64_t r = 0; r < rows; ++r) {
    float* const row = scores + r * key_tile;
    if (capped) {
      for (std::int64_t i = 0; i < columns; i += lanes) {
        store(row + i, (w.softcap * log2e) * tanh(load<FloatVector>(row + i) * (w.scale / w.softcap)));
      }
    }
    FloatVector highest = lowest;
    for (std::int64_t i = 0; i < columns; i += lanes) {
      FloatVector s = load<FloatVector>(row + i) * scale;
      if (masked) {
        s = select(seen_by(w, m + r, k + i), s, lowest);
        store(row + i, s);
      }
      highest = max(s, highest);
    }
    float& reference = softmax.reference[r];
    if (any_above(highest, reference + slack)) {
      const float now = maximum(highest);
      const FloatVector factor = exp2(splat(reference - now));
      for (std::int64_t i = 0; i < w.size; i += lanes) {
        store(sums + r * w.size + i, load<FloatVector>(sums + r * w.size + i) * factor);
      }
      softmax.total[r] *= factor;
      reference = now;
    }
    const float base = reference < -std::numeric_limits<float>::max() ? 0.0f : reference;
    FloatVector total = softmax.total[r];
    for (std::int64_t i = 0; i < columns; i += lanes) {
      const FloatVector p = exp2<pairs>(load<FloatVector>(row + i) * left - base);
      total += p;
      put_left<pairs>(weights + r * (pairs ? key_tile / 2 : key_tile), i, p);
    }
    softmax.total[r] = total;
  }
}

template <bool pairs>
void forward_pass(const AttentionWindow& w, std::int64_t head, float* scratch) noexcept {
  const std::int64_t b = head / w.heads;
  const std::int64_t h = head % w.heads;
  const std::int64_t n = w.lengths == nullptr ? w.steps : w.lengths[b];
  const std::int64_t depth = depth_of<pairs>(w);
  constexpr std::int64_t per_word = pairs ? 2 : 1;
  alignas(64) float query[query_tile * max_head_size];
  alignas(64) float scores[query_tile * key_tile];
  alignas(64) float rounded[pairs ? query_tile * key_tile / 2 : 1];
  alignas(64) float sums[query_tile * max_head_size + 2 * lanes];
  float* const weights = pairs ? rounded : scores;
  Softmax softmax;
  float* const words = take(scratch, key_tile * w.size);
  const Packed<pairs> keys(w, w.key, b, h, n, true, true, false, words, scratch);
  const Packed<pairs> values(w, w.value, b, h, n, false, false, true, words, scratch);
  for (std::int64_t g = 0; g < w.groups; ++g) {
    const std::int64_t q = h * w.groups + g;
    float* lse = w.lse + (b * w.heads * w.groups + q) * w.steps;
    for (std::int64_t m = 0; m < n; m += query_tile) {
      load_words<pairs>(query, depth, w, w.query, b, q, m, query_tile, n, true);
      std::fill_n(sums, query_tile * w.size, 0.0f);
      std::fill_n(softmax.reference, query_tile, -std::numeric_limits<float>::infinity());
      std::fill_n(softmax.total, query_tile, FloatVector{});
      const std::int64_t rows = std::min(query_tile, n - m);
      for (std::int64_t k = 0; k < n; k += key_tile) {
        const auto [columns, masked] = sight<pairs>(w, m, k, n);
        if (columns == 0) continue;
        product<pairs>(scores, key_tile, rows, columns, {query, depth, 1}, keys.across + k / key_tile * keys.block,
                       key_tile, depth, false);
        weigh<pairs>(w, softmax, sums, scores, weights, m, k, rows, columns, masked);
        product<pairs>(sums, w.size, rows, w.size, {weights, key_tile / per_word, 1},
                       values.along + k / per_word * w.size, w.size, columns / per_word, true);
      }
      for (std::int64_t r = 0; r < rows; ++r) {
        const float total = sum(softmax.total[r]);
        const float share = 1 / total;
        float* row = sums + r * w.size;
        for (std::int64_t i = 0; i < w.size; i += lanes) store(row + i, load<FloatVector>(row + i) * share);
        store_row(w, w.output, b, q, m + r, row, false);
        lse[m + r] = softmax.reference[r] + std::log2(total);
      }
    }
    zero_rows(w, w.output, b, q, n);
    std::fill(lse + n, lse + w.steps, 0.0f);
  }
}

inline void forward_head(const AttentionWindow& w, std::int64_t head, float* scratch) noexcept {
  if (multiplies_bfloat16 && w.dtype == Float::bfloat16) {
    const TileScope tiles;
    return forward_pass<multiplies_bfloat16>(w, head, scratch);
  }
  forward_pass<false>(w, head, scratch);
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY

#include "ops/attention/attention_gradient_inl.h"
