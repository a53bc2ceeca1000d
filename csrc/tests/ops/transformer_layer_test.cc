// A Transformer's layer in every form that this machine runs: outputs against plain loops in double, gradients against
// differences of outputs along a random direction, and the same bits for any number of threads. Each array ends where
// it ends, so that the address sanitizer sees what goes beyond.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "core/random.h"
#include "ops/transformer/transformer_layer.h"
#include "tests/ops/checks.h"

namespace {

using twohot::RandomStream;
using namespace twohot::ops;
using namespace twohot::ops::tests;
using Floats = std::vector<float>;

constexpr float epsilon = 1e-5f;
constexpr float slope = 0.01f;
constexpr std::uint64_t seed = 0x123456789abcdef;
constexpr std::uint32_t dropped = 1u << 30;  // a quarter
constexpr float scale = 4.0f / 3;

Floats draw(std::int64_t count, RandomStream& random, float size = 1, float centre = 0) {
  Floats x(static_cast<std::size_t>(count));
  for (float& value : x) value = centre + size * (static_cast<float>(random.below(2001)) / 1000 - 1);
  return x;
}

// Numbers of a dtype; bfloat16 is cut off, not rounded.
struct Numbers {
  Float dtype;
  std::vector<char> bytes;

  Numbers(Float kind, std::int64_t count) : dtype(kind), bytes(static_cast<std::size_t>(count * bytes_of(kind))) {}

  Numbers(Float kind, const Floats& from) : Numbers(kind, static_cast<std::int64_t>(from.size())) {
    for (std::size_t i = 0; i < from.size(); ++i) {
      const auto half = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(from[i]) >> 16);
      if (kind == Float::float32) std::memcpy(bytes.data() + 4 * i, &from[i], 4);
      if (kind == Float::bfloat16) std::memcpy(bytes.data() + 2 * i, &half, 2);
    }
  }

  double operator[](std::size_t i) const {
    float x;
    if (dtype == Float::float32) {
      std::memcpy(&x, bytes.data() + 4 * i, 4);
      return x;
    }
    std::uint16_t half;
    std::memcpy(&half, bytes.data() + 2 * i, 2);
    return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
  }

  void* data() { return bytes.data(); }
};

using Doubles = std::vector<double>;

Doubles norm(const Doubles& x, const Floats& weight, const Floats& bias) {
  double mean = 0;
  double square = 0;
  for (const double v : x) mean += v / static_cast<double>(x.size());
  for (const double v : x) square += (v - mean) * (v - mean) / static_cast<double>(x.size());
  Doubles y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = (x[i] - mean) / std::sqrt(square + epsilon) * weight[i] + bias[i];
  return y;
}

Doubles linear(const Doubles& x, const Floats& weight, const Floats& bias) {
  Doubles y(bias.begin(), bias.end());
  for (std::size_t o = 0; o < y.size(); ++o) {
    for (std::size_t i = 0; i < x.size(); ++i) y[o] += x[i] * weight[o * x.size() + i];
  }
  return y;
}

// What a layer after the attention is made of, in the order of its gradients.
struct Problem {
  LayerShape shape;
  std::vector<Floats> parameters;  // out, bias; attended norm; feed-forward norm; up, bias; hidden norm; down, bias
  Floats x;
  Floats attended;

  Problem(const LayerShape& given, RandomStream& random) : shape(given) {
    const std::int64_t w = given.width;
    const std::int64_t h = given.hidden;
    const float narrow = 1.5f / std::sqrt(static_cast<float>(w));
    const float wide = 1.5f / std::sqrt(static_cast<float>(h));
    parameters = {draw(w * w, random, narrow), draw(w, random), draw(w, random, 0.5f, 1),    draw(w, random),
                  draw(w, random, 0.5f, 1),    draw(w, random), draw(h * w, random, narrow), draw(h, random),
                  draw(h, random, 0.5f, 1),    draw(h, random), draw(w * h, random, wide),   draw(w, random)};
    x = draw(given.rows * w, random);
    attended = draw(given.rows * w, random);
  }

  std::vector<Floats*> all() {
    std::vector<Floats*> found;
    for (Floats& p : parameters) found.push_back(&p);
    found.push_back(&x);
    return found;
  }
};

struct Result {
  Numbers projected;
  Floats middle;
  Numbers activated;
  Floats output;
};

AfterAttention layer_of(Problem& p, Numbers& attended, std::vector<Floats>& packed, bool backward, int threads) {
  const LayerShape& s = p.shape;
  packed = {Floats(p.parameters[0].size()), Floats(p.parameters[6].size()), Floats(p.parameters[10].size())};
  pack_weight(p.parameters[0].data(), s.width, s.width, backward, s.dtype, packed[0].data(), threads);
  pack_weight(p.parameters[6].data(), s.hidden, s.width, backward, s.dtype, packed[1].data(), threads);
  pack_weight(p.parameters[10].data(), s.width, s.hidden, backward, s.dtype, packed[2].data(), threads);
  const auto of = [&](int i) { return p.parameters[static_cast<std::size_t>(i)].data(); };
  const auto linear_of = [&](std::size_t i, int bias) {
    return LayerLinear{backward ? nullptr : packed[i].data(), backward ? packed[i].data() : nullptr, of(bias)};
  };
  return {s,
          p.x.data(),
          attended.data(),
          linear_of(0, 1),
          {of(2), of(3)},
          {of(4), of(5)},
          linear_of(1, 7),
          {of(8), of(9)},
          linear_of(2, 11),
          slope,
          seed,
          dropped,
          scale,
          nullptr,
          nullptr,
          nullptr,
          nullptr};
}

Result forward(Problem& p, int threads) {
  const LayerShape& s = p.shape;
  Numbers attended(s.dtype, p.attended);
  std::vector<Floats> packed;
  AfterAttention layer = layer_of(p, attended, packed, false, threads);
  Result result{Numbers(s.dtype, s.rows * s.width), Floats(p.x.size()), Numbers(s.dtype, s.rows * s.hidden),
                Floats(p.x.size())};
  layer.projected = result.projected.data();
  layer.middle = result.middle.data();
  layer.activated = result.activated.data();
  layer.output = result.output.data();
  after_attention(layer, threads);
  return result;
}

// Gradients of all(), then of what was attended, as floats.
std::vector<Floats> backward(Problem& p, Result& kept, const Floats& grad_output, int threads) {
  const LayerShape& s = p.shape;
  Numbers attended(s.dtype, p.attended);
  std::vector<Floats> packed;
  AfterAttention layer = layer_of(p, attended, packed, true, threads);
  layer.projected = kept.projected.data();
  layer.middle = kept.middle.data();
  layer.activated = kept.activated.data();
  std::vector<Floats> g;
  for (const Floats* x : p.all()) g.emplace_back(x->size());
  Numbers grad_attended(s.dtype, s.rows * s.width);
  const AfterAttentionGradient gradient{grad_output.data(),
                                        g[12].data(),
                                        grad_attended.data(),
                                        g[0].data(),
                                        g[1].data(),
                                        g[6].data(),
                                        g[7].data(),
                                        g[10].data(),
                                        g[11].data(),
                                        {g[2].data(), g[3].data()},
                                        {g[4].data(), g[5].data()},
                                        {g[8].data(), g[9].data()}};
  after_attention_backward(layer, gradient, threads);
  Floats last;
  for (std::size_t i = 0; i < p.attended.size(); ++i) last.push_back(static_cast<float>(grad_attended[i]));
  g.push_back(last);
  return g;
}

double against(const Floats& grad_output, const Floats& output) {
  double total = 0;
  for (std::size_t i = 0; i < output.size(); ++i) total += static_cast<double>(grad_output[i]) * output[i];
  return total;
}

void after(const LayerShape& shape) {
  RandomStream random(11);
  Problem p(shape, random);
  const bool half = shape.dtype == Float::bfloat16;
  Result result = forward(p, 1);
  const auto rows = static_cast<std::size_t>(shape.rows);
  const auto width = static_cast<std::size_t>(shape.width);
  const Numbers attended(shape.dtype, p.attended);
  double error = 0;
  std::size_t zeros = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    Doubles row;
    for (std::size_t i = 0; i < width; ++i) row.push_back(attended[r * width + i]);
    row = norm(linear(row, p.parameters[0], p.parameters[1]), p.parameters[2], p.parameters[3]);
    Doubles hidden = row;
    for (std::size_t i = 0; i < width; ++i) hidden[i] += p.x[r * width + i];
    const Doubles middle = hidden;
    hidden = linear(norm(hidden, p.parameters[4], p.parameters[5]), p.parameters[6], p.parameters[7]);
    for (double& v : hidden) v = v > 0 ? v : slope * v;
    hidden = linear(norm(hidden, p.parameters[8], p.parameters[9]), p.parameters[10], p.parameters[11]);
    for (std::size_t i = 0; i < width; ++i) {
      const float got = result.output[r * width + i];
      error = std::max(error, std::abs(result.middle[r * width + i] - middle[i]));
      const bool zero = std::abs(got - result.middle[r * width + i]) < 1e-9;
      zeros += zero;
      if (!zero) error = std::max(error, std::abs(got - (middle[i] + scale * hidden[i])));
    }
  }
  CHECK(error < (half ? 0.3 : 2e-5));
  const double share = static_cast<double>(zeros) / static_cast<double>(rows * width);
  CHECK(std::abs(share - 0.25) < 4 / std::sqrt(static_cast<double>(rows * width)));

  const Floats grad_output = draw(shape.rows * shape.width, random);
  std::vector<Floats> gradients = backward(p, result, grad_output, 1);
  Result other = forward(p, 3);
  CHECK(other.output == result.output && other.activated.bytes == result.activated.bytes);
  CHECK(backward(p, other, grad_output, 3) == gradients);
  if (half || shape.rows > 800) return;  // differences of rounded numbers say nothing; those of many rows take long
  std::vector<Floats*> all = p.all();
  all.push_back(&p.attended);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Floats before = *all[i];
    const Floats direction = draw(static_cast<std::int64_t>(before.size()), random);
    double values[2];
    constexpr float step = 5e-4f;
    for (const int way : {0, 1}) {
      for (std::size_t j = 0; j < before.size(); ++j)
        (*all[i])[j] = before[j] + (way == 0 ? step : -step) * direction[j];
      values[way] = against(grad_output, forward(p, 1).output);
    }
    *all[i] = before;
    const double expected = (values[0] - values[1]) / (2 * step);
    const double got = against(direction, gradients[i]);
    double size = 0;
    for (const float g : gradients[i]) size += static_cast<double>(g) * g;
    at += ", gradient " + std::to_string(i);
    CHECK(std::abs(got - expected) < 0.02 * std::sqrt(size) + 1e-3);
    at.resize(at.rfind(", gradient"));
  }
}

void before(const LayerShape& shape) {
  RandomStream random(5);
  const Floats x = draw(shape.rows * shape.width, random);
  const Floats weight = draw(shape.hidden * shape.width, random, 0.2f);
  const Floats scales = draw(shape.width, random, 0.5f, 1);
  const Floats offsets = draw(shape.width, random);
  const Floats nothing(static_cast<std::size_t>(shape.hidden));
  const Numbers grad_output(shape.dtype, draw(shape.rows * shape.hidden, random));
  const bool half = shape.dtype == Float::bfloat16;
  std::vector<Numbers> outputs;
  std::vector<Floats> gradients;
  for (const int threads : {1, 3}) {
    Floats packed(weight.size());
    Numbers output(shape.dtype, shape.rows * shape.hidden);
    pack_weight(weight.data(), shape.hidden, shape.width, false, shape.dtype, packed.data(), threads);
    BeforeAttention layer{
        shape, x.data(), {scales.data(), offsets.data()}, {packed.data(), nullptr, nullptr}, output.data()};
    before_attention(layer, threads);
    outputs.push_back(output);
    pack_weight(weight.data(), shape.hidden, shape.width, true, shape.dtype, packed.data(), threads);
    layer.linear = {nullptr, packed.data(), nullptr};
    Floats grad_x(x.size(), 1.0f), grad_weight(weight.size()), grad_scales(scales.size()), grad_offsets(offsets.size());
    before_attention_backward(
        layer, {grad_output.bytes.data(), grad_x.data(), grad_weight.data(), {grad_scales.data(), grad_offsets.data()}},
        threads);
    for (const Floats& g : {grad_x, grad_weight, grad_scales, grad_offsets}) gradients.push_back(g);
  }
  CHECK(outputs[0].bytes == outputs[1].bytes);
  for (std::size_t i = 0; i < 4; ++i) CHECK(gradients[i] == gradients[i + 4]);

  const auto width = static_cast<std::size_t>(shape.width);
  const auto hidden = static_cast<std::size_t>(shape.hidden);
  Doubles grad_weight(weight.size());
  Doubles grad_offsets(width);
  double error = 0;
  for (std::size_t r = 0; r < static_cast<std::size_t>(shape.rows); ++r) {
    const Doubles normed = norm(Doubles(x.begin() + static_cast<std::ptrdiff_t>(r * width),
                                        x.begin() + static_cast<std::ptrdiff_t>((r + 1) * width)),
                                scales, offsets);
    const Doubles y = linear(normed, weight, nothing);
    for (std::size_t o = 0; o < hidden; ++o) {
      error = std::max(error, std::abs(outputs[0][r * hidden + o] - y[o]));
      for (std::size_t i = 0; i < width; ++i) {
        grad_weight[o * width + i] += grad_output[r * hidden + o] * normed[i];
        grad_offsets[i] += grad_output[r * hidden + o] * weight[o * width + i];
      }
    }
  }
  const double rows = static_cast<double>(shape.rows);
  CHECK(error < (half ? 0.05 : 1e-5));
  error = 0;
  for (std::size_t i = 0; i < weight.size(); ++i) error = std::max(error, std::abs(gradients[1][i] - grad_weight[i]));
  CHECK(error < (half ? 0.05 : 1e-5) * std::sqrt(rows));
  error = 0;
  for (std::size_t i = 0; i < width; ++i) error = std::max(error, std::abs(gradients[3][i] - grad_offsets[i]));
  CHECK(error < (half ? 0.05 : 1e-5) * std::sqrt(rows));
}

void run(const char* capability) {
  for (const Float dtype : {Float::float32, Float::bfloat16}) {
    for (const auto& [rows, width, hidden] :
         {std::array<std::int64_t, 3>{1, 32, 32}, {51, 64, 96}, {97, 96, 64}, {900, 32, 64}}) {
      at = std::string(capability) + ", " + std::to_string(rows) + " rows of " + std::to_string(width) + ", " +
           (dtype == Float::float32 ? "float32" : "bfloat16");
      after({rows, width, hidden, dtype, epsilon});
      before({rows, width, hidden, dtype, epsilon});
    }
  }
}

}  // namespace

int main() { return in_each_form(run); }
