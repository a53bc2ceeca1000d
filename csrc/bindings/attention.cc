#include "bindings/attention.h"

#include <pybind11/stl.h>

#include <cmath>
#include <stdexcept>
#include <string>
#include <tuple>

#include "bindings/addresses.h"
#include "bindings/ring.h"
#include "ops/attention/attention_decode.h"
#include "ops/attention/attention_window.h"

namespace twohot {
namespace {

namespace py = pybind11;

void decode_attention(std::uintptr_t keys, std::uintptr_t values, const std::string& cache_dtype,
                      std::int64_t environments, std::int64_t heads, std::int64_t rows, std::int64_t size,
                      std::int64_t sinks, std::uintptr_t query, std::uintptr_t key, std::uintptr_t value,
                      const std::string& dtype, std::int64_t query_stride, std::int64_t key_stride,
                      std::int64_t value_stride, std::int64_t groups, std::uintptr_t cache_position,
                      std::uintptr_t cosine, std::uintptr_t sine, float scale, float softcap, std::uintptr_t output,
                      int threads) {
  check_head_size(size);
  const ops::Ring ring{pointer<void>(keys),
                       pointer<void>(values),
                       product_dtype(cache_dtype, "cache_dtype"),
                       environments,
                       heads,
                       rows,
                       size,
                       sinks};
  if (environments < 0 || heads < 1 || groups < 1 || sinks < 0 || sinks >= rows) {
    throw std::invalid_argument("expected heads, groups >= 1 and 0 <= sinks < rows, got " + std::to_string(heads) +
                                ", " + std::to_string(groups) + ", " + std::to_string(sinks) + " of " +
                                std::to_string(rows));
  }
  if (environments > 0 &&
      (!keys || !values || !query || !key || !value || !cache_position || !output || !cosine != !sine)) {
    throw std::invalid_argument(
        "expected the addresses of caches, query, key, value, cache_position and output, got a zero");
  }
  if (!(std::isfinite(scale) && softcap >= 0))
    throw std::invalid_argument("expected a finite scale and a softcap >= 0");
  check_cache_position(cache_position, environments);
  const ops::DecodeStep step{pointer<const void>(query),
                             pointer<const void>(key),
                             pointer<const void>(value),
                             float_of(dtype),
                             query_stride,
                             key_stride,
                             value_stride,
                             groups,
                             pointer<const std::int64_t>(cache_position),
                             pointer<const float>(cosine),
                             pointer<const float>(sine),
                             scale,
                             softcap,
                             pointer<void>(output)};
  const py::gil_scoped_release release;
  ops::decode_attention(ring, step, threads);
}

// Address, and elements from one sequence, step and head to the next.
using Strided = std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::int64_t>;

ops::Heads heads_of(const Strided& array, bool empty) {
  const auto& [address, batch, step, head] = array;
  if (address == 0 && !empty) throw std::invalid_argument("expected the addresses of all arrays, got a zero");
  return {pointer<void>(address), batch, step, head};
}

bool is_empty(const ops::AttentionWindow& window) { return window.batch == 0 || window.steps == 0; }

ops::AttentionWindow window_of(const Strided& query, const Strided& key, const Strided& value, const std::string& dtype,
                               std::int64_t batch, std::int64_t steps, std::int64_t heads, std::int64_t size,
                               std::int64_t groups, std::uintptr_t lengths, std::uintptr_t cosine, std::uintptr_t sine,
                               std::int64_t window, std::int64_t sinks, float scale, float softcap,
                               const Strided& output, std::uintptr_t lse) {
  check_head_size(size);
  if (batch < 0 || steps < 0 || heads < 1 || groups < 1 || window < 0 || sinks < 0) {
    throw std::invalid_argument("expected heads, groups >= 1 and batch, steps, window, sinks >= 0");
  }
  if (!(std::isfinite(scale) && softcap >= 0))
    throw std::invalid_argument("expected a finite scale and a softcap >= 0");
  const bool empty = batch == 0 || steps == 0;
  const ops::AttentionWindow given{product_dtype(dtype),
                                   batch,
                                   steps,
                                   heads,
                                   groups,
                                   size,
                                   heads_of(query, empty),
                                   heads_of(key, empty),
                                   heads_of(value, empty),
                                   pointer<const std::int64_t>(lengths),
                                   pointer<const float>(cosine),
                                   pointer<const float>(sine),
                                   window,
                                   sinks,
                                   scale,
                                   softcap,
                                   heads_of(output, empty),
                                   pointer<float>(lse)};
  if (!empty && (lse == 0 || !cosine != !sine)) {
    throw std::invalid_argument("expected the addresses of all arrays, got a zero");
  }
  return given;
}

// At each call, since lengths are memory that others can write to.
void check_lengths(const ops::AttentionWindow& window) {
  for (std::int64_t b = 0; b < window.batch && window.lengths != nullptr; ++b) {
    if (window.lengths[b] < 0 || window.lengths[b] > window.steps) {
      throw std::invalid_argument("expected lengths of 0 to the steps");
    }
  }
}

void causal_attention(const ops::AttentionWindow& window, int threads) {
  if (is_empty(window)) return;
  check_lengths(window);
  const py::gil_scoped_release release;
  ops::forward(window, threads);
}

void causal_attention_backward(const ops::AttentionWindow& window, const Strided& grad_output,
                               const Strided& grad_query, const Strided& grad_key, const Strided& grad_value,
                               int threads) {
  if (is_empty(window)) return;
  check_lengths(window);
  const ops::AttentionGradients gradients{heads_of(grad_output, false), heads_of(grad_query, false),
                                          heads_of(grad_key, false), heads_of(grad_value, false)};
  const py::gil_scoped_release release;
  ops::backward(window, gradients, threads);
}

}  // namespace

void bind_attention(py::module_& module) {
  using namespace py::literals;
  module.def(
      "decode_attention", &decode_attention, "keys"_a, "values"_a, "cache_dtype"_a, "environments"_a, "heads"_a,
      "rows"_a, "size"_a, py::kw_only(), "sinks"_a = 0, "query"_a, "key"_a, "value"_a, "dtype"_a, "query_stride"_a,
      "key_stride"_a, "value_stride"_a, "groups"_a = 1, "cache_position"_a, "cosine"_a = 0, "sine"_a = 0, "scale"_a,
      "softcap"_a = 0.0f, "output"_a, "threads"_a,
      "Append the key and value of one step to each environment's ring and attend over the rows in use. Arrays are "
      "addresses of CPU memory, which the caller has checked.");
  py::class_<ops::AttentionWindow>(
      module, "AttentionWindow",
      "Whole windows of queries, keys and values, and where attention over them goes. An array is "
      "(address, elements from a sequence, a step, a head to the next).")
      .def(py::init(&window_of), "query"_a, "key"_a, "value"_a, "dtype"_a, "batch"_a, "steps"_a, "heads"_a, "size"_a,
           py::kw_only(), "groups"_a = 1, "lengths"_a = 0, "cosine"_a = 0, "sine"_a = 0, "window"_a = 0, "sinks"_a = 0,
           "scale"_a, "softcap"_a = 0.0f, "output"_a, "lse"_a);
  module.def("causal_attention", &causal_attention, "window"_a, "threads"_a, "Writes output and lse.");
  module.def("causal_attention_backward", &causal_attention_backward, "window"_a, "grad_output"_a, "grad_query"_a,
             "grad_key"_a, "grad_value"_a, "threads"_a, "Reads output and lse, and writes the gradients.");
}

}  // namespace twohot
