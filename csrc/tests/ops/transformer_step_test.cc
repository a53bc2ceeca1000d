// The steps of the networks that act in every form that this machine runs: each array ends where it ends, so that the
// address sanitizer sees what goes beyond.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <list>
#include <vector>

#include "core/random.h"
#include "ops/transformer/transformer_step_kernels.h"
#include "tests/ops/checks.h"
#include "tests/ops/numbers.h"

namespace {

using twohot::RandomStream;
using namespace twohot::ops;
using namespace twohot::ops::tests;

const TransformerStepKernels& portable = kernels<TransformerStepKernels>(Capability::portable);

// What a form makes of a Transformer's step: outputs, then rings. Every array is as long as it has to be.
std::vector<float> transformed(const TransformerStepKernels& form, Float dtype, std::int64_t environments) {
  constexpr std::int64_t width = 48, heads = 3, size = 16, feed_forward = 80, rows = 21, layers = 2;
  RandomStream random(5);
  std::vector<std::vector<float>> parameters;
  parameters.reserve(100);
  const auto numbers = [&](std::int64_t count) {
    std::vector<float> made;
    for (std::int64_t i = 0; i < count; ++i) made.push_back((static_cast<float>(random.below(256)) - 128) / 512);
    parameters.push_back(made);
    return static_cast<const float*>(parameters.back().data());
  };
  const auto norm = [&](std::int64_t of) { return StepNorm{numbers(of), numbers(of)}; };
  const auto linear = [&](std::int64_t inputs, std::int64_t outputs) {
    const std::int64_t filled = round_up(outputs, panel);
    return StepLinear{numbers(filled * inputs), numbers(filled), inputs, outputs};
  };
  std::vector<Numbers> rings(2 * layers, Numbers(dtype, environments * heads * rows * size));
  for (Numbers& ring : rings) ring.fill(random);
  std::vector<StepLayer> given;
  for (std::size_t l = 0; l < layers; ++l) {
    given.push_back(
        {norm(width),
         linear(width, 3 * width),
         linear(width, width),
         norm(width),
         norm(width),
         linear(width, feed_forward),
         norm(feed_forward),
         linear(feed_forward, width),
         {rings[2 * l].bytes.data(), rings[2 * l + 1].bytes.data(), dtype, environments, heads, rows, size, 2}});
  }
  std::vector<std::int64_t> cache_position;
  for (std::int64_t e = 0; e < environments; ++e) cache_position.push_back(7 * e);
  std::vector<float> output(static_cast<std::size_t>(environments * width));
  const TransformerStep step{environments,
                             width,
                             feed_forward,
                             numbers(environments * width),
                             cache_position.data(),
                             nullptr,
                             nullptr,
                             norm(width),
                             1e-5f,
                             0.01f,
                             output.data()};
  for (std::int64_t e = 0; e < environments; e += max_step_rows) {
    std::vector<float> scratch(static_cast<std::size_t>(step_scratch_floats(step)), std::nanf(""));
    form.transformer(step, given, e, std::min(e + max_step_rows, environments), scratch.data());
  }
  for (const Numbers& ring : rings) {
    for (std::int64_t i = 0; i < environments * heads * rows * size; ++i) output.push_back(ring.get(i));
  }
  return output;
}

// The portable form is the truth here: tests/kernels/test_transformer_step.py holds each against float64.
void test_transformer(const TransformerStepKernels& form) {
  for (const std::int64_t environments : {1, 8, 13, 40}) {
    for (const Float dtype : {Float::float32, Float::bfloat16}) {
      const std::vector<float> truth = transformed(portable, dtype, environments);
      const std::vector<float> actual = transformed(form, dtype, environments);
      double error = 0;
      for (std::size_t i = 0; i < truth.size(); ++i) {
        const double each = std::fabs(double(actual[i]) - double(truth[i]));
        error = each <= error ? error : each;
      }
      CHECK(error < (dtype == Float::float32 ? 1e-5 : 2e-2));
    }
  }
}

std::vector<float> through_layers(const TransformerStepKernels& form, std::int64_t rows, bool with_norm) {
  RandomStream random(9);
  std::vector<std::vector<float>> parameters;
  parameters.reserve(10);
  const auto numbers = [&](std::int64_t count) {
    std::vector<float> made;
    for (std::int64_t i = 0; i < count; ++i) made.push_back((static_cast<float>(random.below(256)) - 128) / 512);
    parameters.push_back(made);
    return static_cast<const float*>(parameters.back().data());
  };
  const std::vector<std::int64_t> sizes{21, 40, 5, 48};
  std::vector<StepLinear> layers;
  for (std::size_t l = 0; l + 1 < sizes.size(); ++l) {
    const std::int64_t filled = round_up(sizes[l + 1], panel);
    layers.push_back({numbers(filled * sizes[l]), numbers(filled), sizes[l], sizes[l + 1]});
  }
  const StepNorm norm{numbers(48), numbers(48)};
  std::vector<float> output(static_cast<std::size_t>(rows * 48));
  const MlpStep step{rows, numbers(rows * 21), 0.01f, with_norm ? &norm : nullptr, 1e-5f, output.data()};
  for (std::int64_t r = 0; r < rows; r += max_step_rows) {
    std::vector<float> scratch(static_cast<std::size_t>(mlp_scratch_floats(layers)), std::nanf(""));
    form.mlp(step, layers, r, std::min(r + max_step_rows, rows), scratch.data());
  }
  return output;
}

// The portable form is the truth here: tests/nets/test_packed_mlp.py holds each against float64.
void test_mlp(const TransformerStepKernels& form) {
  for (const std::int64_t rows : {1, 3, 8, 13, 40}) {
    for (const bool norm : {false, true}) {
      const std::vector<float> truth = through_layers(portable, rows, norm);
      const std::vector<float> actual = through_layers(form, rows, norm);
      for (std::size_t i = 0; i < truth.size(); ++i) CHECK(std::fabs(actual[i] - truth[i]) < 1e-4f);
    }
  }
}

// A whole policy is its networks one after the other, whatever the number of threads.
void test_policy() {
  constexpr std::int64_t width = 16, columns = 4, actions = 3, features = 2, choices = 5, times = 6, ring_rows = 4;
  RandomStream random(3);
  std::vector<std::vector<float>> parameters;
  parameters.reserve(100);
  const auto numbers = [&](std::int64_t count) {
    std::vector<float> made;
    for (std::int64_t i = 0; i < count; ++i) made.push_back((static_cast<float>(random.below(256)) - 128) / 128);
    parameters.push_back(made);
    return static_cast<const float*>(parameters.back().data());
  };
  const auto norm = [&] { return StepNorm{numbers(width), numbers(width)}; };
  const auto linear = [&](std::int64_t inputs, std::int64_t outputs) {
    const std::int64_t filled = round_up(outputs, panel);
    return StepLinear{numbers(filled * inputs), numbers(filled), inputs, outputs};
  };
  const std::vector<StepLinear> encoder{linear(columns + actions + features, 20), linear(20, width)};
  const std::vector<StepLinear> actor{linear(width, choices)};
  const StepNorm encoder_norm = norm();
  const StepLayer layer{norm(),
                        linear(width, 3 * width),
                        linear(width, width),
                        norm(),
                        norm(),
                        linear(width, width),
                        norm(),
                        linear(width, width),
                        {}};
  const StepNorm last = norm();
  std::list<std::vector<StepNumbers>> parts_seen, parts_more;
  for (const std::int64_t rows : {1, 3, 8, 13, 40}) {
    const auto floats = [&](std::int64_t of) { return std::vector<float>(static_cast<std::size_t>(rows * of), 1.0f); };
    std::vector<std::int64_t> choice, time, positions;
    std::vector<float> uniform, deviation(columns, 2.0f), bound(columns, 0.5f);
    for (std::int64_t r = 0; r < rows; ++r) {
      choice.push_back(r % actions);
      time.push_back(r % times);
      positions.push_back(r % 7);
      uniform.push_back(static_cast<float>(r) / static_cast<float>(rows));
    }
    const std::vector<StepNumbers> seen{{numbers(rows), 1}, {numbers(2 * rows), 2}};
    const std::vector<StepNumbers> more{{numbers(features * rows), features}};
    const StepInputs inputs{rows,          columns,          actions,          seen,
                            numbers(rows), numbers(columns), deviation.data(), bound.data(),
                            choice.data(), {&actions, 1},    nullptr,          time.data(),
                            more};
    constexpr std::int64_t size = columns + actions + features;
    CHECK(inputs.size() == size);
    const float* table = numbers(times * width);
    std::vector<float> keys = floats(ring_rows * width), values = floats(ring_rows * width);
    const auto reset = [&] {
      keys.assign(keys.size(), 0.5f);
      values.assign(values.size(), 0.25f);
    };
    StepLayer own = layer;
    own.ring = {keys.data(), values.data(), Float::float32, rows, 1, ring_rows, width, 0};
    const MlpStep first{rows, nullptr, 0.01f, &encoder_norm, 1e-5f, nullptr};
    const TransformerStep second{rows,    width, width, nullptr, positions.data(), nullptr,
                                 nullptr, last,  1e-5f, 0.01f,   nullptr};
    const MlpStep third{rows, nullptr, 0.01f, nullptr, 0, nullptr};

    reset();
    std::vector<float> given = floats(size), embedded = floats(width), h = floats(width);
    std::vector<float> x = floats(choices);
    step_inputs(inputs, given.data());
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* row = given.data() + r * size;
      for (std::int64_t i = 0; i < columns; ++i) CHECK(std::fabs(row[i]) <= 0.5f);
      for (std::int64_t a = 0; a < actions; ++a) CHECK(row[columns + a] == (r % times > 0 && a == r % actions));
      for (std::int64_t i = 0; i < features; ++i) {
        CHECK(row[columns + actions + i] == more[0].data[r * features + i]);
      }
    }
    MlpStep one = first;
    one.input = given.data();
    one.output = embedded.data();
    mlp_step(one, encoder, 1);
    for (std::int64_t i = 0; i < rows * width; ++i) {
      embedded[static_cast<std::size_t>(i)] += table[i / width % times * width + i % width];
    }
    TransformerStep two = second;
    two.input = embedded.data();
    two.output = h.data();
    transformer_step(two, {&own, 1}, 1);
    MlpStep three = third;
    three.input = h.data();
    three.output = x.data();
    mlp_step(three, actor, 1);

    const std::int64_t all = choices;
    PolicyPart part{inputs,  encoder, first,         actor, third, {StepActions::choices, {&all, 1}, 0.1f, 0.5f},
                    nullptr, nullptr, uniform.data()};
    for (const int threads : {1, 3}) {
      std::vector<float> found_h = floats(width), found_x = floats(choices);
      const auto run = [&](const std::vector<PolicyPart>& parts, float* to) {
        reset();
        policy_step({parts, table, times, second, to}, {&own, 1}, threads);
      };
      part.x = found_x.data();
      part.action = nullptr;
      run({part}, found_h.data());
      CHECK(found_h == h);
      CHECK(found_x == x);
      std::vector<std::int64_t> drawn(static_cast<std::size_t>(rows), -1), likely = drawn, pairs = drawn;
      part.x = nullptr;
      part.action = drawn.data();
      run({part}, nullptr);
      PolicyPart greedy = part;
      greedy.random = nullptr;
      greedy.action = likely.data();
      run({greedy}, nullptr);
      for (std::size_t r = 0; r < drawn.size(); ++r) {
        CHECK(drawn[r] >= 0 && drawn[r] < choices);
        const float* row = x.data() + r * choices;
        // Clipped, the largest may be as probable as others before it.
        CHECK(row[likely[r]] >= std::min(*std::max_element(row, row + choices), row[0]));
        if (uniform[r] == 0) CHECK(drawn[r] == 0);
      }
      // Rows of several parts, one of them empty, are those of one; where nothing of a part is wanted, the others are.
      for (const std::int64_t of_first : {std::int64_t{0}, std::int64_t{1}, rows / 2, rows}) {
        const auto rows_of = [&](std::int64_t from, std::int64_t count) {
          PolicyPart some = part;
          parts_seen.push_back({{seen[0].data + from, 1}, {seen[1].data + 2 * from, 2}});
          parts_more.push_back({{more[0].data + features * from, features}});
          some.inputs.rows = count;
          some.inputs.observation = parts_seen.back();
          some.inputs.features = parts_more.back();
          some.inputs.reward += from;
          some.inputs.choice += from;
          some.inputs.time += from;
          some.action = pairs.data() + from;
          some.random += from;
          return some;
        };
        pairs.assign(pairs.size(), -1);
        PolicyPart low = rows_of(0, of_first);
        const PolicyPart high = rows_of(of_first, rows - of_first);
        run({low, high}, found_h.data());
        CHECK(found_h == h);
        CHECK(pairs == drawn);
        low.action = nullptr;
        pairs.assign(pairs.size(), -1);
        run({low, high}, nullptr);
        for (std::int64_t r = 0; r < rows; ++r) {
          CHECK(pairs[static_cast<std::size_t>(r)] == (r < of_first ? -1 : drawn[static_cast<std::size_t>(r)]));
        }
      }
    }
  }
}

// Actions of each kind from outputs that are an actor's bias.
void test_actions() {
  constexpr std::int64_t width = 16, rows = 3, entries = 2;
  const std::vector<float> zeros(64 * width, 0.0f), ones(width, 1.0f);
  const std::vector<std::int64_t> time(rows, 0), counts{1, 3};
  const std::vector<StepLinear> encoder{{zeros.data(), zeros.data(), 1, width}};
  const StepNorm norm{ones.data(), zeros.data()};
  const auto act = [&](const StepDraw& draw, std::vector<float> bias, const float* random, void* action) {
    const auto outputs = static_cast<std::int64_t>(bias.size());
    bias.resize(panel);
    const std::vector<StepLinear> actor{{zeros.data(), bias.data(), width, outputs}};
    const std::vector<StepNumbers> seen{{zeros.data(), 1}};
    const StepInputs inputs{rows,    1,       0,  seen,    nullptr,     nullptr, nullptr,
                            nullptr, nullptr, {}, nullptr, time.data(), {}};
    const MlpStep layers{rows, nullptr, 0.01f, nullptr, 0, nullptr};
    const std::vector<PolicyPart> parts{{inputs, encoder, layers, actor, layers, draw, nullptr, action, random}};
    const TransformerStep memory{rows,    width, width, nullptr, time.data(), nullptr,
                                 nullptr, norm,  1e-5f, 0.01f,   nullptr};
    policy_step({parts, nullptr, 0, memory, nullptr}, {}, 1);
  };
  using Choices = std::vector<std::int64_t>;
  // Probabilities of the second choice are .2, .6, .2.
  const std::vector<float> logits{-3.0f, 0.0f, std::log(3.0f), 0.0f};
  const std::vector<float> uniform{0.9f, 0.1f, 0.0f, 0.3f, 0.5f, 0.85f};
  Choices chosen(rows * entries, -1);
  act({StepActions::choices, counts, 0, 1}, logits, uniform.data(), chosen.data());
  CHECK((chosen == Choices{0, 0, 0, 1, 0, 2}));
  act({StepActions::choices, counts, 0, 1}, logits, nullptr, chosen.data());
  CHECK((chosen == Choices{0, 1, 0, 1, 0, 1}));
  // A button is 1 with probability .75, the other with .25, or within bounds with .4.
  const std::vector<float> buttons{std::log(3.0f), -std::log(3.0f)};
  const std::vector<float> pressed{0.2f, 0.7f, 0.3f, 0.8f, 0.9f, 0.65f};
  act({StepActions::buttons, {}, 0, 1}, buttons, pressed.data(), chosen.data());
  CHECK((chosen == Choices{0, 0, 1, 1, 1, 0}));
  act({StepActions::buttons, {}, 0.4f, 0.6f}, buttons, pressed.data(), chosen.data());
  CHECK((chosen == Choices{0, 1, 0, 1, 1, 1}));
  act({StepActions::buttons, {}, 0, 1}, buttons, nullptr, chosen.data());
  CHECK((chosen == Choices{1, 0, 1, 0, 1, 0}));
  // tanh(mean + deviation x noise), where the log deviation is half way between bounds, or at one of them.
  const std::vector<float> means{0.5f, -0.25f, 0.0f, 50.0f}, noise{1, 1, -2, 0.5f, 0, 0};
  std::vector<float> numbers(rows * entries, 2.0f);
  act({StepActions::numbers, {}, -1, 0.5f}, means, noise.data(), numbers.data());
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const double deviation = std::exp(i % 2 == 0 ? -0.25 : 0.5);
    CHECK(std::fabs(numbers[i] - std::tanh(double(means[i % 2]) + deviation * double(noise[i]))) < 1e-6);
  }
  act({StepActions::numbers, {}, -1, 0.5f}, means, nullptr, numbers.data());
  for (std::size_t i = 0; i < numbers.size(); ++i) CHECK(std::fabs(numbers[i] - std::tanh(means[i % 2])) < 1e-6f);
}

}  // namespace

int main() {
  test_policy();
  test_actions();
  for (const TransformerStepKernels* form : forms<TransformerStepKernels>()) {
    at = form->name;
    test_transformer(*form);
    test_mlp(*form);
  }
  return report();
}
