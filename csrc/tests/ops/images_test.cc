// Pools and residual norms in every form that this machine runs, against plain loops, and the same bits for any number
// of threads. Each array ends where it ends, so that the address sanitizer sees what goes beyond.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "core/random.h"
#include "ops/images/images.h"
#include "tests/ops/checks.h"

namespace {

using twohot::RandomStream;
using namespace twohot::ops;
using namespace twohot::ops::tests;
using Floats = std::vector<float>;

// Small whole numbers, so that there are ties.
Floats draw(std::int64_t count, RandomStream& random) {
  Floats x(static_cast<std::size_t>(count));
  for (float& value : x) value = static_cast<float>(random.below(9)) - 4;
  return x;
}

std::size_t index_of(const Images& s, std::int64_t image, std::int64_t y, std::int64_t x, std::int64_t c) {
  return static_cast<std::size_t>(((image * s.height + y) * s.width + x) * s.channels + c);
}

void pool(const Images& s) {
  RandomStream random(3);
  Floats x = draw(s.images * s.height * s.width * s.channels, random);
  x[x.size() / 2] = std::numeric_limits<float>::quiet_NaN();
  const Images small{s.images, pooled(s.height), pooled(s.width), s.channels};
  const Floats grad_output = draw(small.images * small.height * small.width * small.channels, random);
  Floats out(grad_output.size()), grad_x(x.size(), 7.0f), expected(x.size()), again(x.size());
  std::vector<std::uint8_t> where(grad_output.size());
  max_pool(s, x.data(), out.data(), where.data(), 1);
  max_pool_backward(s, grad_output.data(), where.data(), grad_x.data(), 1);
  max_pool_backward(s, grad_output.data(), where.data(), again.data(), 3);
  CHECK(grad_x == again);
  for (std::int64_t image = 0; image < s.images; ++image) {
    for (std::int64_t y = 0; y < small.height; ++y) {
      for (std::int64_t column = 0; column < small.width; ++column) {
        for (std::int64_t c = 0; c < s.channels; ++c) {
          std::int64_t best = 0;
          const auto value = [&](std::int64_t k) {
            return x[index_of(s, image, 2 * y + k / 3, 2 * column + k % 3, c)];
          };
          for (std::int64_t k = 1; k < 9; ++k) best = value(k) > value(best) || std::isnan(value(k)) ? k : best;
          const std::size_t here = index_of(small, image, y, column, c);
          CHECK(out[here] == value(best) || (std::isnan(out[here]) && std::isnan(value(best))));
          CHECK(where[here] == best);
          expected[index_of(s, image, 2 * y + best / 3, 2 * column + best % 3, c)] += grad_output[here];
        }
      }
    }
  }
  CHECK(grad_x == expected);
}

void norm(const Images& s, std::int64_t groups) {
  RandomStream random(4);
  const std::int64_t count = s.images * s.height * s.width * s.channels;
  const Floats x = draw(count, random), residual = draw(count, random), grad_output = draw(count, random);
  const Floats weight = draw(s.channels, random), bias = draw(s.channels, random);
  const ResidualNorm given{s, groups, weight.data(), bias.data(), 1e-5f};
  Floats sum(x.size()), out(x.size()), grad_sum(x.size()), grad_weight(weight.size()), grad_bias(bias.size());
  residual_norm(given, x.data(), residual.data(), sum.data(), out.data(), 1);
  residual_norm_backward(given, grad_output.data(), sum.data(), grad_sum.data(), grad_weight.data(), grad_bias.data(),
                         1);
  Floats sum3(x.size()), out3(x.size()), grad_sum3(x.size()), grad_weight3(weight.size()), grad_bias3(bias.size());
  residual_norm(given, x.data(), residual.data(), sum3.data(), out3.data(), 3);
  residual_norm_backward(given, grad_output.data(), sum.data(), grad_sum3.data(), grad_weight3.data(),
                         grad_bias3.data(), 3);
  CHECK(sum == sum3 && out == out3 && grad_sum == grad_sum3 && grad_weight == grad_weight3 && grad_bias == grad_bias3);

  const std::int64_t size = s.channels / groups;
  const double share = 1.0 / static_cast<double>(s.height * s.width * size);
  std::vector<double> right_weight(weight.size()), right_bias(bias.size());
  double error = 0;
  for (std::int64_t image = 0; image < s.images; ++image) {
    for (std::int64_t group = 0; group < groups; ++group) {
      const auto each = [&](const auto& work) {
        for (std::int64_t i = 0; i < s.height * s.width; ++i) {
          for (std::int64_t c = group * size; c < (group + 1) * size; ++c) {
            work(index_of(s, image, 0, 0, 0) + static_cast<std::size_t>(i * s.channels + c),
                 static_cast<std::size_t>(c));
          }
        }
      };
      double mean = 0;
      double square = 0;
      each([&](std::size_t i, std::size_t) { mean += (x[i] + residual[i]) * share; });
      each([&](std::size_t i, std::size_t) { square += std::pow(x[i] + residual[i] - mean, 2) * share; });
      const double factor = 1 / std::sqrt(square + 1e-5);
      double offset = 0;
      double along = 0;
      each([&](std::size_t i, std::size_t c) {
        const double normed = (x[i] + residual[i] - mean) * factor;
        error = std::max(error, std::abs(out[i] - (normed * weight[c] + bias[c])));
        right_weight[c] += grad_output[i] * normed;
        right_bias[c] += grad_output[i];
        offset += grad_output[i] * weight[c] * share;
        along += grad_output[i] * weight[c] * normed * share;
      });
      each([&](std::size_t i, std::size_t c) {
        const double normed = (x[i] + residual[i] - mean) * factor;
        error =
            std::max(error, std::abs(grad_sum[i] - (grad_output[i] * weight[c] - offset - normed * along) * factor));
      });
    }
  }
  CHECK(error < 2e-5);
  for (std::size_t c = 0; c < weight.size(); ++c) {
    CHECK(std::abs(grad_weight[c] - right_weight[c]) < 1e-5 * static_cast<double>(count));
    CHECK(std::abs(grad_bias[c] - right_bias[c]) < 1e-5 * static_cast<double>(count));
  }
}

void run(const char* capability) {
  for (const Images& s : {Images{1, 3, 3, 16}, Images{3, 4, 7, 32}, Images{18, 5, 6, 16}, Images{2, 13, 12, 48}}) {
    at = std::string(capability) + ", " + std::to_string(s.height) + " x " + std::to_string(s.width);
    pool(s);
    norm(s, 4);
    norm(s, 1);
  }
}

}  // namespace

int main() { return in_each_form(run); }
