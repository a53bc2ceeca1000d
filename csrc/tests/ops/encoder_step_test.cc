// Convolutions and the GRU of networks that act, in every form that this machine runs, against loops in double: each
// array ends where it ends, so that the address sanitizer sees what goes beyond.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/random.h"
#include "ops/encoders/encoder_step_kernels.h"
#include "tests/ops/checks.h"

namespace {

using twohot::RandomStream;
using namespace twohot::ops;
using namespace twohot::ops::tests;

std::vector<float> numbers(RandomStream& random, std::int64_t count) {
  std::vector<float> made;
  for (std::int64_t i = 0; i < count; ++i) made.push_back((static_cast<float>(random.below(256)) - 128) / 512);
  return made;
}

// A layer's weight and bias, and what is at an output and an input of it.
struct Weights {
  std::vector<float> weight;
  std::vector<float> bias;
  std::int64_t inputs;

  Weights(RandomStream& random, std::int64_t inputs, std::int64_t outputs)
      : weight(numbers(random, round_up(outputs, panel) * inputs)),
        bias(numbers(random, round_up(outputs, panel))),
        inputs(inputs) {}
  double at(std::int64_t output, std::int64_t input) const {
    return double(weight[static_cast<std::size_t>((output / panel * inputs + input) * panel + output % panel)]);
  }
  StepLinear linear(std::int64_t outputs) const { return {weight.data(), bias.data(), inputs, outputs}; }
};

// What a convolution makes of one image.
std::vector<double> convolved(const std::vector<double>& x, const StepConvolution& layer, const Weights& weights) {
  std::vector<double> found;
  for (std::int64_t row = 0; row < layer.rows(); ++row) {
    for (std::int64_t column = 0; column < layer.columns(); ++column) {
      for (std::int64_t output = 0; output < layer.linear.outputs; ++output) {
        double total = double(weights.bias[static_cast<std::size_t>(output)]);
        for (std::int64_t i = 0; i < weights.inputs; ++i) {
          const std::int64_t y = row * layer.stride - layer.padding + i / layer.channels / layer.kernel;
          const std::int64_t z = column * layer.stride - layer.padding + i / layer.channels % layer.kernel;
          if (y < 0 || y >= layer.height || z < 0 || z >= layer.width) continue;
          const std::int64_t at = (y * layer.width + z) * layer.channels + i % layer.channels;
          total += x[static_cast<std::size_t>(at)] * weights.at(output, i);
        }
        found.push_back(total > 0 ? total : 0.01 * total);
      }
    }
  }
  return found;
}

void test_images(const EncoderStepKernels& form) {
  struct Case {
    std::int64_t height, width, parts, kernel, stride, padding;
    bool table;
  };
  for (const Case& given : {Case{9, 13, 3, 4, 2, 0, false}, Case{5, 3, 2, 3, 1, 1, true}, Case{1, 1, 1, 3, 1, 1, true},
                            Case{7, 6, 1, 5, 3, 4, false}, Case{3, 40, 2, 3, 1, 1, false}}) {
    RandomStream random(4);
    const std::int64_t channels = given.table ? 5 : given.parts;
    const std::vector<float> table = numbers(random, 256 * given.parts * channels);
    const Weights first(random, given.kernel * given.kernel * channels, 32), second(random, 32, 64);
    StepConvolution one{first.linear(32), given.height, given.width,  channels,
                        given.kernel,     given.stride, given.padding};
    const StepConvolution two{second.linear(64), one.rows(), one.columns(), 32, 1, 1, 0};
    const std::vector<StepConvolution> layers{one, two};
    const std::int64_t size = given.height * given.width * given.parts;
    constexpr std::int64_t images = 3;
    std::vector<std::uint8_t> pixels;
    for (std::int64_t i = 0; i < images * size; ++i) pixels.push_back(static_cast<std::uint8_t>(random.below(256)));
    const std::int64_t outputs = two.rows() * two.columns() * 64;
    std::vector<float> output(static_cast<std::size_t>(images * outputs), std::nanf(""));
    const ImagesStep step{images, pixels.data(), given.parts, given.table ? table.data() : nullptr,
                          0.01f,  output.data()};
    std::vector<float> scratch(static_cast<std::size_t>(images_scratch_floats(layers)), std::nanf(""));
    for (std::int64_t image = 0; image < images; ++image) {
      form.image(step, layers, image, scratch.data());
      std::vector<double> x;
      for (std::int64_t place = 0; place < given.height * given.width; ++place) {
        const std::uint8_t* from = pixels.data() + image * size + place * given.parts;
        for (std::int64_t i = 0; i < channels; ++i) {
          double total = given.table ? 0 : (double(from[i]) - 128) / 128;
          for (std::int64_t part = 0; given.table && part < given.parts; ++part) {
            total += double(table[static_cast<std::size_t>((256 * part + from[part]) * channels + i)]);
          }
          x.push_back(total);
        }
      }
      const std::vector<double> truth = convolved(convolved(x, one, first), two, second);
      CHECK(std::ssize(truth) == outputs);
      double error = 0;
      for (std::int64_t i = 0; i < outputs; ++i) {
        const double each = std::fabs(double(output[static_cast<std::size_t>(image * outputs + i)]) - truth[i]);
        error = each <= error ? error : each;
      }
      CHECK(error < 1e-4);
    }
    std::vector<float> again(output.size(), std::nanf("")), alone = again;
    ImagesStep all = step;
    for (const int threads : {1, 4}) {
      all.output = again.data();
      images_step(all, layers, threads);
      all.output = alone.data();
      images_step(all, layers, 1);
      CHECK(again == alone);
    }
  }
}

void test_tokens(const EncoderStepKernels& form) {
  constexpr std::int64_t vocabulary = 11, width = 5, hidden = 16, length = 6, rows = 9;
  RandomStream random(8);
  const std::vector<float> embedding = numbers(random, vocabulary * width);
  const Weights input(random, width, 3 * hidden), state(random, hidden, 3 * hidden);
  std::vector<std::int64_t> tokens;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t t = 0; t < length; ++t) {
      tokens.push_back(t < r % 7 ? static_cast<std::int64_t>(random.below(16)) - 2 : 0);
    }
  }
  std::copy_n(tokens.begin() + 4 * length, length, tokens.begin() + 8 * length);
  std::vector<float> output(rows * hidden, std::nanf(""));
  const TokensStep step{rows,
                        length,
                        tokens.data(),
                        vocabulary,
                        embedding.data(),
                        input.linear(3 * hidden),
                        state.linear(3 * hidden),
                        output.data()};
  std::vector<std::int64_t> all;
  for (std::int64_t r = 0; r < rows; ++r) all.push_back(r);
  std::vector<float> scratch(static_cast<std::size_t>(tokens_scratch_floats(step)), std::nanf(""));
  form.tokens(step, all, scratch.data());
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  for (std::int64_t r = 0; r < rows; ++r) {
    std::vector<double> h(hidden, 0.0);
    std::int64_t count = length;
    while (count > 0 && tokens[static_cast<std::size_t>(r * length + count - 1)] <= 0) --count;
    for (std::int64_t t = 0; t < count; ++t) {
      const std::int64_t token =
          std::clamp<std::int64_t>(tokens[static_cast<std::size_t>(r * length + t)], 0, vocabulary - 1);
      const auto given = [&](std::int64_t output) {
        double total = double(input.bias[static_cast<std::size_t>(output)]);
        for (std::int64_t i = 0; i < width; ++i) {
          total += double(embedding[static_cast<std::size_t>(token * width + i)]) * input.at(output, i);
        }
        return total;
      };
      const auto kept = [&](std::int64_t output) {
        double total = double(state.bias[static_cast<std::size_t>(output)]);
        for (std::int64_t i = 0; i < hidden; ++i) total += h[static_cast<std::size_t>(i)] * state.at(output, i);
        return total;
      };
      std::vector<double> next;
      for (std::int64_t i = 0; i < hidden; ++i) {
        const double reset = sigmoid(given(i) + kept(i)), update = sigmoid(given(hidden + i) + kept(hidden + i));
        const double fresh = std::tanh(given(2 * hidden + i) + reset * kept(2 * hidden + i));
        next.push_back((1 - update) * fresh + update * h[static_cast<std::size_t>(i)]);
      }
      h = next;
    }
    for (std::int64_t i = 0; i < hidden; ++i) {
      CHECK(std::fabs(double(output[static_cast<std::size_t>(r * hidden + i)]) - h[static_cast<std::size_t>(i)]) <
            1e-5);
    }
  }
  std::vector<float> again(output.size(), std::nanf("")), alone = again;
  TokensStep whole = step;
  for (const int threads : {1, 3}) {
    whole.output = again.data();
    tokens_step(whole, threads);
    for (std::int64_t r = 0; r < rows; ++r) {
      TokensStep one = step;
      one.rows = 1;
      one.tokens += r * length;
      one.output = alone.data() + r * hidden;
      tokens_step(one, 1);
    }
    CHECK(again == alone);
  }
  whole.rows = 0;
  tokens_step(whole, 2);
}

}  // namespace

int main() {
  for (const EncoderStepKernels* form : forms<EncoderStepKernels>()) {
    at = form->name;
    test_images(*form);
    test_tokens(*form);
  }
  return report();
}
