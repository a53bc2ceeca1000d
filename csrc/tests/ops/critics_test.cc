// An ensemble of critics, classifiers and others, in every form that this machine runs, against plain loops in float64,
// at the edges of panels, tiles, slices and memory: each array ends where it ends, so that the address sanitizer sees
// what goes beyond.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "core/random.h"
#include "ops/critics/critics_kernels.h"
#include "tests/ops/checks.h"

namespace {

using twohot::RandomStream;
using namespace twohot::ops;
using namespace twohot::ops::tests;

constexpr float slope = 0.25f;
constexpr double low = -2;
constexpr double high = 3;

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

// Random numbers in float32 that bfloat16 holds exactly.
Floats draw(std::int64_t count, float scale, RandomStream& random) {
  Floats found;
  for (std::int64_t i = 0; i < count; ++i) found.push_back(scale * (static_cast<float>(random.below(129)) - 64) / 64);
  return found;
}

std::vector<std::uint16_t> halves(const Floats& x) {
  std::vector<std::uint16_t> found;
  for (const float each : x) found.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(each) >> 16));
  return found;
}

struct Case {
  std::int64_t width;
  std::int64_t bins;
  std::int64_t depth;
  std::int64_t actions;
  std::int64_t rows;
  bool sorted;
};

constexpr std::int64_t critics = 2;
constexpr std::int64_t entries = 3;

struct Example {
  Case size;
  std::int64_t steps;
  Floats state, table, action_weight, weights, biases, head, head_bias, action, target;
  std::vector<std::int64_t> step, entry;
  std::vector<std::uint8_t> mask;

  explicit Example(const Case& c) : size(c), steps(c.rows / 4 + 1) {
    RandomStream random(7);
    const float power = std::exp2(-std::floor(std::log2(static_cast<float>(c.width)) / 2));  // about 1 / sqrt(width)
    state = draw(steps * critics * c.width, 1, random);                                      // [steps, critics, width]
    table = draw(critics * entries * c.width, 1, random);
    action_weight = draw(critics * c.actions * c.width, 1, random);
    weights = draw(c.depth * critics * c.width * c.width, power, random);
    biases = draw(c.depth * critics * c.width, 1, random);
    head = draw(critics * c.width * c.bins, 2 * power, random);
    head_bias = draw(critics * c.bins, 1, random);
    action = draw(c.rows * c.actions, 1, random);
    target = draw(c.rows, 4, random);
    for (std::int64_t r = 0; r < c.rows; ++r) {
      step.push_back(c.sorted ? r / 4 : static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(steps))));
      entry.push_back(static_cast<std::int64_t>(random.below(entries)));
      mask.push_back(random.below(4) > 0);
    }
  }
};

// Losses, values and gradients, each [critics, ...] as the kernels give them, but the state's as [steps, critics,
// width].
template <class Vector>
struct Outcome {
  Vector loss, readout, state, table, action_weight, weights, biases, head, head_bias;

  explicit Outcome(const Example& e)
      : loss(static_cast<std::size_t>(critics * e.size.rows)),
        readout(loss.size()),
        state(e.state.size()),
        table(e.table.size()),
        action_weight(e.action_weight.size()),
        weights(e.weights.size()),
        biases(e.biases.size()),
        head(e.head.size()),
        head_bias(e.head_bias.size()) {}

  std::vector<const Vector*> all() const {
    return {&loss, &readout, &state, &table, &action_weight, &weights, &biases, &head, &head_bias};
  }
};

// What an output of a critic that is no classifier is multiplied with, and what is added.
float factor_of(std::int64_t r) { return static_cast<float>(r % 3) - 0.5f; }
float offset_of(std::int64_t r) { return static_cast<float>(r % 5) / 4; }

// The gradient of the squared error in place of the output.
void regress(const Example& e, std::int64_t c, std::int64_t r, Doubles& z, Outcome<Doubles>& out) {
  const double value = factor_of(r) * z[0] + offset_of(r);
  const double error = e.mask[r] != 0 ? value - e.target[r] : 0;
  out.loss[c * e.size.rows + r] = error * error;
  out.readout[c * e.size.rows + r] = e.mask[r] != 0 ? value : 0;
  z[0] = 2 * error * factor_of(r);
}

// The logits' gradient in place of the logits.
void classify(const Example& e, std::int64_t c, std::int64_t r, Doubles& z, Outcome<Doubles>& out) {
  const auto bins = static_cast<double>(e.size.bins);
  const double most = *std::max_element(z.begin(), z.end());
  double total = 0;
  double mean = 0;
  for (const double x : z) total += std::exp(x - most);
  const double position = (std::clamp<double>(e.target[r], low, high) - low) * (bins - 1) / (high - low);
  const bool counts = e.mask[r] != 0;
  for (std::int64_t k = 0; k < e.size.bins; ++k) {
    const double probability = std::exp(z[k] - most) / total;
    const double label = std::max(0.0, 1 - std::abs(position - static_cast<double>(k)));
    mean += probability * (low + static_cast<double>(k) * (high - low) / (bins - 1));
    if (counts) out.loss[c * e.size.rows + r] -= label * (z[k] - most - std::log(total));
    z[k] = counts ? probability - label : 0;
  }
  out.readout[c * e.size.rows + r] = counts ? mean : 0;
}

double through(double g, double y) { return y > 0 ? g : slope * g; }

// Row r of critic c by the formulas, added to what others gave.
void row_by_loops(const Example& e, std::int64_t c, std::int64_t r, Outcome<Doubles>& out) {
  const auto [width, bins, depth, actions, rows, sorted] = e.size;
  std::vector<Doubles> x;
  for (std::int64_t layer = 0; layer <= depth; ++layer) {
    Doubles y(static_cast<std::size_t>(width));
    for (std::int64_t i = 0; i < width; ++i) {
      if (layer == 0) {
        y[i] = e.state[(e.step[r] * critics + c) * width + i] + e.table[(c * entries + e.entry[r]) * width + i];
        for (std::int64_t a = 0; a < actions; ++a) {
          y[i] += e.action[r * actions + a] * e.action_weight[(c * actions + a) * width + i];
        }
      } else {
        y[i] = e.biases[((layer - 1) * critics + c) * width + i];
        for (std::int64_t k = 0; k < width; ++k) {
          y[i] += x.back()[k] * e.weights[(((layer - 1) * critics + c) * width + k) * width + i];
        }
      }
      y[i] = y[i] > 0 ? y[i] : slope * y[i];
    }
    x.push_back(y);
  }
  Doubles z(static_cast<std::size_t>(bins));
  for (std::int64_t n = 0; n < bins; ++n) {
    z[n] = e.head_bias[c * bins + n];
    for (std::int64_t k = 0; k < width; ++k) z[n] += x.back()[k] * e.head[(c * width + k) * bins + n];
  }
  (bins == 1 ? regress : classify)(e, c, r, z, out);

  Doubles g(static_cast<std::size_t>(width));
  for (std::int64_t k = 0; k < width; ++k) {
    for (std::int64_t n = 0; n < bins; ++n) {
      out.head[(c * width + k) * bins + n] += x.back()[k] * z[n];
      g[k] += z[n] * e.head[(c * width + k) * bins + n];
    }
  }
  for (std::int64_t n = 0; n < bins; ++n) out.head_bias[c * bins + n] += z[n];
  for (std::int64_t layer = depth; layer > 0; --layer) {
    Doubles before(static_cast<std::size_t>(width));
    const std::int64_t matrix = (layer - 1) * critics + c;
    for (std::int64_t i = 0; i < width; ++i) {
      g[i] = through(g[i], x[layer][i]);
      out.biases[matrix * width + i] += g[i];
      for (std::int64_t k = 0; k < width; ++k) {
        out.weights[(matrix * width + k) * width + i] += x[layer - 1][k] * g[i];
        before[k] += g[i] * e.weights[(matrix * width + k) * width + i];
      }
    }
    g = before;
  }
  for (std::int64_t i = 0; i < width; ++i) {
    g[i] = through(g[i], x[0][i]);
    out.state[(e.step[r] * critics + c) * width + i] += g[i];
    out.table[(c * entries + e.entry[r]) * width + i] += g[i];
    for (std::int64_t a = 0; a < actions; ++a) {
      out.action_weight[(c * actions + a) * width + i] += e.action[r * actions + a] * g[i];
    }
  }
}

bool near(const Floats& found, const Doubles& right, double tolerance) {
  double error = 0;
  double size = 0;
  for (std::size_t i = 0; i < right.size(); ++i) {
    error += (found[i] - right[i]) * (found[i] - right[i]);
    size += right[i] * right[i];
  }
  return std::sqrt(error) <= tolerance * (std::sqrt(size) + 1e-3);
}

// What the kernels make of an example. Gradients start as NaN, but the state's, to which they add.
Outcome<Floats> run(const CriticKernels& form, const Example& e, Float dtype, int threads, Floats& values) {
  const auto [width, bins, depth, actions, rows, sorted] = e.size;
  std::vector<std::vector<std::uint16_t>> kept;
  const auto typed = [&](const Floats& x) -> const void* {
    if (dtype == Float::float32) return x.data();
    return kept.emplace_back(halves(x)).data();
  };
  const Ensemble ensemble{critics,
                          e.steps,
                          entries,
                          actions,
                          depth,
                          width,
                          bins,
                          slope,
                          dtype,
                          typed(e.state),
                          width,
                          critics * width,
                          e.table.data(),
                          typed(e.action_weight),
                          typed(e.weights),
                          e.biases.data(),
                          typed(e.head),
                          e.head_bias.data()};
  const EnsembleRows all{rows, e.step.data(), e.entry.data(), typed(e.action)};
  const Support support{low, high, Transform::linear, ReadoutKind::transformed};
  const Labels labels{e.target.data(), e.mask.data(), std::max<std::int64_t>(rows, 1), 0, LabelKind::two_hot, 0};
  Outcome<Floats> out(e);
  for (Floats* each : {&out.loss, &out.readout, &out.table, &out.action_weight, &out.weights, &out.biases, &out.head,
                       &out.head_bias, &values}) {
    std::fill(each->begin(), each->end(), NAN);
  }
  const EnsembleGradients gradients{out.state.data(),         width,
                                    critics * width,          out.table.data(),
                                    out.action_weight.data(), out.weights.data(),
                                    out.biases.data(),        out.head.data(),
                                    out.head_bias.data()};
  if (bins > 1) {
    critics_cross_entropy(form, ensemble, all, support, labels, 1, out.loss.data(), out.readout.data(), gradients,
                          threads);
    critics_expectation(form, ensemble, all, support, values.data(), threads);
    return out;
  }
  Floats factor, offset;
  for (std::int64_t r = 0; r < rows; ++r) {
    factor.push_back(factor_of(r));
    offset.push_back(offset_of(r));
  }
  const Regression wanted{e.target.data(), factor.data(), offset.data(), e.mask.data()};
  critics_squared_error(form, ensemble, all, wanted, 1, out.loss.data(), out.readout.data(), gradients, threads);
  critics_output(form, ensemble, all, values.data(), threads);
  for (std::int64_t i = 0; i < critics * rows; ++i) values[i] = factor[i % rows] * values[i] + offset[i % rows];
  return out;
}

void compare(const CriticKernels& form, const Example& e, const Outcome<Doubles>& right, Float dtype) {
  Floats values(right.readout.size());
  const Outcome<Floats> found = run(form, e, dtype, 1, values);
  const double tolerance = dtype == Float::bfloat16 && form.pair_rows > 0 ? 4e-2 : 2e-6;
  for (std::size_t i = 0; i < right.all().size(); ++i) CHECK(near(*found.all()[i], *right.all()[i], tolerance));
  bool same = true;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool counts = e.mask[i % e.mask.size()] != 0;
    // Of others factor and offset may be applied in one step or in two.
    const float most = e.size.bins > 1 ? 0 : 1e-5f;
    same =
        same && (counts ? std::abs(values[i] - found.readout[i]) <= most : found.readout[i] == 0 && found.loss[i] == 0);
  }
  CHECK(same);
  Floats again(values.size());
  const Outcome<Floats> other = run(form, e, dtype, 3, again);
  for (std::size_t i = 0; i < right.all().size(); ++i) CHECK(*found.all()[i] == *other.all()[i]);
  CHECK(values == again);
}

}  // namespace

int main() {
  std::vector<Case> cases{{16, 9, 1, 0, 0, true},   {7, 9, 1, 2, 1000, true},  {7, 9, 1, 0, 1000, false},
                          {3, 4, 1, 0, 6500, true}, {3, 4, 1, 0, 6500, false}, {33, 1, 1, 2, 500, true}};
  for (const std::int64_t width : {1, 7, 16, 33, 64}) {
    for (const std::int64_t depth : {0, 1, 2})
      cases.push_back({width, 9 + width % 5 * 12, depth, depth, 37, depth != 1});
  }
  for (const Case& c : cases) {
    const Example example(c);
    Outcome<Doubles> right(example);
    for (std::int64_t critic = 0; critic < critics; ++critic) {
      for (std::int64_t r = 0; r < c.rows; ++r) row_by_loops(example, critic, r, right);
    }
    for (const CriticKernels* form : forms<CriticKernels>()) {
      for (const Float dtype : {Float::float32, Float::bfloat16}) {
        at = std::string(form->name) + (dtype == Float::float32 ? ", width " : " of bfloat16, width ") +
             std::to_string(c.width) + ", depth " + std::to_string(c.depth) + ", rows " + std::to_string(c.rows);
        compare(*form, example, right, dtype);
      }
    }
  }
  return report();
}
