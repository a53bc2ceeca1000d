#include "bindings/transformer_layer.h"

#include <pybind11/stl.h>

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/addresses.h"
#include "ops/transformer/transformer_layer.h"

namespace twohot {
namespace {

namespace py = pybind11;

// Addresses of float32 arrays or arrays of the layer's dtype, in an order that the docstring names.
class Addresses {
 public:
  Addresses(const std::vector<std::uintptr_t>& addresses, std::size_t count) : addresses_(addresses) {
    if (addresses.size() != count) {
      throw std::invalid_argument("expected " + std::to_string(count) + " addresses, got " +
                                  std::to_string(addresses.size()));
    }
    for (const std::uintptr_t address : addresses) {
      if (address == 0) throw std::invalid_argument("expected addresses, got a zero");
    }
  }

  float* operator[](std::size_t i) const noexcept { return pointer<float>(addresses_[i]); }

 private:
  const std::vector<std::uintptr_t>& addresses_;
};

ops::LayerShape shape_of(std::int64_t rows, std::int64_t width, std::int64_t hidden, const std::string& dtype,
                         float epsilon) {
  if (rows < 0 || width < 1 || hidden < 1 || width % ops::layer_width_step != 0 ||
      hidden % ops::layer_width_step != 0) {
    throw std::invalid_argument("expected rows >= 0 and a width and hidden units that are multiples of " +
                                std::to_string(ops::layer_width_step) + ", got " + std::to_string(rows) + ", " +
                                std::to_string(width) + " and " + std::to_string(hidden));
  }
  if (!(epsilon > 0)) throw std::invalid_argument("expected epsilon > 0, got " + std::to_string(epsilon));
  return {rows, width, hidden, product_dtype(dtype), epsilon};
}

void pack_weight(std::uintptr_t weight, std::int64_t outputs, std::int64_t inputs, bool backward,
                 const std::string& dtype, std::uintptr_t packed, int threads) {
  const ops::LayerShape shape = shape_of(0, inputs, outputs, dtype, 1);
  const std::vector<std::uintptr_t> given{weight, packed};
  const Addresses at(given, 2);
  const py::gil_scoped_release release;
  ops::pack_weight(at[0], outputs, inputs, backward, shape.dtype, at[1], threads);
}

void before_attention(std::int64_t rows, std::int64_t width, std::int64_t hidden, const std::string& dtype,
                      const std::vector<std::uintptr_t>& inputs, const std::vector<std::uintptr_t>& outputs,
                      float epsilon, int threads) {
  const ops::LayerShape shape = shape_of(rows, width, hidden, dtype, epsilon);
  const Addresses in(inputs, 4);
  const Addresses out(outputs, 1);
  const ops::BeforeAttention layer{shape, in[0], {in[1], in[2]}, {in[3], nullptr, nullptr}, out[0]};
  const py::gil_scoped_release release;
  ops::before_attention(layer, threads);
}

void before_attention_backward(std::int64_t rows, std::int64_t width, std::int64_t hidden, const std::string& dtype,
                               const std::vector<std::uintptr_t>& inputs, const std::vector<std::uintptr_t>& outputs,
                               float epsilon, int threads) {
  const ops::LayerShape shape = shape_of(rows, width, hidden, dtype, epsilon);
  const Addresses in(inputs, 5);
  const Addresses out(outputs, 4);
  const ops::BeforeAttention layer{shape, in[0], {in[1], in[2]}, {nullptr, in[3], nullptr}, nullptr};
  const ops::BeforeAttentionGradient gradient{in[4], out[0], out[1], {out[2], out[3]}};
  const py::gil_scoped_release release;
  ops::before_attention_backward(layer, gradient, threads);
}

// Of both directions: the parameters after the attention, then x and what was attended.
constexpr std::size_t after_inputs = 14;

ops::AfterAttention after_of(const ops::LayerShape& shape, const Addresses& in, bool backward, float slope,
                             std::uint64_t seed, double dropout) {
  if (!(slope >= 0 && std::isfinite(slope)) || !(dropout >= 0 && dropout < 1)) {
    throw std::invalid_argument("expected a slope of at least 0 and a dropout in [0, 1), got " + std::to_string(slope) +
                                " and " + std::to_string(dropout));
  }
  const auto linear = [&](std::size_t i) {
    return ops::LayerLinear{backward ? nullptr : in[i], backward ? in[i] : nullptr, in[i + 1]};
  };
  return {shape,
          in[12],
          in[13],
          linear(0),
          {in[2], in[3]},
          {in[4], in[5]},
          linear(6),
          {in[8], in[9]},
          linear(10),
          slope,
          seed,
          static_cast<std::uint32_t>(dropout * 0x1p32),
          static_cast<float>(1 / (1 - dropout)),
          nullptr,
          nullptr,
          nullptr,
          nullptr};
}

void after_attention(std::int64_t rows, std::int64_t width, std::int64_t hidden, const std::string& dtype,
                     const std::vector<std::uintptr_t>& inputs, const std::vector<std::uintptr_t>& outputs,
                     float epsilon, float slope, std::uint64_t seed, double dropout, int threads) {
  const Addresses out(outputs, 4);
  ops::AfterAttention layer = after_of(shape_of(rows, width, hidden, dtype, epsilon), Addresses(inputs, after_inputs),
                                       false, slope, seed, dropout);
  layer.projected = out[0];
  layer.middle = out[1];
  layer.activated = out[2];
  layer.output = out[3];
  const py::gil_scoped_release release;
  ops::after_attention(layer, threads);
}

void after_attention_backward(std::int64_t rows, std::int64_t width, std::int64_t hidden, const std::string& dtype,
                              const std::vector<std::uintptr_t>& inputs, const std::vector<std::uintptr_t>& outputs,
                              float epsilon, float slope, std::uint64_t seed, double dropout, int threads) {
  const Addresses in(inputs, after_inputs + 4);
  const Addresses out(outputs, 14);
  ops::AfterAttention layer = after_of(shape_of(rows, width, hidden, dtype, epsilon), in, true, slope, seed, dropout);
  layer.projected = in[after_inputs];
  layer.middle = in[after_inputs + 1];
  layer.activated = in[after_inputs + 2];
  const ops::AfterAttentionGradient gradient{in[after_inputs + 3],
                                             out[0],
                                             out[1],
                                             out[2],
                                             out[3],
                                             out[8],
                                             out[9],
                                             out[12],
                                             out[13],
                                             {out[4], out[5]},
                                             {out[6], out[7]},
                                             {out[10], out[11]}};
  const py::gil_scoped_release release;
  ops::after_attention_backward(layer, gradient, threads);
}

void dropout(std::uintptr_t to, std::uintptr_t source, std::int64_t count, std::uint64_t seed, double dropout,
             int threads) {
  if (count < 0 || (count > 0 && (!to || !source)) || !(dropout >= 0 && dropout < 1)) {
    throw std::invalid_argument("expected the addresses of numbers and a dropout in [0, 1), got " +
                                std::to_string(dropout));
  }
  const py::gil_scoped_release release;
  ops::dropout(pointer<float>(to), pointer<const float>(source), count, seed,
               static_cast<std::uint32_t>(dropout * 0x1p32), static_cast<float>(1 / (1 - dropout)), threads);
}

}  // namespace

void bind_transformer_layer(py::module_& module) {
  using namespace py::literals;
  module.def("pack_weight", &pack_weight, "weight"_a, "outputs"_a, "inputs"_a, py::kw_only(), "backward"_a, "dtype"_a,
             "packed"_a, "threads"_a,
             "A float32 weight [outputs, inputs] as this processor's products read it, in outputs * inputs floats.");
  module.def("before_attention", &before_attention, "rows"_a, "width"_a, "hidden"_a, "dtype"_a, py::kw_only(),
             "inputs"_a, "outputs"_a, "epsilon"_a, "threads"_a,
             "linear(norm(x)). Inputs are addresses of x, the norm's weight and bias, and the packed weight [hidden, "
             "width]; the output is [rows, hidden] of dtype.");
  module.def("before_attention_backward", &before_attention_backward, "rows"_a, "width"_a, "hidden"_a, "dtype"_a,
             py::kw_only(), "inputs"_a, "outputs"_a, "epsilon"_a, "threads"_a,
             "The derivative of before_attention(). Inputs as there, with the weight packed for it, and grad_output; "
             "outputs are gradients of x, to which it is added, of the weight, and of the norm's weight and "
             "bias.");
  module.def("after_attention", &after_attention, "rows"_a, "width"_a, "hidden"_a, "dtype"_a, py::kw_only(), "inputs"_a,
             "outputs"_a, "epsilon"_a, "slope"_a, "seed"_a, "dropout"_a, "threads"_a,
             "m = x + norm(out(attended)), then m + dropout(down(norm(leaky(up(norm(m)))))). Inputs are addresses of "
             "weight and bias of out, norm, norm, up, norm and down, of x, and of what was attended; outputs are "
             "out(attended), m, leaky(up(...)) and the result.");
  module.def(
      "after_attention_backward", &after_attention_backward, "rows"_a, "width"_a, "hidden"_a, "dtype"_a, py::kw_only(),
      "inputs"_a, "outputs"_a, "epsilon"_a, "slope"_a, "seed"_a, "dropout"_a, "threads"_a,
      "The derivative of after_attention(). Inputs as there, with weights packed for it, its first three outputs, "
      "and grad_output; outputs are gradients of x and of what was attended, and of the parameters.");
  module.def("dropout", &dropout, "to"_a, "source"_a, "count"_a, py::kw_only(), "seed"_a, "dropout"_a, "threads"_a,
             "Dropout of float32 numbers, as in after_attention().");
}

}  // namespace twohot
