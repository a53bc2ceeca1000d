#include "bindings/images.h"

#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>

#include "bindings/addresses.h"
#include "ops/images/images_kernels.h"

namespace twohot {
namespace {

namespace py = pybind11;

using Shape = std::array<std::int64_t, 4>;

ops::Images images_of(const Shape& shape, std::int64_t least) {
  const auto [images, height, width, channels] = shape;
  if (images < 0 || height < least || width < least || channels < 1 || channels > ops::max_channels ||
      channels % ops::channel_step != 0) {
    throw std::invalid_argument("expected images with sides of at least " + std::to_string(least) +
                                " and channels that are a multiple of " + std::to_string(ops::channel_step) +
                                " up to " + std::to_string(ops::max_channels));
  }
  return {images, height, width, channels};
}

void require_addresses(const ops::Images& images, bool all) {
  if (images.images > 0 && !all) throw std::invalid_argument("expected addresses, got a zero");
}

void max_pool(const Shape& shape, std::uintptr_t x, std::uintptr_t out, std::uintptr_t argmax, int threads) {
  const ops::Images images = images_of(shape, 3);
  require_addresses(images, x && out && argmax);
  const py::gil_scoped_release release;
  ops::max_pool(images, pointer<const float>(x), pointer<float>(out), pointer<std::uint8_t>(argmax), threads);
}

void max_pool_backward(const Shape& shape, std::uintptr_t grad_output, std::uintptr_t argmax, std::uintptr_t grad_x,
                       int threads) {
  const ops::Images images = images_of(shape, 3);
  require_addresses(images, grad_output && argmax && grad_x);
  const py::gil_scoped_release release;
  ops::max_pool_backward(images, pointer<const float>(grad_output), pointer<const std::uint8_t>(argmax),
                         pointer<float>(grad_x), threads);
}

ops::ResidualNorm norm_of(const Shape& shape, std::int64_t groups, std::uintptr_t weight, std::uintptr_t bias,
                          float epsilon) {
  const ops::Images images = images_of(shape, 1);
  if (groups < 1 || images.channels % groups != 0 || !(epsilon > 0) || !weight || !bias) {
    throw std::invalid_argument(
        "expected groups that divide the channels, epsilon > 0, and addresses of weight and bias");
  }
  return {images, groups, pointer<const float>(weight), pointer<const float>(bias), epsilon};
}

void residual_norm(const Shape& shape, std::int64_t groups, std::uintptr_t weight, std::uintptr_t bias, float epsilon,
                   std::uintptr_t x, std::uintptr_t residual, std::uintptr_t sum, std::uintptr_t out, int threads) {
  const ops::ResidualNorm norm = norm_of(shape, groups, weight, bias, epsilon);
  require_addresses(norm.shape, x && residual && sum && out);
  const py::gil_scoped_release release;
  ops::residual_norm(norm, pointer<const float>(x), pointer<const float>(residual), pointer<float>(sum),
                     pointer<float>(out), threads);
}

void residual_norm_backward(const Shape& shape, std::int64_t groups, std::uintptr_t weight, std::uintptr_t bias,
                            float epsilon, std::uintptr_t grad_output, std::uintptr_t sum, std::uintptr_t grad_sum,
                            std::uintptr_t grad_weight, std::uintptr_t grad_bias, int threads) {
  const ops::ResidualNorm norm = norm_of(shape, groups, weight, bias, epsilon);
  require_addresses(norm.shape, grad_output && sum && grad_sum && grad_weight && grad_bias);
  const py::gil_scoped_release release;
  ops::residual_norm_backward(norm, pointer<const float>(grad_output), pointer<const float>(sum),
                              pointer<float>(grad_sum), pointer<float>(grad_weight), pointer<float>(grad_bias),
                              threads);
}

}  // namespace

void bind_images(py::module_& module) {
  using namespace py::literals;
  module.def(
      "max_pool", &max_pool, "shape"_a, py::kw_only(), "x"_a, "out"_a, "argmax"_a, "threads"_a,
      "The maxima of every second square of 3 x 3 pixels, and where (uint8) they were. The shape is [images, height, "
      "width, channels] of x; arrays are addresses of float32.");
  module.def("max_pool_backward", &max_pool_backward, "shape"_a, py::kw_only(), "grad_output"_a, "argmax"_a, "grad_x"_a,
             "threads"_a, "The derivative of max_pool().");
  module.def("residual_norm", &residual_norm, "shape"_a, "groups"_a, py::kw_only(), "weight"_a, "bias"_a, "epsilon"_a,
             "x"_a, "residual"_a, "total"_a, "out"_a, "threads"_a, "total = x + residual, out = group_norm(total).");
  module.def("residual_norm_backward", &residual_norm_backward, "shape"_a, "groups"_a, py::kw_only(), "weight"_a,
             "bias"_a, "epsilon"_a, "grad_output"_a, "total"_a, "grad_sum"_a, "grad_weight"_a, "grad_bias"_a,
             "threads"_a, "The derivative of residual_norm().");
}

}  // namespace twohot
