// The gradients of attention_window.h, as attention_window_inl.h, which includes this.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace twohot::ops::TWOHOT_CAPABILITY {

// Words of depth of products that sum over queries, with zeros up to whole tiles.
template <bool pairs>
constexpr std::int64_t query_words =
    in_tiles<pairs> ? round_up(query_tile, 2 * tile_side) / 2 : query_tile / (pairs ? 2 : 1);

// Where the weights P and the gradients dS of a tile's scores go: dS [query_tile, key_tile] as the left side of a
// product that sums over keys; and both as that of products that sum over queries, pairs being of two of these: words
// [query_words, key_tile], or tiles [query_words / 16, key_tile, 16].
struct ScoreGradients {
  float* along;
  float* weights;
  float* gradients;
};

// Of a tile of queries and a block of keys: P = exp(S - lse), dS = P (dP - delta) cap', for S and dP in the products
// `scores` and `gradients`, where tiles leave the rows of P and dS. What products of 24 columns go over beyond
// `columns`, and of a row beyond the last, is 0.
template <bool pairs>
inline void score_gradients(const AttentionWindow& w, float* scores, float* gradients, const ScoreGradients& to,
                            const float* lse, const float* delta, std::int64_t m, std::int64_t k, std::int64_t rows,
                            std::int64_t columns, bool masked) noexcept {
  const float scale = w.scale * log2e;
  struct Entries {
    FloatVector p;
    FloatVector d;
  };
  const auto entries = [&](std::int64_t r, std::int64_t i) {
    FloatVector s = load<FloatVector>(scores + r * key_tile + i);
    FloatVector d = load<FloatVector>(gradients + r * key_tile + i) - delta[r];
    if (w.softcap > 0) {
      const FloatVector t = tanh(s * (w.scale / w.softcap));
      s = (w.softcap * log2e) * t;
      d *= 1.0f - t * t;
    } else {
      s *= scale;
    }
    FloatVector p = exp2<pairs>(s - lse[r]);
    d *= p;
    if (masked) {
      const Integers seen = seen_by(w, m + r, k + i);
      p = select(seen, p, FloatVector{});
      d = select(seen, d, FloatVector{});
    }
    return Entries{p, d};
  };
  const std::int64_t filled = round_up(columns, 24);
  if constexpr (in_tiles<pairs>) {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t i = 0; i < columns; i += lanes) {
        const Entries one = entries(r, i);
        store(scores + r * key_tile + i / 2, bfloat16_halves(one.p));
        store(gradients + r * key_tile + i / 2, bfloat16_halves(one.d));
      }
    }
    // After an odd last row stands that of a query of zeros, whose products are zeros.
    for (const auto& [from, left] : {std::pair{scores, to.weights}, std::pair{gradients, to.gradients}}) {
      for (std::int64_t r = 0; r < rows; r += 2 * tile_side) {
        const auto* halves = reinterpret_cast<const std::uint16_t*>(from + r * key_tile);
        for (std::int64_t i = 0; i < columns; i += tile_side) {
          transpose_pairs(left + r / 2 * key_tile + i * tile_side, tile_side, halves + i, 2 * key_tile, rows - r);
        }
      }
    }
    return;
  }
  for (std::int64_t r = 0; r < rows; r += pairs ? 2 : 1) {
    float* const p_row = to.weights + r / (pairs ? 2 : 1) * key_tile;
    float* const d_row = to.gradients + r / (pairs ? 2 : 1) * key_tile;
    for (std::int64_t i = 0; i < columns; i += lanes) {
#if defined(__AVX512BF16__)
      if constexpr (pairs) {
        const Entries even = entries(r, i);
        const Entries odd = r + 1 < rows ? entries(r + 1, i) : Entries{};
        const auto d = (Integers)_mm512_cvtne2ps_pbh((__m512)odd.d, (__m512)even.d);
        float* const along = to.along + r * (key_tile / 2) + i / 2;
        store(along, load<__m256i>(&d));
        store(along + key_tile / 2, load<__m256i>(reinterpret_cast<const char*>(&d) + sizeof(__m256i)));
        store(d_row + i, interleaved(d));
        store(p_row + i, narrow_both<Float::bfloat16>({even.p, odd.p}));
        continue;
      }
#endif
      const Entries one = entries(r, i);
      store(p_row + i, one.p);
      store(d_row + i, one.d);
    }
    std::fill(p_row + columns, p_row + filled, 0.0f);
    std::fill(d_row + columns, d_row + filled, 0.0f);
  }
}

// sums [columns, size] += left^T right, over `rows` queries.
template <bool pairs>
inline void add_over_queries(const AttentionWindow& w, float* sums, std::int64_t columns, const float* left,
                             const float* right, std::int64_t rows) noexcept {
  if constexpr (in_tiles<pairs>) {
    tile_product(sums, w.size, columns / tile_side, w.size / tile_side,
                 {left, tile_side, key_tile * tile_side, tile_words}, {right, w.size, tile_side * w.size, tile_side},
                 (rows + 2 * tile_side - 1) / (2 * tile_side), true);
  } else {
    product<pairs>(sums, w.size, columns, w.size, {left, 1, key_tile}, right, w.size,
                   round_up(rows, 2) / (pairs ? 2 : 1), true);
  }
}

template <bool pairs>
void backward_pass(const AttentionWindow& w, const AttentionGradients& gradients, std::int64_t head,
                   float* scratch) noexcept {
  const std::int64_t b = head / w.heads;
  const std::int64_t h = head % w.heads;
  const std::int64_t n = w.lengths == nullptr ? w.steps : w.lengths[b];
  const std::int64_t depth = depth_of<pairs>(w);
  constexpr std::int64_t per_word = pairs ? 2 : 1;
  constexpr std::int64_t tile = query_tile * key_tile;
  alignas(64) float query[query_tile * max_head_size];
  alignas(64) float grad_output[query_tile * max_head_size];
  alignas(64) float paired[pairs ? 2 * query_words<pairs> * max_head_size : 1];
  alignas(64) float scores[tile];
  alignas(64) float score_gradient[tile];
  alignas(64) float rounded[pairs ? 3 * tile / 2 : 1];
  alignas(64) float sums[query_tile * max_head_size + 2 * lanes];
  float row[max_head_size + 2 * lanes] = {};
  const float* const query_along = pairs ? paired : query;
  const float* const grad_output_along = pairs ? paired + query_words<pairs> * w.size : grad_output;
  const ScoreGradients parts = in_tiles<pairs>
                                   ? ScoreGradients{score_gradient, rounded, rounded + query_words<pairs> * key_tile}
                               : pairs ? ScoreGradients{rounded, rounded + tile / 2, rounded + tile}
                                       : ScoreGradients{score_gradient, scores, score_gradient};
  constexpr std::int64_t along_row = key_tile / (pairs && !in_tiles<pairs> ? 2 : 1);
  if (in_tiles<pairs>) std::fill_n(paired, 2 * query_words<pairs> * w.size, 0.0f);
  float lse[query_tile];
  float delta[query_tile];
  float* const words = take(scratch, key_tile * w.size);
  const Packed<pairs> keys(w, w.key, b, h, n, true, true, true, words, scratch);
  const Packed<pairs> values(w, w.value, b, h, n, false, true, false, words, scratch);
  const std::int64_t padded = round_up(n, key_tile) * w.size;
  float* const key_sums = take(scratch, padded);
  float* const value_sums = take(scratch, padded);
  std::fill_n(key_sums, 2 * padded, 0.0f);
  for (std::int64_t g = 0; g < w.groups; ++g) {
    const std::int64_t q = h * w.groups + g;
    for (std::int64_t m = 0; m < n; m += query_tile) {
      const std::int64_t rows = std::min(query_tile, n - m);
      load_words<pairs>(query, depth, w, w.query, b, q, m, query_tile, n, true);
      load_words<pairs>(grad_output, depth, w, gradients.grad_output, b, q, m, query_tile, n, false);
      if constexpr (pairs) {
        right_side(paired, query, depth, query_tile, w.size);
        right_side(paired + query_words<pairs> * w.size, grad_output, depth, query_tile, w.size);
      }
      for (std::int64_t r = 0; r < rows; ++r) {
        load_row(sums, w, w.output, b, q, m + r, false);
        load_row(row, w, gradients.grad_output, b, q, m + r, false);
        FloatVector dot{};
        for (std::int64_t i = 0; i < w.size; i += lanes) {
          dot += load<FloatVector>(sums + i) * load<FloatVector>(row + i);
        }
        delta[r] = sum(dot);
        lse[r] = w.lse[(b * w.heads * w.groups + q) * w.steps + m + r];
      }
      std::fill_n(sums, query_tile * w.size, 0.0f);
      for (std::int64_t k = 0; k < n; k += key_tile) {
        const auto [columns, masked] = sight<pairs>(w, m, k, n);
        if (columns == 0) continue;
        const std::int64_t i = k / key_tile;
        product<pairs>(scores, key_tile, rows, columns, {query, depth, 1}, keys.across + i * keys.block, key_tile,
                       depth, false);
        product<pairs>(score_gradient, key_tile, rows, columns, {grad_output, depth, 1},
                       values.across + i * values.block, key_tile, depth, false);
        score_gradients<pairs>(w, scores, score_gradient, parts, lse, delta, m, k, rows, columns, masked);
        product<pairs>(sums, w.size, rows, w.size, {parts.along, along_row, 1}, keys.along + k / per_word * w.size,
                       w.size, columns / per_word, true);
        add_over_queries<pairs>(w, value_sums + k * w.size, columns, parts.weights, grad_output_along, rows);
        add_over_queries<pairs>(w, key_sums + k * w.size, columns, parts.gradients, query_along, rows);
      }
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t i = 0; i < w.size; i += lanes) {
          store(row + i, load<FloatVector>(sums + r * w.size + i) * w.scale);
        }
        store_row(w, gradients.query, b, q, m + r, row, true);
      }
    }
    zero_rows(w, gradients.query, b, q, n);
  }
  for (std::int64_t t = 0; t < n; ++t) {
    for (std::int64_t i = 0; i < w.size; i += lanes) {
      store(row + i, load<FloatVector>(key_sums + t * w.size + i) * w.scale);
    }
    store_row(w, gradients.key, b, h, t, row, true);
    store_row(w, gradients.value, b, h, t, value_sums + t * w.size, false);
  }
  zero_rows(w, gradients.key, b, h, n);
  zero_rows(w, gradients.value, b, h, n);
}

inline void backward_head(const AttentionWindow& w, const AttentionGradients& gradients, std::int64_t head,
                          float* scratch) noexcept {
  if (multiplies_bfloat16 && w.dtype == Float::bfloat16) {
    const TileScope tiles;
    return backward_pass<multiplies_bfloat16>(w, gradients, head, scratch);
  }
  backward_pass<false>(w, gradients, head, scratch);
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
