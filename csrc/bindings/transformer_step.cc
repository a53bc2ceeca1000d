#include "bindings/transformer_step.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
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

// A Transformer's layers, without their rings, and its last norm.
struct Layers {
  std::vector<ops::StepLayer> layers;
  ops::StepNorm norm;
};

Layers layers_of(const std::vector<std::uintptr_t>& parameters, std::int64_t layers, std::int64_t width,
                 std::int64_t feed_forward) {
  if (layers < 0 || feed_forward < 1 || feed_forward % ops::head_size_step != 0) {
    throw std::invalid_argument("expected layers >= 0 and a feed_forward that is a multiple of " +
                                std::to_string(ops::head_size_step));
  }
  const std::size_t count = static_cast<std::size_t>(layers) * addresses_of_layer;
  if (parameters.size() != count + 2) {
    throw std::invalid_argument("expected " + std::to_string(count + 2) + " addresses of parameters, got " +
                                std::to_string(parameters.size()));
  }
  const auto at = [&](std::size_t i) { return pointer<const float>(parameters[i]); };
  Layers found{{}, {at(count), at(count + 1)}};
  for (std::size_t i = 0; i < count; i += addresses_of_layer) {
    found.layers.push_back({{at(i), at(i + 1)},
                            {at(i + 2), at(i + 3), width, 3 * width},
                            {at(i + 4), at(i + 5), width, width},
                            {at(i + 6), at(i + 7)},
                            {at(i + 8), at(i + 9)},
                            {at(i + 10), at(i + 11), width, feed_forward},
                            {at(i + 12), at(i + 13)},
                            {at(i + 14), at(i + 15), feed_forward, width},
                            {}});
  }
  return found;
}

// Keys and values [layers, environments, heads, rows, size] of all layers.
struct Rings {
  std::uintptr_t keys;
  std::uintptr_t values;
  ops::Ring first;  // of these sizes

  Rings(std::uintptr_t keys, std::uintptr_t values, const std::string& dtype, std::int64_t environments,
        std::int64_t width, std::int64_t heads, std::int64_t rows, std::int64_t size, std::int64_t sinks,
        std::uintptr_t cache_position, std::uintptr_t cosine, std::uintptr_t sine)
      : keys(keys),
        values(values),
        first{nullptr, nullptr, product_dtype(dtype, "cache_dtype"), environments, heads, rows, size, sinks} {
    check_head_size(size);
    if (environments < 0 || heads < 1 || sinks < 0 || sinks >= rows || width != heads * size) {
      throw std::invalid_argument("expected heads >= 1, 0 <= sinks < rows and a width of heads * size");
    }
    if (!keys || !values || !cache_position || !cosine != !sine) {
      throw std::invalid_argument("expected the addresses of caches and cache_position, got a zero");
    }
    check_cache_position(cache_position, environments);
  }

  void put_into(std::vector<ops::StepLayer>& layers) const {
    const std::int64_t bytes = first.environments * first.heads * first.rows * first.size * ops::bytes_of(first.dtype);
    std::int64_t offset = 0;
    for (ops::StepLayer& layer : layers) {
      layer.ring = first;
      layer.ring.keys = pointer<char>(keys) + offset;
      layer.ring.values = pointer<char>(values) + offset;
      offset += bytes;
    }
  }
};

void transformer_step(std::uintptr_t input, std::uintptr_t output, std::int64_t environments, std::int64_t width,
                      std::int64_t feed_forward, const std::vector<std::uintptr_t>& parameters, float epsilon,
                      float slope, std::uintptr_t keys, std::uintptr_t values, const std::string& cache_dtype,
                      std::int64_t layers, std::int64_t heads, std::int64_t rows, std::int64_t size, std::int64_t sinks,
                      std::uintptr_t cache_position, std::uintptr_t cosine, std::uintptr_t sine, int threads) {
  const Rings rings(keys, values, cache_dtype, environments, width, heads, rows, size, sinks, cache_position, cosine,
                    sine);
  Layers given = layers_of(parameters, layers, width, feed_forward);
  if (!input || !output) throw std::invalid_argument("expected the addresses of input and output, got a zero");
  rings.put_into(given.layers);
  const ops::TransformerStep step{environments,
                                  width,
                                  feed_forward,
                                  pointer<const float>(input),
                                  pointer<const std::int64_t>(cache_position),
                                  pointer<const float>(cosine),
                                  pointer<const float>(sine),
                                  given.norm,
                                  epsilon,
                                  slope,
                                  pointer<float>(output)};
  const py::gil_scoped_release release;
  ops::transformer_step(step, given.layers, threads);
}

// Linear layers, and the norm after them or none.
struct Mlp {
  std::vector<ops::StepLinear> layers;
  std::optional<ops::StepNorm> norm;

  Mlp(const std::vector<std::int64_t>& sizes, const std::vector<std::uintptr_t>& parameters) {
    const std::size_t count = sizes.empty() ? 0 : sizes.size() - 1;
    const bool with_norm = parameters.size() == 2 * count + 2;
    if (count < 1 ||
        std::any_of(
            sizes.begin(), sizes.end(), [](std::int64_t size) { return size < 1; }) ||
        (parameters.size() != 2 * count && !with_norm) || (with_norm && sizes.back() % ops::head_size_step != 0)) {
      throw std::invalid_argument(
          "expected sizes >= 1 of inputs and of the outputs of each layer, a weight and a bias for each "
          "layer and, after outputs that are a multiple of " +
          std::to_string(ops::head_size_step) + ", perhaps those of a norm");
    }
    const auto at = [&](std::size_t i) { return pointer<const float>(parameters[i]); };
    for (std::size_t l = 0; l < count; ++l) layers.push_back({at(2 * l), at(2 * l + 1), sizes[l], sizes[l + 1]});
    if (with_norm) norm = ops::StepNorm{at(2 * count), at(2 * count + 1)};
  }

  ops::MlpStep step(std::int64_t rows, float slope, float epsilon) const noexcept {
    return {rows, nullptr, slope, norm ? &*norm : nullptr, epsilon, nullptr};
  }
};

void mlp_step(std::uintptr_t input, std::uintptr_t output, std::int64_t rows, const std::vector<std::int64_t>& sizes,
              const std::vector<std::uintptr_t>& parameters, float epsilon, float slope, int threads) {
  const Mlp mlp(sizes, parameters);
  if (rows < 0) throw std::invalid_argument("expected rows >= 0");
  if (rows > 0 && (!input || !output))
    throw std::invalid_argument("expected the addresses of input and output, got a zero");
  ops::MlpStep step = mlp.step(rows, slope, epsilon);
  step.input = pointer<const float>(input);
  step.output = pointer<float>(output);
  const py::gil_scoped_release release;
  ops::mlp_step(step, mlp.layers, threads);
}

using Numbers = std::pair<std::uintptr_t, std::int64_t>;  // address, and how many of a row

class Inputs {
 public:
  Inputs(std::int64_t rows, std::int64_t columns, std::int64_t actions, const std::vector<Numbers>& observation,
         std::uintptr_t reward, const std::vector<std::uintptr_t>& affine, std::uintptr_t choice, std::uintptr_t action,
         std::uintptr_t time)
      : inputs_{rows,
                columns,
                actions,
                {},
                pointer<const float>(reward),
                nullptr,
                nullptr,
                nullptr,
                pointer<const std::int64_t>(choice),
                pointer<const float>(action),
                pointer<const std::int64_t>(time)},
        time_(pointer<std::int64_t>(time)) {
    if (affine.size() == 3) {
      inputs_.mean = pointer<const float>(affine[0]);
      inputs_.deviation = pointer<const float>(affine[1]);
      inputs_.bound = pointer<const float>(affine[2]);
    }
    std::int64_t found = reward != 0;
    bool given = rows == 0 || (time != 0 && (actions == 0 || (choice == 0) != (action == 0)));
    for (const auto& [address, size] : observation) {
      numbers_.push_back({pointer<const float>(address), size});
      found += std::max<std::int64_t>(size, 0);
      given = given && size >= 0 && (address != 0 || rows * size == 0);
    }
    given = given && (affine.empty() || (inputs_.mean && inputs_.deviation && inputs_.bound));
    if (rows < 0 || actions < 0 || !given) {
      throw std::invalid_argument("expected rows and actions >= 0 and the addresses of all inputs, got a zero");
    }
    if (found != columns) {
      throw std::invalid_argument("observation: expected " + std::to_string(columns) +
                                  " numbers, reward included, got " + std::to_string(found));
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      if (inputs_.time[r] < 0) throw std::invalid_argument("time: expected at least 0, got a negative one");
      if (choice != 0 && (inputs_.choice[r] < 0 || inputs_.choice[r] >= actions)) {
        throw std::invalid_argument("previous_action: expected choices of 0 to " + std::to_string(actions - 1) +
                                    ", got " + std::to_string(inputs_.choice[r]));
      }
    }
  }

  ops::StepInputs get() const noexcept {
    ops::StepInputs inputs = inputs_;
    inputs.observation = numbers_;
    return inputs;
  }

  // The next step of each row is the one after.
  void advance() const noexcept {
    for (std::int64_t r = 0; r < inputs_.rows; ++r) ++time_[r];
  }

  void fill(std::uintptr_t output) const {
    if (output == 0 && inputs_.rows * (inputs_.columns + inputs_.actions) > 0) {
      throw std::invalid_argument("expected the address of the output, got a zero");
    }
    const py::gil_scoped_release release;
    ops::step_inputs(get(), pointer<float>(output));
  }

 private:
  ops::StepInputs inputs_;
  std::int64_t* time_;
  std::vector<ops::StepNumbers> numbers_;
};

class Policy {
 public:
  Policy(const std::vector<std::int64_t>& encoder_sizes, const std::vector<std::uintptr_t>& encoder_parameters,
         float encoder_epsilon, std::int64_t width, std::int64_t feed_forward, std::int64_t heads, std::int64_t layers,
         const std::vector<std::uintptr_t>& parameters, float epsilon, const std::vector<std::int64_t>& actor_sizes,
         const std::vector<std::uintptr_t>& actor_parameters, float slope, float floor, float ceiling)
      : encoder_(encoder_sizes, encoder_parameters),
        layers_(layers_of(parameters, layers, width, feed_forward)),
        actor_(actor_sizes, actor_parameters),
        encoder_epsilon_(encoder_epsilon),
        width_(width),
        feed_forward_(feed_forward),
        heads_(heads),
        epsilon_(epsilon),
        slope_(slope),
        floor_(floor),
        ceiling_(ceiling) {
    if (encoder_sizes.back() != width || actor_sizes.front() != width || actor_.norm || heads < 1) {
      throw std::invalid_argument(
          "expected an encoder with `width` outputs, an actor with as many inputs and no norm, and heads >= 1");
    }
    if (!(floor <= ceiling)) throw std::invalid_argument("expected floor <= ceiling");
  }

  bool step(const Inputs& given, std::uintptr_t positions, std::int64_t times, std::uintptr_t keys,
            std::uintptr_t values, const std::string& cache_dtype, std::int64_t rows, std::int64_t sinks,
            std::uintptr_t cache_position, std::uintptr_t cosine, std::uintptr_t sine, std::uintptr_t h,
            std::uintptr_t x, std::uintptr_t uniform, std::uintptr_t action, int threads) const {
    const ops::StepInputs inputs = given.get();
    if (inputs.columns + inputs.actions != encoder_.layers.front().inputs) {
      throw std::invalid_argument("expected inputs of " + std::to_string(encoder_.layers.front().inputs) +
                                  " numbers, got " + std::to_string(inputs.columns + inputs.actions));
    }
    const auto known = [&](std::int64_t time) { return time < times; };
    if (positions != 0 && times > 0 && !std::all_of(inputs.time, inputs.time + inputs.rows, known)) return false;
    if (times < 0 || (h == 0 && x == 0 && action == 0) || (action != 0 && x != 0)) {
      throw std::invalid_argument("expected the addresses of h, and of x or action, got a zero");
    }
    const Rings rings(keys, values, cache_dtype, inputs.rows, width_, heads_, rows, width_ / heads_, sinks,
                      cache_position, cosine, sine);
    std::vector<ops::StepLayer> layers = layers_.layers;
    rings.put_into(layers);
    const ops::PolicyStep step{
        inputs,
        encoder_.step(inputs.rows, slope_, encoder_epsilon_),
        pointer<const float>(positions),
        times,
        {inputs.rows, width_, feed_forward_, nullptr, pointer<const std::int64_t>(cache_position),
         pointer<const float>(cosine), pointer<const float>(sine), layers_.norm, epsilon_, slope_, nullptr},
        actor_.step(inputs.rows, slope_, 0),
        pointer<float>(h),
        pointer<float>(x),
        floor_,
        ceiling_,
        pointer<const float>(uniform),
        pointer<std::int64_t>(action)};
    const py::gil_scoped_release release;
    ops::policy_step(step, encoder_.layers, layers, actor_.layers, threads);
    given.advance();
    for (std::int64_t r = 0; r < inputs.rows; ++r) ++pointer<std::int64_t>(cache_position)[r];
    return true;
  }

 private:
  Mlp encoder_;
  Layers layers_;
  Mlp actor_;
  float encoder_epsilon_;
  std::int64_t width_;
  std::int64_t feed_forward_;
  std::int64_t heads_;
  float epsilon_;
  float slope_;
  float floor_;
  float ceiling_;
};

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
  py::class_<Inputs>(module, "StepInputs",
                     "What a timestep encoder sees of each row: numbers of observations, (address, how many) each, the "
                     "symlog of the previous reward, and the previous action. Addresses may be 0 where there is none.")
      .def(py::init<std::int64_t, std::int64_t, std::int64_t, const std::vector<Numbers>&, std::uintptr_t,
                    const std::vector<std::uintptr_t>&, std::uintptr_t, std::uintptr_t, std::uintptr_t>(),
           "rows"_a, "columns"_a, "actions"_a, "observation"_a, py::kw_only(), "reward"_a, "affine"_a, "choice"_a,
           "action"_a, "time"_a)
      .def_property_readonly("rows", [](const Inputs& inputs) { return inputs.get().rows; })
      .def("fill", &Inputs::fill, "output"_a, "Writes them side by side.");
  py::class_<Policy>(module, "PolicyStep",
                     "A timestep encoder, a Transformer and an actor; sizes and parameters as for mlp_step and "
                     "transformer_step, whose memory must live as long.")
      .def(py::init<const std::vector<std::int64_t>&, const std::vector<std::uintptr_t>&, float, std::int64_t,
                    std::int64_t, std::int64_t, std::int64_t, const std::vector<std::uintptr_t>&, float,
                    const std::vector<std::int64_t>&, const std::vector<std::uintptr_t>&, float, float, float>(),
           py::kw_only(), "encoder_sizes"_a, "encoder_parameters"_a, "encoder_epsilon"_a, "width"_a, "feed_forward"_a,
           "heads"_a, "layers"_a, "parameters"_a, "epsilon"_a, "actor_sizes"_a, "actor_parameters"_a, "slope"_a,
           "floor"_a, "ceiling"_a)
      .def("step", &Policy::step, "inputs"_a, py::kw_only(), "positions"_a, "times"_a, "keys"_a, "values"_a,
           "cache_dtype"_a, "rows"_a, "sinks"_a, "cache_position"_a, "cosine"_a, "sine"_a, "h"_a = 0, "x"_a = 0,
           "uniform"_a = 0, "action"_a = 0, "threads"_a,
           "One step of each environment: h, the actor's outputs x or choices of theirs, each where it has an address. "
           "Then moves cache_position and the inputs' time on by one. False, and nothing done, where positions lack a "
           "time.");
}

}  // namespace twohot
