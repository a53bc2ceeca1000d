#include "bindings/critics.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "ops/critics.h"

namespace twohot {
namespace {

namespace py = pybind11;

template <class T>
T* pointer(std::uintptr_t address) noexcept {
  return reinterpret_cast<T*>(address);
}

ops::Float float_of(const std::string& dtype) {
  if (dtype == "float32") return ops::Float::float32;
  if (dtype == "bfloat16") return ops::Float::bfloat16;
  if (dtype == "float16") return ops::Float::float16;
  throw std::invalid_argument("expected float32, bfloat16 or float16, got " + dtype);
}

ops::Features features_of(std::uintptr_t data, const std::string& dtype, std::int64_t rows, std::int64_t width,
                          float slope) {
  if (rows < 0 || width < 1 || (rows > 0 && data == 0)) {
    throw std::invalid_argument("expected the address of rows >= 0 of width >= 1, got " + std::to_string(rows) + " of " +
                                std::to_string(width));
  }
  if (!(slope >= 0 && std::isfinite(slope))) {
    throw std::invalid_argument("expected a slope of at least 0, got " + std::to_string(slope));
  }
  return {pointer<void>(data), float_of(dtype), rows, width};
}

void require_addresses(bool all) {
  if (!all) throw std::invalid_argument("expected addresses, got a zero");
}

void first_layer(std::uintptr_t features, const std::string& dtype, std::int64_t rows, std::int64_t width,
                 std::uintptr_t state, const std::string& state_dtype, std::int64_t state_stride, std::uintptr_t table,
                 std::uintptr_t step, std::uintptr_t entry, float slope, bool add, int threads) {
  const ops::Features out = features_of(features, dtype, rows, width, slope);
  require_addresses(rows == 0 || (state && table && step && entry));
  const ops::FirstLayer layer{pointer<const void>(state),        float_of(state_dtype),
                              state_stride,                      pointer<const float>(table),
                              pointer<const std::int64_t>(step), pointer<const std::int64_t>(entry),
                              add};
  const py::gil_scoped_release release;
  ops::first_layer(out, layer, slope, threads);
}

void hidden_layer(std::uintptr_t features, const std::string& dtype, std::int64_t rows, std::int64_t width,
                  std::uintptr_t bias, float slope, int threads) {
  const ops::Features x = features_of(features, dtype, rows, width, slope);
  require_addresses(rows == 0 || bias);
  const py::gil_scoped_release release;
  ops::hidden_layer(x, pointer<const float>(bias), slope, threads);
}

void hidden_layer_backward(std::uintptr_t gradient, const std::string& dtype, std::int64_t rows, std::int64_t width,
                           std::uintptr_t output, std::uintptr_t of_bias, float slope, int threads) {
  const ops::Features g = features_of(gradient, dtype, rows, width, slope);
  require_addresses(rows == 0 || (output && of_bias));
  const py::gil_scoped_release release;
  ops::hidden_layer_backward(g, pointer<const void>(output), pointer<float>(of_bias), slope, threads);
}

void first_layer_backward(std::uintptr_t gradient, const std::string& dtype, std::int64_t rows, std::int64_t width,
                          std::uintptr_t output, std::uintptr_t step, std::uintptr_t entry, std::uintptr_t of_state,
                          std::int64_t of_state_stride, std::uintptr_t of_table, float slope, int threads) {
  const ops::Features g = features_of(gradient, dtype, rows, width, slope);
  require_addresses(rows == 0 || (output && step && entry && of_state && of_table));
  const ops::FirstLayerGradient into{pointer<const std::int64_t>(step), pointer<const std::int64_t>(entry),
                                     pointer<float>(of_state), of_state_stride, pointer<float>(of_table)};
  const py::gil_scoped_release release;
  ops::first_layer_backward(g, pointer<const void>(output), into, slope, threads);
}

}  // namespace

void bind_critics(py::module_& module) {
  using namespace py::literals;
  module.def("first_layer", &first_layer, "features"_a, "dtype"_a, "rows"_a, "width"_a, py::kw_only(), "state"_a,
             "state_dtype"_a, "state_stride"_a, "table"_a, "step"_a, "entry"_a, "slope"_a, "add"_a, "threads"_a,
             "Rows of a factored first layer with leaky ReLU. Arrays are addresses of CPU memory, which the caller has "
             "checked, indices too.");
  module.def("hidden_layer", &hidden_layer, "features"_a, "dtype"_a, "rows"_a, "width"_a, py::kw_only(), "bias"_a,
             "slope"_a, "threads"_a, "Bias and leaky ReLU, in place.");
  module.def("hidden_layer_backward", &hidden_layer_backward, "gradient"_a, "dtype"_a, "rows"_a, "width"_a,
             py::kw_only(), "output"_a, "of_bias"_a, "slope"_a, "threads"_a, "The derivative of hidden_layer().");
  module.def("first_layer_backward", &first_layer_backward, "gradient"_a, "dtype"_a, "rows"_a, "width"_a, py::kw_only(),
             "output"_a, "step"_a, "entry"_a, "of_state"_a, "of_state_stride"_a, "of_table"_a, "slope"_a, "threads"_a,
             "The derivative of first_layer().");
}

}  // namespace twohot
