// The loops of attention_decode.h, compiled once for each instruction set: include after defining TWOHOT_CAPABILITY,
// the namespace that this copy lives in.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "ops/attention/attention_kernels.h"
#include "ops/simd/pairs.h"
#include "ops/simd/vector_math.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

constexpr std::int64_t max_group_heads = 8;  // query heads that go over a block of rows while it is in the cache

// a[l] + a[l ^ step] where bit `step` of l is 0, and the same of b where it is 1.
template <int step, int... l>
inline FloatVector fold(FloatVector a, FloatVector b, std::integer_sequence<int, l...>) noexcept {
  return __builtin_shufflevector(a, b, ((l & step) != 0 ? lanes + l : l)...) +
         __builtin_shufflevector(a, b, ((l & step) != 0 ? lanes + (l ^ step) : (l ^ step))...);
}

// Keeps the compiler from loading what comes later before this is there.
inline void computed(FloatVector& x) noexcept {
#if defined(__AVX512F__)
  asm volatile("" : "+v"(x));
#elif defined(__SSE2__)
  asm volatile("" : "+x"(x));
#elif defined(__ARM_NEON)
  asm volatile("" : "+w"(x));
#else
  (void)x;
#endif
}

// Lane l is the sum of the lanes of rows[l]. The rows are used up.
template <int step = lanes / 2>
inline FloatVector lane_sums(FloatVector* rows) noexcept {
  for (int l = 0; l < step; ++l)
    rows[l] = fold<step>(rows[l], rows[l + step], std::make_integer_sequence<int, lanes>{});
  if constexpr (step > 1) return lane_sums<step / 2>(rows);
  return rows[0];
}

// A row of `dtype` as vectors of float32. Heads of 16 (float32), 32 and 64, which agents have, get code of their own;
// `fixed` is 0 for the others. With it, bfloat16 comes in pairs, even elements first, odd elements second, which costs
// one instruction a vector; element() translates between this order and that of memory.
template <Float dtype, int fixed>
struct RowOf {
  static constexpr int max_vectors = (fixed == 0 ? static_cast<int>(max_head_size) : fixed) / lanes;
  static constexpr bool pairs = dtype == Float::bfloat16 && fixed != 0;

  static FloatVector vector(const char* row, int n) noexcept {
    if constexpr (dtype == Float::float32) return load<FloatVector>(row + n * static_cast<int>(sizeof(FloatVector)));
    if constexpr (!pairs) return widen(reinterpret_cast<const std::uint16_t*>(row) + n * lanes, Float::bfloat16);
    const Integers words = load<Integers>(row + n / 2 * static_cast<int>(sizeof(Integers)));
    return n % 2 == 0 ? (FloatVector)(words << 16) : (FloatVector)(words & static_cast<std::int32_t>(0xffff0000));
  }

  static int element(int n, int lane) noexcept {
    return pairs ? n / 2 * 2 * lanes + 2 * lane + n % 2 : n * lanes + lane;
  }
};

inline void widen_row(float* to, const void* from, std::int64_t start, std::int64_t size, Float dtype) noexcept {
  if (dtype == Float::float32) {
    const float* numbers = static_cast<const float*>(from) + start;
    for (std::int64_t i = 0; i < size; i += lanes) store(to + i, load<FloatVector>(numbers + i));
    return;
  }
  const std::uint16_t* halves = static_cast<const std::uint16_t*>(from) + start;
  for (std::int64_t i = 0; i < size; i += lanes) store(to + i, widen(halves + i, dtype));
}

// As widen_row(), back.
inline void narrow_row(void* to, std::int64_t start, const float* from, std::int64_t size, Float dtype) noexcept {
  if (dtype == Float::float32) {
    float* numbers = static_cast<float*>(to) + start;
    for (std::int64_t i = 0; i < size; i += lanes) store(numbers + i, load<FloatVector>(from + i));
    return;
  }
  auto* halves = reinterpret_cast<char*>(static_cast<std::uint16_t*>(to) + start);
  const auto narrow_all = [&]<Float half>() {
    for (std::int64_t i = 0; i < size; i += two_vectors) {
      store_pair<half>(halves + i * bytes<half>, load_pair<Float::float32>(floats(from + i), size - i), size - i);
    }
  };
  if (dtype == Float::bfloat16) return narrow_all.template operator()<Float::bfloat16>();
  narrow_all.template operator()<Float::float16>();
}

// (x1, x2) to (x1 cos - x2 sin, x2 cos + x1 sin), the halves of a row; `way` is -1 for the way back.
inline void rotate(float* x, const float* cosine, const float* sine, std::int64_t size, float way = 1) noexcept {
  const std::int64_t half = size / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    const float first = x[i];
    const float second = x[i + half];
    x[i] = first * cosine[i] - second * (way * sine[i]);
    x[i + half] = second * cosine[i] + first * (way * sine[i]);
  }
}

// One query's softmax as far as it has come: sums are relative to `reference`, which no score exceeds by more than
// `slack`. The reference moves rarely, so that nothing waits for the maximum of some rows.
template <int max_vectors>
struct Running {
  FloatVector query[max_vectors];
  FloatVector sum[max_vectors];
  FloatVector total;
  float reference;
};

constexpr float slack = 8;

[[gnu::noinline]] inline void move_reference(float& reference, FloatVector& total, FloatVector* sums, int vectors,
                                             FloatVector scores) noexcept {
  const float highest = maximum(scores);
  const FloatVector factor = exp_negative(splat(reference - highest));
  for (int n = 0; n < vectors; ++n) sums[n] *= factor;
  total *= factor;
  reference = highest;
}

inline bool any_above(FloatVector scores, float bound) noexcept {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(scores, splat(bound), _CMP_GT_OQ) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_ps(_mm256_cmp_ps(scores, splat(bound), _CMP_GT_OQ)) != 0;
#elif defined(__ARM_NEON)
  return vmaxvq_u32((uint32x4_t)(scores > bound)) != 0;
#else
  return maximum(scores) > bound;
#endif
}

// Goes over `count` vectors of rows of keys and values, or over the `rest` < lanes rows that are left. Not inlined:
// what is around it would take registers from its loops.
template <Float dtype, int fixed, int count, bool whole>
[[gnu::noinline]] void attend(Running<RowOf<dtype, fixed>::max_vectors>& state, const char* keys, const char* values,
                              std::int64_t size, std::int64_t rest, float softcap) noexcept {
  using Row = RowOf<dtype, fixed>;
  const int vectors = fixed == 0 ? static_cast<int>(size) / lanes : Row::max_vectors;
  const std::int64_t stride = (fixed == 0 ? size : fixed) * bytes_of(dtype);
  alignas(64) float weight[count * lanes];
  for (int i = 0; i < count; ++i) {
    FloatVector products[lanes];
    for (int l = 0; l < lanes; ++l) {
      const char* row = keys + (whole ? i * lanes + l : std::min<std::int64_t>(l, rest - 1)) * stride;
      products[l] = Row::vector(row, 0) * state.query[0];
      for (int n = 1; n < vectors; ++n) products[l] += Row::vector(row, n) * state.query[n];
      computed(products[l]);
    }
    FloatVector scores = lane_sums(products);
    if (softcap > 0) scores = softcap * tanh(scores / softcap);
    if constexpr (!whole) {
      for (int l = static_cast<int>(rest); l < lanes; ++l) scores[l] = -std::numeric_limits<float>::infinity();
    }
    store(weight + i * lanes, scores);
  }
  for (int i = 0; i < count; ++i) {
    const FloatVector scores = load<FloatVector>(weight + i * lanes);
    if (any_above(scores, state.reference + slack)) [[unlikely]] {
      move_reference(state.reference, state.total, state.sum, vectors, scores);
    }
  }
  for (int i = 0; i < count; ++i) {
    const FloatVector w = exp_negative(load<FloatVector>(weight + i * lanes) - state.reference);
    state.total += w;
    store(weight + i * lanes, w);
  }
  // Several sums at a time, for each addition waits for the one before it.
  constexpr int side = fixed == 0 ? 1 : Row::max_vectors;
  constexpr int accumulators = side >= 4 ? 1 : 4 / side;
  for (int first = 0; first < vectors; first += side) {
    FloatVector sums[accumulators][side] = {};
    for (int l = 0; l < (whole ? count * lanes : static_cast<int>(rest)); ++l) {
      const FloatVector w = splat(weight[l]);
      for (int n = 0; n < side; ++n) sums[l % accumulators][n] += w * Row::vector(values + l * stride, first + n);
      computed(sums[l % accumulators][0]);
    }
    for (int n = 0; n < side; ++n) {
      for (int c = 0; c < accumulators; ++c) state.sum[first + n] += sums[c][n];
    }
  }
}

template <Float dtype, int fixed>
void decode_head(const Ring& ring, const DecodeStep& step, std::int64_t e, std::int64_t h) noexcept {
  using Row = RowOf<dtype, fixed>;
  const std::int64_t size = fixed == 0 ? ring.size : fixed;
  const int vectors = static_cast<int>(size) / lanes;
  const std::int64_t stride = size * bytes_of(dtype);
  alignas(64) float scratch[max_head_size + 2 * lanes] = {};
  const std::int64_t position = step.cache_position[e];
  const std::int64_t head = e * ring.heads + h;
  char* keys = static_cast<char*>(ring.keys) + head * ring.rows * stride;
  char* values = static_cast<char*>(ring.values) + head * ring.rows * stride;
  const float* cosine = step.cosine == nullptr ? nullptr : step.cosine + e * (size / 2);
  const float* sine = step.sine == nullptr ? nullptr : step.sine + e * (size / 2);

  const std::int64_t slot =
      position < ring.rows ? position : ring.sinks + (position - ring.sinks) % (ring.rows - ring.sinks);
  widen_row(scratch, step.key, e * step.key_stride + h * size, size, step.dtype);
  if (cosine != nullptr) rotate(scratch, cosine, sine, size);
  narrow_row(keys, slot * size, scratch, size, dtype);
  widen_row(scratch, step.value, e * step.value_stride + h * size, size, step.dtype);
  narrow_row(values, slot * size, scratch, size, dtype);

  const std::int64_t rows = std::min(position + 1, ring.rows);
  for (std::int64_t first = 0; first < step.groups; first += max_group_heads) {
    const std::int64_t group_heads = std::min(max_group_heads, step.groups - first);
    Running<Row::max_vectors> states[max_group_heads];
    for (std::int64_t g = 0; g < group_heads; ++g) {
      Running<Row::max_vectors>& state = states[g];
      const std::int64_t query_head = h * step.groups + first + g;
      widen_row(scratch, step.query, e * step.query_stride + query_head * size, size, step.dtype);
      if (cosine != nullptr) rotate(scratch, cosine, sine, size);
      for (int n = 0; n < vectors; ++n) {
        for (int l = 0; l < lanes; ++l) state.query[n][l] = scratch[Row::element(n, l)] * step.scale;
        state.sum[n] = FloatVector{};
      }
      state.total = FloatVector{};
      state.reference = -std::numeric_limits<float>::infinity();
    }
    // Measured: more rows at a time read memory no faster, with more time between keys and values.
    constexpr int count = fixed == 64 ? 2 : 1;
    const auto go = [&]<int many, bool whole>(std::int64_t r, std::integral_constant<int, many>,
                                              std::bool_constant<whole>) {
      for (std::int64_t g = 0; g < group_heads; ++g) {
        attend<dtype, fixed, many, whole>(states[g], keys + r * stride, values + r * stride, size, rows - r,
                                          step.softcap);
      }
    };
    std::int64_t r = 0;
    for (; r + count * lanes <= rows; r += count * lanes) go(r, std::integral_constant<int, count>{}, std::true_type{});
    if constexpr (count > 1) {
      for (; r + lanes <= rows; r += lanes) go(r, std::integral_constant<int, 1>{}, std::true_type{});
    }
    if (r < rows) go(r, std::integral_constant<int, 1>{}, std::false_type{});
    for (std::int64_t g = 0; g < group_heads; ++g) {
      const float total = sum(states[g].total);
      for (int n = 0; n < vectors; ++n) {
        for (int l = 0; l < lanes; ++l) scratch[Row::element(n, l)] = states[g].sum[n][l] / total;
      }
      const std::int64_t query_head = (e * ring.heads + h) * step.groups + first + g;
      narrow_row(step.output, query_head * size, scratch, size, step.dtype);
    }
  }
}

template <Float dtype>
void decode_heads_of(const Ring& ring, const DecodeStep& step, std::int64_t begin, std::int64_t end) noexcept {
  for (std::int64_t i = begin; i < end; ++i) {
    switch (ring.size) {
      case 16: decode_head<dtype, dtype == Float::float32 ? 16 : 0>(ring, step, i / ring.heads, i % ring.heads); break;
      case 32: decode_head<dtype, 32>(ring, step, i / ring.heads, i % ring.heads); break;
      case 64: decode_head<dtype, 64>(ring, step, i / ring.heads, i % ring.heads); break;
      default: decode_head<dtype, 0>(ring, step, i / ring.heads, i % ring.heads);
    }
  }
}

inline void decode_heads(const Ring& ring, const DecodeStep& step, std::int64_t begin, std::int64_t end) noexcept {
  if (ring.dtype == Float::float32) return decode_heads_of<Float::float32>(ring, step, begin, end);
  decode_heads_of<Float::bfloat16>(ring, step, begin, end);
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
