#include "bindings/encoder_step.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/addresses.h"
#include "bindings/rows.h"
#include "ops/encoders/encoder_step.h"

namespace twohot {
namespace {

namespace py = pybind11;

// The memory of an array with `rows` rows of so many numbers.
template <class T>
T* rows_of(const py::object& value, const char* what, std::int64_t rows, std::int64_t size) {
  const auto [numbers, found] = numbers_of<T>(value, what, rows);
  if (found == size) return numbers;
  throw py::value_error(std::string(what) + ": expected " + std::to_string(size) + " numbers a row, got " +
                        std::to_string(found));
}

std::int64_t length_of(const py::array& array, py::ssize_t dimensions, const char* what) {
  if (array.ndim() == dimensions) return array.shape(0);
  throw py::value_error(std::string(what) + ": expected " + std::to_string(dimensions) + " dimensions, got " +
                        std::to_string(array.ndim()));
}

class Images {
 public:
  Images(std::int64_t height, std::int64_t width, std::int64_t parts,
         const std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>>& layers,
         const std::vector<std::uintptr_t>& parameters, std::uintptr_t table, std::int64_t channels, float slope)
      : parts_(parts), table_(pointer<const float>(table)), slope_(slope) {
    constexpr std::int64_t most = 1 << 15;
    bool fits = !layers.empty() && parameters.size() == 2 * layers.size() && (table != 0 || channels == parts);
    for (const std::int64_t each : {height, width, parts, channels}) fits = fits && each >= 1 && each < most;
    if (fits) size_ = height * width * parts;
    for (std::size_t i = 0; fits && i < layers.size(); ++i) {
      const auto [outputs, kernel, stride, padding] = layers[i];
      fits = outputs >= 1 && outputs < most && outputs % ops::panel == 0 && kernel >= 1 && stride >= 1 &&
             padding >= 0 && padding < most && kernel <= height + 2 * padding && kernel <= width + 2 * padding &&
             parameters[2 * i] != 0;
      if (!fits) break;
      layers_.push_back({{pointer<const float>(parameters[2 * i]), pointer<const float>(parameters[2 * i + 1]),
                          kernel * kernel * channels, outputs},
                         height,
                         width,
                         channels,
                         kernel,
                         stride,
                         padding});
      height = layers_.back().rows();
      width = layers_.back().columns();
      channels = outputs;
    }
    if (!fits) {
      throw std::invalid_argument(
          "expected an image's sizes and convolutions (outputs, kernel, stride, padding) that see it, with outputs "
          "that "
          "are a multiple of " +
          std::to_string(ops::panel) + " and a weight and a bias for each");
    }
    outputs_ = height * width * channels;
  }

  std::int64_t outputs() const noexcept { return outputs_; }

  void fill(const py::array& pixels, const py::object& output, int threads) const {
    const std::int64_t images = length_of(pixels, 4, "pixels");
    const ops::ImagesStep step{images, rows_of<const std::uint8_t>(pixels, "pixels", images, size_),
                               parts_, table_,
                               slope_, rows_of<float>(output, "output", images, outputs_)};
    const py::gil_scoped_release release;
    ops::images_step(step, layers_, threads);
  }

 private:
  std::int64_t size_ = 0;
  std::int64_t parts_;
  std::int64_t outputs_;
  const float* table_;
  float slope_;
  std::vector<ops::StepConvolution> layers_;
};

class Tokens {
 public:
  Tokens(std::int64_t vocabulary, std::int64_t width, std::int64_t hidden,
         const std::vector<std::uintptr_t>& parameters, std::uintptr_t table)
      : vocabulary_(vocabulary), hidden_(hidden), embedding_(pointer<const float>(table)) {
    constexpr std::int64_t most = 1 << 20;
    bool fits = vocabulary >= 1 && width >= 1 && width < most && hidden >= 1 && hidden < most;
    fits = fits && hidden % ops::head_size_step == 0 && parameters.size() == 4 && table != 0;
    for (const std::uintptr_t each : parameters) fits = fits && each != 0;
    if (!fits) {
      throw std::invalid_argument("expected vocabulary, width >= 1, hidden that is a multiple of " +
                                  std::to_string(ops::head_size_step) + ", 4 addresses of parameters and a table");
    }
    const auto at = [&](std::size_t i) { return pointer<const float>(parameters[i]); };
    input_ = {at(0), at(1), width, 3 * hidden};
    state_ = {at(2), at(3), hidden, 3 * hidden};
  }

  std::int64_t outputs() const noexcept { return hidden_; }

  void fill(const py::array& tokens, const py::object& output, int threads) const {
    const std::int64_t rows = length_of(tokens, 2, "tokens");
    const auto [found, length] = numbers_of<const std::int64_t>(tokens, "tokens", rows);
    const ops::TokensStep step{rows,       length, found,  vocabulary_,
                               embedding_, input_, state_, rows_of<float>(output, "output", rows, hidden_)};
    const py::gil_scoped_release release;
    ops::tokens_step(step, threads);
  }

 private:
  std::int64_t vocabulary_;
  std::int64_t hidden_;
  const float* embedding_;
  ops::StepLinear input_;
  ops::StepLinear state_;
};

}  // namespace

void bind_encoder_step(py::module_& module) {
  using namespace py::literals;
  py::class_<Images>(
      module, "ImagesStep",
      "Convolutions (outputs, kernel, stride, padding) with leaky ReLU. Parameters are addresses of weight "
      "[outputs / 32, kernel * kernel * channels, 32] and bias of each, whose memory must live as long; so "
      "is the table [parts, 256, channels], or 0.")
      .def(py::init<std::int64_t, std::int64_t, std::int64_t,
                    const std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>>&,
                    const std::vector<std::uintptr_t>&, std::uintptr_t, std::int64_t, float>(),
           py::kw_only(), "height"_a, "width"_a, "parts"_a, "layers"_a, "parameters"_a, "table"_a, "channels"_a,
           "slope"_a)
      .def_property_readonly("outputs", &Images::outputs)
      .def("fill", &Images::fill, "pixels"_a, "output"_a, py::kw_only(), "threads"_a);
  py::class_<Tokens>(
      module, "TokensStep",
      "A GRU over embedded tokens. Parameters are addresses of the embedding, weight and bias of what it "
      "takes and of its state, packed as for mlp_step, whose memory must live as long.")
      .def(py::init<std::int64_t, std::int64_t, std::int64_t, const std::vector<std::uintptr_t>&, std::uintptr_t>(),
           py::kw_only(), "vocabulary"_a, "width"_a, "hidden"_a, "parameters"_a, "table"_a)
      .def_property_readonly("outputs", &Tokens::outputs)
      .def("fill", &Tokens::fill, "tokens"_a, "output"_a, py::kw_only(), "threads"_a);
}

}  // namespace twohot
