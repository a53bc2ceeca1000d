// One step of attention on the CPU: each environment appends a key and a value to its ring, and its queries attend over
// what the ring holds.
#pragma once

#include <cstdint>

#include "ops/simd/float.h"

namespace twohot::ops {

constexpr std::int64_t max_head_size = 256;
constexpr std::int64_t head_size_step = 16;  // head sizes are multiples of it

// Keys and values of one layer, C-contiguous [environments, heads, rows, size] of `dtype`, float32 or bfloat16. The
// first `sinks` rows keep the first steps; the others are a ring of the newest.
struct Ring {
  void* keys;
  void* values;
  Float dtype;
  std::int64_t environments;
  std::int64_t heads;
  std::int64_t rows;
  std::int64_t size;
  std::int64_t sinks;
};

// The new step of each environment. Heads of one environment are contiguous; strides lead from one environment to the
// next.
struct DecodeStep {
  const void* query;  // [environments, groups * heads, size]; query head i reads the keys of head i / groups
  const void* key;    // [environments, heads, size]
  const void* value;
  Float dtype;
  std::int64_t query_stride;  // in elements
  std::int64_t key_stride;
  std::int64_t value_stride;
  std::int64_t groups;
  const std::int64_t* cache_position;  // [environments] steps that came before this one
  const float* cosine;                 // [environments, size / 2] of the rotation of query and key, or null
  const float* sine;
  float scale;    // of the scores
  float softcap;  // scores become softcap tanh(score / softcap); 0: as they are
  void* output;   // [environments, groups * heads, size] of `dtype`, C-contiguous
};

// Writes one row of keys and values for each environment and head, reads the rows in use once, accumulates in float32.
// Rows past those in use are never read. Thread-safe for distinct rings. Cost: O(rows in use * size * groups).
// Preconditions, which the binding checks: size a multiple of head_size_step up to max_head_size, 0 <= sinks < rows.
void decode_attention(const Ring& ring, const DecodeStep& step, int threads);

}  // namespace twohot::ops
