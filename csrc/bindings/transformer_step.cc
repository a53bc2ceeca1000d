#include "bindings/transformer_step.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/addresses.h"
#include "bindings/ring.h"
#include "bindings/rows.h"
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

// What is the same of all steps of a timestep encoder.
class Form {
 public:
  Form(const std::vector<std::string>& names, std::int64_t columns, std::int64_t actions,
       const std::vector<std::int64_t>& counts, const std::vector<std::uintptr_t>& affine)
      : columns(columns), actions(actions), counts(counts) {
    std::int64_t found = 0;
    bool fits = columns >= 0 && actions >= 0 && (affine.empty() || affine.size() == 3);
    for (const std::int64_t count : counts) {
      fits = fits && count >= 1 && count <= actions - found;
      found += fits ? count : 0;
    }
    for (const std::uintptr_t each : affine) fits = fits && each != 0;
    if (!fits || (!counts.empty() && found != actions)) {
      throw std::invalid_argument(
          "expected columns and actions >= 0, counts that add up to the actions or none, and three addresses of affine "
          "or none");
    }
    for (const std::string& name : names) this->names.push_back("observation '" + name + "'");
    for (std::size_t i = 0; i < affine.size(); ++i) this->affine[i] = pointer<const float>(affine[i]);
  }

  const std::int64_t columns;
  const std::int64_t actions;
  const std::vector<std::int64_t> counts;
  std::vector<std::string> names;  // of what is observed, as errors call it
  const float* affine[3]{};
};

class Inputs {
 public:
  Inputs(std::shared_ptr<const Form> form, const py::list& observation, const py::object& reward,
         const py::object& action, const py::object& time, const py::list& features)
      : form_(std::move(form)), kept_{py::tuple(observation), reward, action, time, py::tuple(features)} {
    if (!py::isinstance<py::array>(time) || py::reinterpret_borrow<py::array>(time).ndim() != 1) {
      throw py::value_error("time: expected an array [rows]");
    }
    const std::int64_t rows = py::reinterpret_borrow<py::array>(time).shape(0);
    time_ = numbers_of<std::int64_t>(time, "time", rows).first;
    inputs_ = {
        rows,    form_->columns, form_->actions, {},    nullptr, form_->affine[0], form_->affine[1], form_->affine[2],
        nullptr, form_->counts,  nullptr,        time_, {}};
    std::int64_t found = 0;
    if (observation.size() != form_->names.size()) {
      throw py::value_error("observation: expected " + std::to_string(form_->names.size()) + " arrays, got " +
                            std::to_string(observation.size()));
    }
    for (std::size_t i = 0; i < observation.size(); ++i) {
      const auto [numbers, size] = numbers_of<const float>(observation[i], form_->names[i].c_str(), rows);
      observation_.push_back({numbers, size});
      found += size;
    }
    for (const py::handle& each : features) {
      const auto [numbers, size] = numbers_of<const float>(each, "features", rows);
      features_.push_back({numbers, size});
    }
    if (!reward.is_none()) {
      const auto [numbers, size] = numbers_of<const float>(reward, "previous_reward", rows);
      if (size != 1) throw py::value_error("previous_reward: expected one number a row, got " + std::to_string(size));
      inputs_.reward = numbers;
      ++found;
    }
    if (found != form_->columns) {
      throw std::invalid_argument("observation: expected " + std::to_string(form_->columns) +
                                  " numbers, reward included, got " + std::to_string(found));
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      if (time_[r] < 0) throw std::invalid_argument("time: expected at least 0, got a negative one");
    }
    if (form_->actions > 0) take(action);
  }

  std::int64_t rows() const noexcept { return inputs_.rows; }

  ops::StepInputs get() const noexcept {
    ops::StepInputs inputs = inputs_;
    inputs.observation = observation_;
    inputs.features = features_;
    return inputs;
  }

  // The next step of each row is the one after.
  void advance() const noexcept {
    for (std::int64_t r = 0; r < inputs_.rows; ++r) ++time_[r];
  }

  void fill(const py::object& output) const {
    const auto [to, size] = numbers_of<float>(output, "output", inputs_.rows);
    const ops::StepInputs inputs = get();
    if (size != inputs.size()) {
      throw py::value_error("output: expected " + std::to_string(inputs.size()) + " numbers a row, got " +
                            std::to_string(size));
    }
    const py::gil_scoped_release release;
    ops::step_inputs(inputs, to);
  }

 private:
  void take(const py::object& action) {
    const std::vector<std::int64_t>& counts = form_->counts;
    const auto require = [&](std::int64_t size, std::int64_t expected) {
      if (size != expected) {
        throw py::value_error("previous_action: expected " + std::to_string(expected) + " numbers a row, got " +
                              std::to_string(size));
      }
    };
    if (!counts.empty() && (std::ssize(counts) == 1 || !py::isinstance<py::array_t<float>>(action))) {
      const auto [choice, size] = numbers_of<const std::int64_t>(action, "previous_action", inputs_.rows);
      require(size, std::ssize(counts));
      for (std::int64_t i = 0; i < inputs_.rows * size; ++i) {
        const std::int64_t count = counts[static_cast<std::size_t>(i % size)];
        if (choice[i] < 0 || choice[i] >= count) {
          throw std::invalid_argument("previous_action: expected choices of 0 to " + std::to_string(count - 1) +
                                      ", got " + std::to_string(choice[i]));
        }
      }
      inputs_.choice = choice;
      return;
    }
    const auto [numbers, size] = numbers_of<const float>(action, "previous_action", inputs_.rows);
    require(size, form_->actions);
    inputs_.action = numbers;
  }

  std::shared_ptr<const Form> form_;
  py::object kept_[5];  // the arrays that are read
  ops::StepInputs inputs_;
  std::int64_t* time_;
  std::vector<ops::StepNumbers> observation_;
  std::vector<ops::StepNumbers> features_;
};

using Outputs = std::tuple<py::object, py::object, py::object>;  // x, action, random

// A timestep encoder and an actor, for some rows of a policy.
class Part {
 public:
  Part(const std::vector<std::int64_t>& encoder_sizes, const std::vector<std::uintptr_t>& encoder_parameters,
       float epsilon, const std::vector<std::int64_t>& actor_sizes, const std::vector<std::uintptr_t>& actor_parameters,
       const std::string& actions, const std::vector<std::int64_t>& counts, float low, float high)
      : encoder_(encoder_sizes, encoder_parameters),
        actor_(actor_sizes, actor_parameters),
        epsilon_(epsilon),
        draws_(!actions.empty()),
        counts_(counts),
        draw_{ops::StepActions::choices, {}, low, high} {
    if (actor_.norm) throw std::invalid_argument("expected an actor without a norm");
    if (!(low <= high)) throw std::invalid_argument("expected low <= high");
    const std::int64_t outputs = actor_sizes.back();
    bool fits = counts.empty();
    if (actions == "choices") {
      std::int64_t all = 0;
      for (const std::int64_t count : counts) {
        if (count < 1 || count > outputs - all) {
          all = -1;
          break;
        }
        all += count;
      }
      fits = all == outputs;
    } else if (actions == "buttons") {
      draw_.actions = ops::StepActions::buttons;
    } else if (actions == "numbers") {
      draw_.actions = ops::StepActions::numbers;
      fits = fits && outputs % 2 == 0;
    } else {
      fits = fits && actions.empty();
    }
    if (!fits) {
      throw std::invalid_argument(
          "expected actions of 'choices' whose counts add up to the actor's outputs, 'buttons', 'numbers' of an even "
          "number of outputs, or ''");
    }
  }

  std::int64_t width() const noexcept { return encoder_.layers.back().outputs; }
  std::int64_t actor_inputs() const noexcept { return actor_.layers.front().inputs; }

  ops::PolicyPart get(const Inputs& given, const Outputs& outputs, float slope) const {
    const ops::StepInputs inputs = given.get();
    if (inputs.size() != encoder_.layers.front().inputs) {
      throw std::invalid_argument("expected inputs of " + std::to_string(encoder_.layers.front().inputs) +
                                  " numbers, got " + std::to_string(inputs.size()));
    }
    ops::StepDraw draw = draw_;
    draw.counts = counts_;
    const std::int64_t of_actor = actor_.layers.back().outputs;
    ops::PolicyPart part{inputs,
                         encoder_.layers,
                         encoder_.step(inputs.rows, slope, epsilon_),
                         actor_.layers,
                         actor_.step(inputs.rows, slope, 0),
                         draw,
                         nullptr,
                         nullptr,
                         nullptr};
    const auto& [x, action, random] = outputs;
    const auto numbers = [&]<class T>(const py::object& value, const char* what, std::int64_t expected, T*) -> T* {
      if (value.is_none()) return nullptr;
      const auto [found, size] = numbers_of<T>(value, what, inputs.rows);
      if (size == expected) return found;
      throw py::value_error(std::string(what) + ": expected " + std::to_string(expected) + " numbers a row, got " +
                            std::to_string(size));
    };
    part.x = numbers(x, "x", of_actor, static_cast<float*>(nullptr));
    if (action.is_none()) return part;
    if (part.x != nullptr || !draws_) {
      throw std::invalid_argument("expected x, or an action of a part that draws them, got both");
    }
    const std::int64_t entries = draw.size(of_actor);
    if (draw.actions == ops::StepActions::numbers) {
      part.action = numbers(action, "action", entries, static_cast<float*>(nullptr));
    } else {
      part.action = numbers(action, "action", entries, static_cast<std::int64_t*>(nullptr));
    }
    part.random = numbers(random, "random", entries, static_cast<const float*>(nullptr));
    return part;
  }

 private:
  Mlp encoder_;
  Mlp actor_;
  float epsilon_;
  bool draws_;
  std::vector<std::int64_t> counts_;
  ops::StepDraw draw_;
};

class Policy {
 public:
  Policy(const std::vector<std::shared_ptr<Part>>& parts, std::int64_t width, std::int64_t feed_forward,
         std::int64_t heads, std::int64_t layers, const std::vector<std::uintptr_t>& parameters, float epsilon,
         float slope)
      : parts_(parts),
        layers_(layers_of(parameters, layers, width, feed_forward)),
        width_(width),
        feed_forward_(feed_forward),
        heads_(heads),
        epsilon_(epsilon),
        slope_(slope) {
    const auto fits = [&](const auto& part) { return part && part->width() == width && part->actor_inputs() == width; };
    if (parts.empty() || !std::all_of(parts.begin(), parts.end(), fits) || heads < 1) {
      throw std::invalid_argument(
          "expected parts whose encoders have `width` outputs and their actors as many inputs, and heads >= 1");
    }
  }

  bool step(const std::vector<const Inputs*>& given, const std::vector<Outputs>& outputs, std::uintptr_t positions,
            std::int64_t times, std::uintptr_t keys, std::uintptr_t values, const std::string& cache_dtype,
            std::int64_t rows, std::int64_t sinks, std::uintptr_t cache_position, std::uintptr_t cosine,
            std::uintptr_t sine, std::uintptr_t h, int threads) const {
    if (given.size() != parts_.size() || outputs.size() != parts_.size() ||
        std::count(given.begin(), given.end(), nullptr) > 0) {
      throw std::invalid_argument("expected inputs and outputs of each part");
    }
    std::vector<ops::PolicyPart> parts;
    std::int64_t environments = 0;
    bool wanted = h != 0;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      parts.push_back(parts_[i]->get(*given[i], outputs[i], slope_));
      environments += given[i]->rows();
      wanted = wanted || parts.back().x != nullptr || parts.back().action != nullptr;
    }
    if (times < 0 || !wanted) throw std::invalid_argument("expected h, x or an action that is wanted, got none");
    const auto known = [&](std::int64_t time) { return time < times; };
    for (const ops::PolicyPart& part : parts) {
      const std::int64_t* time = part.inputs.time;
      if (positions != 0 && times > 0 && !std::all_of(time, time + part.inputs.rows, known)) return false;
    }
    const Rings rings(keys, values, cache_dtype, environments, width_, heads_, rows, width_ / heads_, sinks,
                      cache_position, cosine, sine);
    std::vector<ops::StepLayer> layers = layers_.layers;
    rings.put_into(layers);
    const ops::PolicyStep step{
        parts,
        pointer<const float>(positions),
        times,
        {environments, width_, feed_forward_, nullptr, pointer<const std::int64_t>(cache_position),
         pointer<const float>(cosine), pointer<const float>(sine), layers_.norm, epsilon_, slope_, nullptr},
        pointer<float>(h)};
    const py::gil_scoped_release release;
    ops::policy_step(step, layers, threads);
    for (const Inputs* each : given) each->advance();
    for (std::int64_t r = 0; r < environments; ++r) ++pointer<std::int64_t>(cache_position)[r];
    return true;
  }

 private:
  std::vector<std::shared_ptr<Part>> parts_;
  Layers layers_;
  std::int64_t width_;
  std::int64_t feed_forward_;
  std::int64_t heads_;
  float epsilon_;
  float slope_;
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
  py::class_<Form, std::shared_ptr<Form>>(
      module, "StepForm",
      "What is the same of all steps of a timestep encoder: how many numbers are normalised, by whose mean, deviation "
      "and "
      "bound (addresses, whose memory must live as long), how many the previous action has, and those of each choice.")
      .def(py::init<const std::vector<std::string>&, std::int64_t, std::int64_t, const std::vector<std::int64_t>&,
                    const std::vector<std::uintptr_t>&>(),
           py::kw_only(), "names"_a, "columns"_a, "actions"_a, "counts"_a, "affine"_a);
  py::class_<Inputs>(
      module, "StepInputs",
      "What a timestep encoder sees of each row, side by side: numbers of observations, the symlog of the "
      "previous reward, the previous action, and features, which are numbers as they are.")
      .def(py::init<std::shared_ptr<Form>, const py::list&, const py::object&, const py::object&, const py::object&,
                    const py::list&>(),
           "form"_a, "observation"_a, "reward"_a, "action"_a, "time"_a, "features"_a)
      .def_property_readonly("rows", &Inputs::rows)
      .def("fill", &Inputs::fill, "output"_a, "Writes them side by side.");
  py::class_<Part, std::shared_ptr<Part>>(
      module, "PolicyPart",
      "A timestep encoder and an actor, and how actions are drawn from its outputs; sizes and parameters as for "
      "mlp_step, whose memory must live as long.")
      .def(py::init<const std::vector<std::int64_t>&, const std::vector<std::uintptr_t>&, float,
                    const std::vector<std::int64_t>&, const std::vector<std::uintptr_t>&, const std::string&,
                    const std::vector<std::int64_t>&, float, float>(),
           py::kw_only(), "encoder_sizes"_a, "encoder_parameters"_a, "encoder_epsilon"_a, "actor_sizes"_a,
           "actor_parameters"_a, "actions"_a, "counts"_a, "low"_a, "high"_a);
  py::class_<Policy>(module, "PolicyStep",
                     "Parts around one Transformer, each with rows of its own; sizes and parameters as for "
                     "transformer_step, whose memory must live as long.")
      .def(py::init<const std::vector<std::shared_ptr<Part>>&, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                    const std::vector<std::uintptr_t>&, float, float>(),
           py::kw_only(), "parts"_a, "width"_a, "feed_forward"_a, "heads"_a, "layers"_a, "parameters"_a, "epsilon"_a,
           "slope"_a)
      .def("step", &Policy::step, "inputs"_a, "outputs"_a, py::kw_only(), "positions"_a, "times"_a, "keys"_a,
           "values"_a, "cache_dtype"_a, "rows"_a, "sinks"_a, "cache_position"_a, "cosine"_a, "sine"_a, "h"_a = 0,
           "threads"_a,
           "One step of each environment: h and, for each part, arrays (x, action, random), or None where nothing is "
           "wanted: the actor's outputs, actions drawn from them, and the numbers that these are drawn by. Then "
           "moves cache_position and the inputs' times on by one. False, and nothing done, where positions lack a "
           "time.");
}

}  // namespace twohot
