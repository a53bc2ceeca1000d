#include "bindings/transformer_step.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/addresses.h"
#include "bindings/ring.h"
#include "ops/transformer/transformer_step.h"

namespace twohot {
namespace {

namespace py = pybind11;

// Of a layer: weight and bias of the norm before attention, qkv, out, the norm of what was attended, the norm before
// the feed-forward part, up, the norm of the hidden units, and down; after all layers those of the last norm.
constexpr std::size_t addresses_of_layer = 16;

void transformer_step(std::uintptr_t input, std::uintptr_t output, std::int64_t environments, std::int64_t width,
                      std::int64_t feed_forward, const std::vector<std::uintptr_t>& parameters, float epsilon,
                      float slope, std::uintptr_t keys, std::uintptr_t values, const std::string& cache_dtype,
                      std::int64_t layers, std::int64_t heads, std::int64_t rows, std::int64_t size, std::int64_t sinks,
                      std::uintptr_t cache_position, std::uintptr_t cosine, std::uintptr_t sine, int threads) {
  check_head_size(size);
  const ops::Float dtype = product_dtype(cache_dtype, "cache_dtype");
  if (environments < 0 || layers < 0 || heads < 1 || sinks < 0 || sinks >= rows || width != heads * size ||
      feed_forward < 1 || feed_forward % ops::head_size_step != 0) {
    throw std::invalid_argument(
        "expected heads >= 1, 0 <= sinks < rows, a width of heads * size and a feed_forward that "
        "is a multiple of " +
        std::to_string(ops::head_size_step));
  }
  const std::size_t count = static_cast<std::size_t>(layers) * addresses_of_layer;
  if (parameters.size() != count + 2) {
    throw std::invalid_argument("expected " + std::to_string(count + 2) + " addresses of parameters, got " +
                                std::to_string(parameters.size()));
  }
  if (!input || !output || !keys || !values || !cache_position || !cosine != !sine) {
    throw std::invalid_argument("expected the addresses of input, output, caches and cache_position, got a zero");
  }
  check_cache_position(cache_position, environments);
  const auto at = [&](std::size_t i) { return pointer<const float>(parameters[i]); };
  std::vector<ops::StepLayer> given;
  for (std::int64_t l = 0; l < layers; ++l) {
    const std::size_t i = static_cast<std::size_t>(l) * addresses_of_layer;
    const std::int64_t bytes = l * environments * heads * rows * size * ops::bytes_of(dtype);
    given.push_back(
        {{at(i), at(i + 1)},
         {at(i + 2), at(i + 3), width, 3 * width},
         {at(i + 4), at(i + 5), width, width},
         {at(i + 6), at(i + 7)},
         {at(i + 8), at(i + 9)},
         {at(i + 10), at(i + 11), width, feed_forward},
         {at(i + 12), at(i + 13)},
         {at(i + 14), at(i + 15), feed_forward, width},
         {pointer<char>(keys) + bytes, pointer<char>(values) + bytes, dtype, environments, heads, rows, size, sinks}});
  }
  const ops::TransformerStep step{environments,
                                  width,
                                  feed_forward,
                                  pointer<const float>(input),
                                  pointer<const std::int64_t>(cache_position),
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
  if (layers < 1 || rows < 0 ||
      std::any_of(
          sizes.begin(), sizes.end(), [](std::int64_t size) { return size < 1; }) ||
      (parameters.size() != 2 * layers && !norm) || (norm && sizes.back() % ops::head_size_step != 0)) {
    throw std::invalid_argument(
        "expected sizes >= 1 of inputs and of the outputs of each layer, a weight and a bias for each "
        "layer and, after outputs that are a multiple of " +
        std::to_string(ops::head_size_step) + ", perhaps those of a norm");
  }
  if (rows > 0 && (!input || !output))
    throw std::invalid_argument("expected the addresses of input and output, got a zero");
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

void bind_transformer_step(py::module_& module) {
  using namespace py::literals;
  module.def("transformer_step", &transformer_step, "x"_a, "output"_a, "environments"_a, "width"_a, "feed_forward"_a,
             "parameters"_a, py::kw_only(), "epsilon"_a, "slope"_a, "keys"_a, "values"_a, "cache_dtype"_a, "layers"_a,
             "heads"_a, "rows"_a, "size"_a, "sinks"_a = 0, "cache_position"_a, "cosine"_a = 0, "sine"_a = 0,
             "threads"_a,
             "One cached step of a whole Transformer. Parameters are addresses: weight and bias of each layer's norm "
             "before attention, qkv, out, norm, norm, up, norm and down, then of the last norm; linear weights are "
             "[outputs / 32, inputs, 32].");
  module.def("mlp_step", &mlp_step, "x"_a, "output"_a, "rows"_a, "sizes"_a, "parameters"_a, py::kw_only(), "epsilon"_a,
             "slope"_a, "threads"_a,
             "Linear layers with leaky ReLU between them, of `sizes` inputs, outputs, outputs ...; parameters as for "
             "transformer_step, with those of a norm after the last layer or without.");
}

}  // namespace twohot
