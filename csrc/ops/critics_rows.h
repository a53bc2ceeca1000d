// The loops of critics.h, compiled once for each instruction set: include after defining TWOHOT_CAPABILITY, the namespace
// that this copy lives in.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/critics_kernels.h"
#include "ops/pairs.h"

namespace twohot::ops::TWOHOT_CAPABILITY {

template <Float dtype, Float state_dtype>
void first_of(const Features& x, const FirstLayer& layer, float slope, std::int64_t begin, std::int64_t end) noexcept {
  for (std::int64_t r = begin; r < end; ++r) {
    char* row = static_cast<char*>(x.data) + r * x.width * bytes<dtype>;
    const char* state = static_cast<const char*>(layer.state) + layer.step[r] * layer.state_stride * bytes<state_dtype>;
    const float* entry = layer.table + layer.entry[r] * x.width;
    for (std::int64_t i = 0; i < x.width; i += two_vectors) {
      const std::int64_t count = x.width - i;
      Pair sum = load_pair<state_dtype>(state + i * bytes<state_dtype>, count) +
                 load_pair<Float::float32>(floats(entry + i), count);
      if (layer.add) sum = sum + load_pair<dtype>(row + i * bytes<dtype>, count);
      store_pair<dtype>(row + i * bytes<dtype>, leaky(sum, slope), count);
    }
  }
}

template <Float dtype>
void hidden_of(const Features& x, const float* bias, float slope, std::int64_t begin, std::int64_t end) noexcept {
  for (std::int64_t r = begin; r < end; ++r) {
    char* row = static_cast<char*>(x.data) + r * x.width * bytes<dtype>;
    for (std::int64_t i = 0; i < x.width; i += two_vectors) {
      char* here = row + i * bytes<dtype>;
      const Pair sum = load_pair<dtype>(here, x.width - i) + load_pair<Float::float32>(floats(bias + i), x.width - i);
      store_pair<dtype>(here, leaky(sum, slope), x.width - i);
    }
  }
}

template <Float dtype>
void hidden_backward_of(const Features& g, const void* output, float* of_bias, float slope, std::int64_t begin,
                        std::int64_t end) noexcept {
  for (std::int64_t r = 0; r < g.rows; ++r) {
    for (std::int64_t i = begin; i < end; i += two_vectors) {
      const std::int64_t count = end - i;
      const std::int64_t place = (r * g.width + i) * bytes<dtype>;
      char* here = static_cast<char*>(g.data) + place;
      const Pair y = load_pair<dtype>(static_cast<const char*>(output) + place, count);
      const Pair mine = leaky_backward(load_pair<dtype>(here, count), y, slope);
      store_pair<dtype>(here, mine, count);
      char* bias = floats(of_bias + i);
      store_pair<Float::float32>(bias, load_pair<Float::float32>(bias, count) + mine, count);
    }
  }
}

template <Float dtype>
void first_backward_of(const Features& g, const void* output, const FirstLayerGradient& into, float slope,
                       std::int64_t begin, std::int64_t end) noexcept {
  for (std::int64_t r = 0; r < g.rows; ++r) {
    float* state = into.state + into.step[r] * into.state_stride;
    float* entry = into.table + into.entry[r] * g.width;
    for (std::int64_t i = begin; i < end; i += two_vectors) {
      const std::int64_t count = end - i;
      const std::int64_t place = (r * g.width + i) * bytes<dtype>;
      char* here = static_cast<char*>(g.data) + place;
      const Pair y = load_pair<dtype>(static_cast<const char*>(output) + place, count);
      const Pair mine = leaky_backward(load_pair<dtype>(here, count), y, slope);
      store_pair<dtype>(here, mine, count);
      for (float* to : {state + i, entry + i}) {
        store_pair<Float::float32>(floats(to), load_pair<Float::float32>(floats(to), count) + mine, count);
      }
    }
  }
}

// Calls work() with the constant that `dtype` is.
template <class Work>
inline void with_dtype(Float dtype, const Work& work) noexcept {
  switch (dtype) {
    case Float::float32: return work.template operator()<Float::float32>();
    case Float::bfloat16: return work.template operator()<Float::bfloat16>();
    case Float::float16: return work.template operator()<Float::float16>();
  }
}

inline void first_rows(const Features& x, const FirstLayer& layer, float slope, std::int64_t begin,
                       std::int64_t end) noexcept {
  with_dtype(x.dtype, [&]<Float dtype>() {
    with_dtype(layer.state_dtype, [&]<Float state>() { first_of<dtype, state>(x, layer, slope, begin, end); });
  });
}

inline void hidden_rows(const Features& x, const float* bias, float slope, std::int64_t begin, std::int64_t end) noexcept {
  with_dtype(x.dtype, [&]<Float dtype>() { hidden_of<dtype>(x, bias, slope, begin, end); });
}

inline void hidden_backward_columns(const Features& g, const void* output, float* of_bias, float slope,
                                    std::int64_t begin, std::int64_t end) noexcept {
  with_dtype(g.dtype, [&]<Float dtype>() { hidden_backward_of<dtype>(g, output, of_bias, slope, begin, end); });
}

inline void first_backward_columns(const Features& g, const void* output, const FirstLayerGradient& into, float slope,
                                   std::int64_t begin, std::int64_t end) noexcept {
  with_dtype(g.dtype, [&]<Float dtype>() { first_backward_of<dtype>(g, output, into, slope, begin, end); });
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
