#include "bindings/ops.h"

#include <stdexcept>
#include <string>

#include "ops/two_hot.h"

namespace twohot {
namespace {

namespace py = pybind11;

template <class T>
T* pointer(std::uintptr_t address) noexcept {
  return reinterpret_cast<T*>(address);
}

ops::Rows rows_of(std::uintptr_t logits, const std::string& dtype, std::int64_t rows, std::int64_t bins,
                  std::int64_t targets) {
  if (rows < 0 || bins < 2 || bins > 4096 || targets < 1 || rows % targets != 0) {
    throw std::invalid_argument("expected rows >= 0, 2 to 4096 bins and a number of targets that divides the rows, got " +
                                std::to_string(rows) + ", " + std::to_string(bins) + " and " + std::to_string(targets));
  }
  ops::Float kind;
  if (dtype == "float32") {
    kind = ops::Float::float32;
  } else if (dtype == "bfloat16") {
    kind = ops::Float::bfloat16;
  } else if (dtype == "float16") {
    kind = ops::Float::float16;
  } else {
    throw std::invalid_argument("expected logits of float32, bfloat16 or float16, got " + dtype);
  }
  return {pointer<const void>(logits), kind, rows, bins, targets};
}

void forward(std::uintptr_t logits, const std::string& dtype, std::int64_t rows, std::int64_t bins,
             std::int64_t targets, std::uintptr_t position, std::uintptr_t mask, std::uintptr_t values,
             bool antisymmetric, std::uintptr_t loss, std::uintptr_t maximum, std::uintptr_t log_sum,
             std::uintptr_t readout, int threads) {
  const ops::Rows input = rows_of(logits, dtype, rows, bins, targets);
  if ((loss != 0 && position == 0) || (readout != 0 && values == 0)) {
    throw std::invalid_argument("a loss needs positions and a readout needs values");
  }
  const ops::Forward out{pointer<const float>(position),
                         pointer<const std::uint8_t>(mask),
                         pointer<const float>(values),
                         antisymmetric,
                         pointer<float>(loss),
                         pointer<float>(maximum),
                         pointer<float>(log_sum),
                         pointer<float>(readout)};
  const py::gil_scoped_release release;
  ops::two_hot_forward(input, out, threads);
}

void backward(std::uintptr_t logits, const std::string& dtype, std::int64_t rows, std::int64_t bins,
              std::int64_t targets, std::uintptr_t position, std::uintptr_t mask, std::uintptr_t maximum,
              std::uintptr_t log_sum, std::uintptr_t gradient, std::uintptr_t out, int threads) {
  const ops::Rows input = rows_of(logits, dtype, rows, bins, targets);
  if (rows > 0 && (position == 0 || maximum == 0 || log_sum == 0 || gradient == 0 || out == 0)) {
    throw std::invalid_argument("expected the address of every array, got a zero");
  }
  const ops::Backward pass{pointer<const float>(position), pointer<const std::uint8_t>(mask),
                           pointer<const float>(maximum),  pointer<const float>(log_sum),
                           pointer<const float>(gradient), pointer<void>(out)};
  const py::gil_scoped_release release;
  ops::two_hot_backward(input, pass, threads);
}

}  // namespace

void bind_ops(py::module_& module) {
  using namespace py::literals;
  module.def("two_hot_forward", &forward, "logits"_a, "dtype"_a, py::kw_only(), "rows"_a, "bins"_a, "targets"_a,
             "position"_a = 0, "mask"_a = 0, "values"_a = 0, "antisymmetric"_a = false, "loss"_a = 0, "maximum"_a = 0,
             "log_sum"_a = 0, "readout"_a = 0, "threads"_a,
             "Loss and readout of rows of logits. Arrays are addresses of C-contiguous CPU memory, which the caller has "
             "checked; 0 means not wanted.");
  module.def("two_hot_backward", &backward, "logits"_a, "dtype"_a, py::kw_only(), "rows"_a, "bins"_a, "targets"_a,
             "position"_a, "mask"_a = 0, "maximum"_a, "log_sum"_a, "gradient"_a, "out"_a, "threads"_a,
             "Gradient of the loss with respect to the logits, from what the forward pass saved.");
  module.def("cpu_capability", &ops::capability, "Which compiled form of the kernels this processor runs.");
}

}  // namespace twohot
