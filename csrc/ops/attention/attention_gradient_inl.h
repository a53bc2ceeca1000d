// The gradients of attention_window.h, as attention_window_inl.h, which includes this.
#pragma once

#include <algorithm>
#include <cstdint>

namespace twohot::ops::TWOHOT_CAPABILITY {

// Of a tile of queries and a block of keys: P = exp(S - lse), dS = P (dP - delta) cap'. Columns past `columns` become
// 0.
inline void score_gradients(const AttentionWindow& w, float* scores, float* gradients, const float* lse,
                            const float* delta, std::int64_t m, std::int64_t k, std::int64_t rows, std::int64_t columns,
                            bool masked) noexcept {
  for (std::int64_t r = 0; r < query_tile; ++r) {
    float* p_row = scores + r * key_tile;
    float* d_row = gradients + r * key_tile;
    const std::int64_t used = r < rows ? columns : 0;
    for (std::int64_t i = 0; i < used; i += lanes) {
      FloatVector s = load<FloatVector>(p_row + i) * w.scale;
      FloatVector slope = splat(1);
      if (w.softcap > 0) {
        const FloatVector t = tanh(s / w.softcap);
        s = w.softcap * t;
        slope = 1.0f - t * t;
      }
      FloatVector p = exp_negative(s - lse[r]);
      FloatVector d = p * (load<FloatVector>(d_row + i) - delta[r]) * slope;
      if (masked) {
        const Integers seen = seen_by(w, m + r, k + i);
        p = select(seen, p, FloatVector{});
        d = select(seen, d, FloatVector{});
      }
      store(p_row + i, p);
      store(d_row + i, d);
    }
    std::fill(p_row + used, p_row + key_tile, 0.0f);
    std::fill(d_row + used, d_row + key_tile, 0.0f);
  }
}

template <bool pairs>
void backward_pass(const AttentionWindow& w, const AttentionGradients& gradients, std::int64_t head,
                   float* scratch) noexcept {
  const std::int64_t b = head / w.heads;
  const std::int64_t h = head % w.heads;
  const std::int64_t n = w.lengths == nullptr ? w.steps : w.lengths[b];
  const std::int64_t depth = pairs ? w.size / 2 : w.size;
  constexpr std::int64_t per_word = pairs ? 2 : 1;
  constexpr std::int64_t tile = query_tile * key_tile;
  alignas(64) float query[query_tile * max_head_size];
  alignas(64) float grad_output[query_tile * max_head_size];
  alignas(64) float query_along[query_tile * max_head_size];
  alignas(64) float grad_output_along[query_tile * max_head_size];
  alignas(64) float scores[tile];
  alignas(64) float score_gradient[tile];
  alignas(64) float rounded[pairs ? 3 * tile / 2 : 1];
  alignas(64) float sums[query_tile * max_head_size + 2 * lanes];
  float row[max_head_size + 2 * lanes] = {};
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
      right_side<pairs>(query_along, query, depth, query_tile, w.size);
      right_side<pairs>(grad_output_along, grad_output, depth, query_tile, w.size);
      for (std::int64_t r = 0; r < rows; ++r) {
        load_row(sums, w, w.output, b, q, m + r, false);
        load_row(row, w, gradients.grad_output, b, q, m + r, false);
        FloatVector dot{};
        for (std::int64_t i = 0; i < w.size; i += lanes)
          dot += load<FloatVector>(sums + i) * load<FloatVector>(row + i);
        delta[r] = sum(dot);
        lse[r] = w.lse[(b * w.heads * w.groups + q) * w.steps + m + r] / log2e;
      }
      std::fill_n(sums, query_tile * w.size, 0.0f);
      for (std::int64_t k = 0; k < n; k += key_tile) {
        const auto [columns, masked] = sight(w, m, k, n);
        if (columns == 0) continue;
        const std::int64_t i = k / key_tile;
        product<pairs>(scores, key_tile, rows, columns, {query, depth, 1}, keys.across + i * keys.block, key_tile,
                       depth, false);
        product<pairs>(score_gradient, key_tile, rows, columns, {grad_output, depth, 1},
                       values.across + i * values.block, key_tile, depth, false);
        score_gradients(w, scores, score_gradient, lse, delta, m, k, rows, columns, masked);
        float* left = score_gradient;
        float* weight_pairs = scores;
        float* gradient_pairs = score_gradient;
        if constexpr (pairs) {
          left = rounded;
          weight_pairs = rounded + tile / 2;
          gradient_pairs = rounded + tile;
          for (std::int64_t r = 0; r < query_tile; ++r) {
            left_side<pairs>(left + r * (key_tile / 2), score_gradient + r * key_tile, columns);
          }
          pair_rows<pairs>(weight_pairs, scores);
          pair_rows<pairs>(gradient_pairs, score_gradient);
        }
        product<pairs>(sums, w.size, rows, w.size, {left, key_tile / per_word, 1}, keys.along + k / per_word * w.size,
                       w.size, columns / per_word, true);
        const std::int64_t summed = round_up(rows, 2) / per_word;
        product<pairs>(value_sums + k * w.size, w.size, columns, w.size, {weight_pairs, 1, key_tile}, grad_output_along,
                       w.size, summed, true);
        product<pairs>(key_sums + k * w.size, w.size, columns, w.size, {gradient_pairs, 1, key_tile}, query_along,
                       w.size, summed, true);
      }
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t i = 0; i < w.size; ++i) row[i] = sums[r * w.size + i] * w.scale;
        store_row(w, gradients.query, b, q, m + r, row, true);
      }
    }
    zero_rows(w, gradients.query, b, q, n);
  }
  for (std::int64_t t = 0; t < n; ++t) {
    for (std::int64_t i = 0; i < w.size; ++i) {
      row[i] = key_sums[t * w.size + i] * w.scale;
      sums[i] = value_sums[t * w.size + i];
    }
    store_row(w, gradients.key, b, h, t, row, true);
    store_row(w, gradients.value, b, h, t, sums, false);
  }
  zero_rows(w, gradients.key, b, h, n);
  zero_rows(w, gradients.value, b, h, n);
}

inline void backward_head(const AttentionWindow& w, const AttentionGradients& gradients, std::int64_t head,
                          float* scratch) noexcept {
  if (multiplies_bfloat16 && w.dtype == Float::bfloat16) {
    return backward_pass<multiplies_bfloat16>(w, gradients, head, scratch);
  }
  backward_pass<false>(w, gradients, head, scratch);
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
