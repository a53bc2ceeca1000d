#include "bindings/attention.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/addresses.h"
#include "ops/attention_decode.h"
#include "ops/attention_window.h"
#include "ops/transformer_step.h"

namespace twohot {
namespace {

namespace py = pybind11;

constexpr std::int64_t most_seen = std::int64_t{1} << 62;

ops::Float float_of(const std::string& dtype) {
  if (dtype == "float32") return ops::Float::float32;
  if (dtype == "bfloat16") return ops::Float::bfloat16;
  if (dtype == "float16") return ops::Float::float16;
  throw std::invalid_argument("expected float32, bfloat16 or float16, got " + dtype);
}

void check_head_size(std::int64_t size) {
  if (size < ops::head_size_step || size > ops::most_head_size || size % ops::head_size_step != 0) {
    throw std::invalid_argument("expected a head size that is a multiple of " + std::to_string(ops::head_size_step) +
                                " up to " + std::to_string(ops::most_head_size) + ", got " + std::to_string(size));
  }
}

// Rows of a ring are found by these counts, which whoever owns them can set to anything.
void check_seen(std::uintptr_t seen, std::int64_t environments) {
  for (std::int64_t e = 0; e < environments; ++e) {
    const std::int64_t steps = pointer<const std::int64_t>(seen)[e];
    if (steps < 0 || steps > most_seen) {
      throw std::invalid_argument("seen: expected 0 to " + std::to_string(most_seen) + " steps of each environment, got " +
                                  std::to_string(steps) + " of environment " + std::to_string(e));
    }
  }
}

void decode_attention(std::uintptr_t keys, std::uintptr_t values, const std::string& cache_dtype,
                      std::int64_t environments, std::int64_t heads, std::int64_t rows, std::int64_t size,
                      std::int64_t sinks, std::uintptr_t query, std::uintptr_t key, std::uintptr_t value,
                      const std::string& dtype, std::int64_t query_stride, std::int64_t key_stride,
                      std::int64_t value_stride, std::int64_t groups, std::uintptr_t seen, std::uintptr_t cosine,
                      std::uintptr_t sine, float scale, float softcap, std::uintptr_t output, int threads) {
  check_head_size(size);
  const ops::Ring ring{pointer<void>(keys), pointer<void>(values), float_of(cache_dtype), environments, heads, rows,
                       size, sinks};
  if (ring.dtype == ops::Float::float16) throw std::invalid_argument("expected a cache of float32 or bfloat16");
  if (environments < 0 || heads < 1 || groups < 1 || sinks < 0 || sinks >= rows) {
    throw std::invalid_argument("expected heads, groups >= 1 and 0 <= sinks < rows, got " + std::to_string(heads) + ", " +
                                std::to_string(groups) + ", " + std::to_string(sinks) + " of " + std::to_string(rows));
  }
  if (environments > 0 && (!keys || !values || !query || !key || !value || !seen || !output || !cosine != !sine)) {
    throw std::invalid_argument("expected the addresses of caches, query, key, value, seen and output, got a zero");
  }
  if (!(std::isfinite(scale) && softcap >= 0)) throw std::invalid_argument("expected a finite scale and a softcap >= 0");
  check_seen(seen, environments);
  const ops::DecodeStep step{pointer<const void>(query),    pointer<const void>(key),    pointer<const void>(value),
                             float_of(dtype),               query_stride,                key_stride,
                             value_stride,                  groups,                      pointer<const std::int64_t>(seen),
                             pointer<const float>(cosine),  pointer<const float>(sine),  scale,
                             softcap,                       pointer<void>(output)};
  const py::gil_scoped_release release;
  ops::decode_attention(ring, step, threads);
}

// Address, and elements from one sequence, step and head to the next.
using Strided = std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::int64_t>;

ops::Heads heads_of(const Strided& array) {
  const auto& [address, batch, step, head] = array;
  if (address == 0) throw std::invalid_argument("expected the addresses of all arrays, got a zero");
  return {pointer<void>(address), batch, step, head};
}

void causal_attention(const Strided& query, const Strided& key, const Strided& value, const std::string& dtype,
                      std::int64_t batch, std::int64_t steps, std::int64_t heads, std::int64_t size, std::int64_t groups,
                      std::uintptr_t lengths, std::uintptr_t cosine, std::uintptr_t sine, std::int64_t window,
                      std::int64_t sinks, float scale, float softcap, const Strided& output, std::uintptr_t lse,
                      const std::optional<std::tuple<Strided, Strided, Strided, Strided>>& gradients, int threads) {
  check_head_size(size);
  if (batch < 0 || steps < 0 || heads < 1 || groups < 1 || window < 0 || sinks < 0) {
    throw std::invalid_argument("expected heads, groups >= 1 and batch, steps, window, sinks >= 0");
  }
  if (!(std::isfinite(scale) && softcap >= 0)) throw std::invalid_argument("expected a finite scale and a softcap >= 0");
  if (batch == 0 || steps == 0) return;
  const ops::Window given{float_of(dtype),
                          batch,
                          steps,
                          heads,
                          groups,
                          size,
                          heads_of(query),
                          heads_of(key),
                          heads_of(value),
                          pointer<const std::int64_t>(lengths),
                          pointer<const float>(cosine),
                          pointer<const float>(sine),
                          window,
                          sinks,
                          scale,
                          softcap,
                          heads_of(output),
                          pointer<float>(lse)};
  if (given.dtype == ops::Float::float16) throw std::invalid_argument("expected float32 or bfloat16, got float16");
  if (lse == 0 || !cosine != !sine) throw std::invalid_argument("expected the addresses of all arrays, got a zero");
  for (std::int64_t b = 0; b < batch && lengths != 0; ++b) {
    if (given.lengths[b] < 0 || given.lengths[b] > steps) throw std::invalid_argument("expected lengths of 0 to the steps");
  }
  if (!gradients) {
    const py::gil_scoped_release release;
    ops::forward(given, threads);
    return;
  }
  const auto& [upstream, of_query, of_key, of_value] = *gradients;
  const ops::WindowGradients wanted{heads_of(upstream), heads_of(of_query), heads_of(of_key), heads_of(of_value)};
  const py::gil_scoped_release release;
  ops::backward(given, wanted, threads);
}

// Of a layer: weight and bias of the norm before attention, qkv, out, the norm of what was attended, the norm before the
// feed-forward part, up, the norm of the hidden units, and down; after all layers those of the last norm.
constexpr std::size_t addresses_of_layer = 16;

void transformer_step(std::uintptr_t input, std::uintptr_t output, std::int64_t environments, std::int64_t width,
                      std::int64_t feed_forward, const std::vector<std::uintptr_t>& parameters, float epsilon, float slope,
                      std::uintptr_t keys, std::uintptr_t values, const std::string& cache_dtype, std::int64_t layers,
                      std::int64_t heads, std::int64_t rows, std::int64_t size, std::int64_t sinks, std::uintptr_t seen,
                      std::uintptr_t cosine, std::uintptr_t sine, int threads) {
  check_head_size(size);
  const ops::Float dtype = float_of(cache_dtype);
  if (dtype == ops::Float::float16) throw std::invalid_argument("expected a cache of float32 or bfloat16");
  if (environments < 0 || layers < 0 || heads < 1 || sinks < 0 || sinks >= rows || width != heads * size ||
      feed_forward < 1 || feed_forward % ops::head_size_step != 0) {
    throw std::invalid_argument("expected heads >= 1, 0 <= sinks < rows, a width of heads * size and a feed_forward that "
                                "is a multiple of " + std::to_string(ops::head_size_step));
  }
  const std::size_t count = static_cast<std::size_t>(layers) * addresses_of_layer;
  if (parameters.size() != count + 2) {
    throw std::invalid_argument("expected " + std::to_string(count + 2) + " addresses of parameters, got " +
                                std::to_string(parameters.size()));
  }
  if (!input || !output || !keys || !values || !seen || !cosine != !sine) {
    throw std::invalid_argument("expected the addresses of input, output, caches and seen, got a zero");
  }
  check_seen(seen, environments);
  const auto at = [&](std::size_t i) { return pointer<const float>(parameters[i]); };
  std::vector<ops::StepLayer> given;
  for (std::int64_t l = 0; l < layers; ++l) {
    const std::size_t i = static_cast<std::size_t>(l) * addresses_of_layer;
    const std::int64_t bytes = l * environments * heads * rows * size * ops::bytes_of(dtype);
    given.push_back({{at(i), at(i + 1)},
                     {at(i + 2), at(i + 3), width, 3 * width},
                     {at(i + 4), at(i + 5), width, width},
                     {at(i + 6), at(i + 7)},
                     {at(i + 8), at(i + 9)},
                     {at(i + 10), at(i + 11), width, feed_forward},
                     {at(i + 12), at(i + 13)},
                     {at(i + 14), at(i + 15), feed_forward, width},
                     {pointer<char>(keys) + bytes, pointer<char>(values) + bytes, dtype, environments, heads, rows, size,
                      sinks}});
  }
  const ops::TransformerStep step{environments,
                                  width,
                                  feed_forward,
                                  pointer<const float>(input),
                                  pointer<const std::int64_t>(seen),
                                  pointer<const float>(cosine),
                                  pointer<const float>(sine),
                                  {at(count), at(count + 1)},
                                  epsilon,
                                  slope,
                                  pointer<float>(output)};
  const py::gil_scoped_release release;
  ops::transformer_step(step, given, threads);
}

void mlp_step(std::uintptr_t input, std::uintptr_t output, std::int64_t rows, const std::vector<std::int64_t>& sizes,
              const std::vector<std::uintptr_t>& parameters, float epsilon, float slope, int threads) {
  const std::size_t layers = sizes.empty() ? 0 : sizes.size() - 1;
  const bool norm = parameters.size() == 2 * layers + 2;
  if (layers < 1 || rows < 0 || std::any_of(sizes.begin(), sizes.end(), [](std::int64_t size) { return size < 1; }) ||
      (parameters.size() != 2 * layers && !norm) || (norm && sizes.back() % ops::head_size_step != 0)) {
    throw std::invalid_argument("expected sizes >= 1 of inputs and of the outputs of each layer, a weight and a bias for each "
                                "layer and, behind outputs that are a multiple of " + std::to_string(ops::head_size_step) +
                                ", perhaps those of a norm");
  }
  if (rows > 0 && (!input || !output)) throw std::invalid_argument("expected the addresses of input and output, got a zero");
  const auto at = [&](std::size_t i) { return pointer<const float>(parameters[i]); };
  std::vector<ops::StepLinear> given;
  for (std::size_t l = 0; l < layers; ++l) given.push_back({at(2 * l), at(2 * l + 1), sizes[l], sizes[l + 1]});
  const ops::StepNorm last = norm ? ops::StepNorm{at(2 * layers), at(2 * layers + 1)} : ops::StepNorm{};
  const ops::MlpStep step{rows,    pointer<const float>(input), slope, norm ? &last : nullptr,
                          epsilon, pointer<float>(output)};
  const py::gil_scoped_release release;
  ops::mlp_step(step, given, threads);
}

}  // namespace

void bind_attention(py::module_& module) {
  using namespace py::literals;
  module.def("decode_attention", &decode_attention, "keys"_a, "values"_a, "cache_dtype"_a, "environments"_a, "heads"_a,
             "rows"_a, "size"_a, py::kw_only(), "sinks"_a = 0, "query"_a, "key"_a, "value"_a, "dtype"_a, "query_stride"_a,
             "key_stride"_a, "value_stride"_a, "groups"_a = 1, "seen"_a, "cosine"_a = 0, "sine"_a = 0, "scale"_a,
             "softcap"_a = 0.0f, "output"_a, "threads"_a,
             "Append the key and value of one step to each environment's ring and attend over the rows in use. Arrays are "
             "addresses of CPU memory, which the caller has checked.");
  module.def("causal_attention", &causal_attention, "query"_a, "key"_a, "value"_a, "dtype"_a, "batch"_a, "steps"_a,
             "heads"_a, "size"_a, py::kw_only(), "groups"_a = 1, "lengths"_a = 0, "cosine"_a = 0, "sine"_a = 0,
             "window"_a = 0, "sinks"_a = 0, "scale"_a, "softcap"_a = 0.0f, "output"_a, "lse"_a,
             "gradients"_a = py::none(), "threads"_a,
             "Causal attention over whole windows; with gradients (upstream, of query, of key, of value) its derivative, "
             "which reads the output. An array of heads is (address, elements from a sequence, a step, a head to the "
             "next).");
  module.def("transformer_step", &transformer_step, "input"_a, "output"_a, "environments"_a, "width"_a, "feed_forward"_a,
             "parameters"_a, py::kw_only(), "epsilon"_a, "slope"_a, "keys"_a, "values"_a, "cache_dtype"_a, "layers"_a,
             "heads"_a, "rows"_a, "size"_a, "sinks"_a = 0, "seen"_a, "cosine"_a = 0, "sine"_a = 0, "threads"_a,
             "One cached step of a whole Transformer. Parameters are addresses: weight and bias of each layer's norm "
             "before attention, qkv, out, norm, norm, up, norm and down, then of the last norm; linear weights are "
             "[outputs / 32, inputs, 32].");
  module.def("mlp_step", &mlp_step, "input"_a, "output"_a, "rows"_a, "sizes"_a, "parameters"_a, py::kw_only(), "epsilon"_a,
             "slope"_a, "threads"_a,
             "Linear layers with leaky ReLU between them, of `sizes` inputs, outputs, outputs ...; parameters as for "
             "transformer_step, with those of a norm behind the last layer or without.");
}

}  // namespace twohot
