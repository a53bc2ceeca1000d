// The CPU kernels of attention against double precision, in every form that this machine runs, at the edges of tiles
// and of memory: each array ends where it ends, so that the address sanitizer sees what goes beyond.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "core/random.h"
#include "ops/attention/attention_kernels.h"
#include "tests/ops/checks.h"
#include "tests/ops/numbers.h"

namespace {

using twohot::RandomStream;
using namespace twohot::ops;
using namespace twohot::ops::tests;

struct Shape {
  std::int64_t batch, steps, heads, groups, size, window, sinks;
  float softcap;
};

// Forward and backward pass of one form, and what doubles make of the same numbers.
void test_window(const AttentionKernels& form, Float dtype, const Shape& shape, RandomStream& random) {
  const auto& [batch, steps, heads, groups, size, window, sinks, softcap] = shape;
  const std::int64_t queries = heads * groups;
  const std::int64_t wide = batch * steps * queries * size;
  const std::int64_t narrow = batch * steps * heads * size;
  Numbers q(dtype, wide), k(dtype, narrow), v(dtype, narrow), grad_output(dtype, wide), out(dtype, wide);
  Numbers dq(dtype, wide), dk(dtype, narrow), dv(dtype, narrow);
  for (Numbers* each : {&q, &k, &v, &grad_output}) each->fill(random);
  std::vector<float> lse(static_cast<std::size_t>(batch * queries * steps));
  std::vector<std::int64_t> lengths;
  for (std::int64_t b = 0; b < batch; ++b) lengths.push_back(b == 0 ? steps : steps * b / (batch + 1));
  const auto view = [&](Numbers& x, std::int64_t h) { return Heads{x.bytes.data(), steps * h * size, h * size, size}; };
  const float scale = 0.25f;
  const AttentionWindow w{
      dtype,          batch,   steps,   heads,  groups, size,  view(q, queries), view(k, heads),     view(v, heads),
      lengths.data(), nullptr, nullptr, window, sinks,  scale, softcap,          view(out, queries), lse.data()};
  const AttentionGradients gradients{view(grad_output, queries), view(dq, queries), view(dk, heads), view(dv, heads)};
  for (std::int64_t i = 0; i < batch * heads; ++i) {
    std::vector<float> scratch(static_cast<std::size_t>(scratch_floats(w, false)), std::nanf(""));
    form.forward(w, i, scratch.data());
  }
  for (std::int64_t i = 0; i < batch * heads; ++i) {
    std::vector<float> scratch(static_cast<std::size_t>(scratch_floats(w, true)), std::nanf(""));
    form.backward(w, gradients, i, scratch.data());
  }

  std::vector<double> o(static_cast<std::size_t>(wide)), gq(o), gk(static_cast<std::size_t>(narrow)), gv(gk);
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t h = 0; h < queries; ++h) {
      for (std::int64_t t = 0; t < lengths[static_cast<std::size_t>(b)]; ++t) {
        const std::int64_t row = ((b * steps + t) * queries + h) * size;
        const auto key = [&](std::int64_t s) { return ((b * steps + s) * heads + h / groups) * size; };
        std::vector<double> p, slope;
        std::vector<std::int64_t> seen;
        double top = -1e300;
        for (std::int64_t s = 0; s <= t; ++s) {
          if (window > 0 && s <= t - window && s >= sinks) continue;
          double score = 0;
          for (std::int64_t i = 0; i < size; ++i) score += double(q.get(row + i)) * double(k.get(key(s) + i));
          score *= double(scale);
          const double capped = softcap > 0 ? double(softcap) * std::tanh(score / double(softcap)) : score;
          slope.push_back(softcap > 0 ? 1 - std::pow(capped / double(softcap), 2) : 1);
          p.push_back(capped);
          seen.push_back(s);
          top = std::max(top, capped);
        }
        double total = 0;
        for (double& each : p) total += each = std::exp(each - top);
        double delta = 0;
        std::vector<double> dp(p.size());
        for (std::size_t j = 0; j < p.size(); ++j) {
          p[j] /= total;
          for (std::int64_t i = 0; i < size; ++i) {
            o[static_cast<std::size_t>(row + i)] += p[j] * double(v.get(key(seen[j]) + i));
            dp[j] += double(grad_output.get(row + i)) * double(v.get(key(seen[j]) + i));
            gv[static_cast<std::size_t>(key(seen[j]) + i)] += p[j] * double(grad_output.get(row + i));
          }
          delta += p[j] * dp[j];
        }
        for (std::size_t j = 0; j < p.size(); ++j) {
          const double ds = p[j] * (dp[j] - delta) * slope[j] * double(scale);
          for (std::int64_t i = 0; i < size; ++i) {
            gq[static_cast<std::size_t>(row + i)] += ds * double(k.get(key(seen[j]) + i));
            gk[static_cast<std::size_t>(key(seen[j]) + i)] += ds * double(q.get(row + i));
          }
        }
      }
    }
  }
  // Of the whole, for single numbers may be small differences of large ones.
  const auto worst = [](const Numbers& x, const std::vector<double>& truth) {
    double error = 0;
    double whole = 0;
    for (std::size_t i = 0; i < truth.size(); ++i) {
      error += std::pow(double(x.get(static_cast<std::int64_t>(i))) - truth[i], 2);
      whole += truth[i] * truth[i];
    }
    return whole > 0 ? std::sqrt(error / whole) : error;
  };
  // Of bfloat16 weights, their gradients, the output that these are made of, and what is given are rounded, each by
  // 2^-9 at most; twice as much is for what cancels.
  const double tolerance = dtype == Float::float32 ? 1e-5 : 0x1p-6;
  CHECK(worst(out, o) < tolerance);
  CHECK(worst(dq, gq) < tolerance);
  CHECK(worst(dk, gk) < tolerance);
  CHECK(worst(dv, gv) < tolerance);
}

// One step against rings of different lengths; rows past those in use hold NaN.
void test_step(const AttentionKernels& form, Float dtype, std::int64_t rows, std::int64_t size, RandomStream& random) {
  const std::vector<std::int64_t> cache_position{0, 7, rows - 1, rows, 3 * rows + 2};
  const std::int64_t environments = static_cast<std::int64_t>(cache_position.size());
  Numbers keys(dtype, environments * rows * size), values(dtype, environments * rows * size);
  Numbers q(Float::float32, environments * 2 * size), k(dtype, environments * size), v(dtype, environments * size);
  for (Numbers* each : {&keys, &values, &q, &k, &v}) each->fill(random);
  for (std::int64_t e = 0; e < environments; ++e) {
    for (std::int64_t r = cache_position[static_cast<std::size_t>(e)]; r < rows; ++r) {
      for (Numbers* ring : {&keys, &values}) {
        const std::int64_t row = size * bytes_of(dtype);
        std::memset(ring->bytes.data() + (e * rows + r) * row, 0xff, static_cast<std::size_t>(row));
      }
    }
  }
  Numbers wide_k(Float::float32, environments * size), wide_v(Float::float32, environments * size);
  for (std::int64_t i = 0; i < environments * size; ++i) {
    const float a = k.get(i), b = v.get(i);
    std::memcpy(wide_k.bytes.data() + 4 * i, &a, 4);
    std::memcpy(wide_v.bytes.data() + 4 * i, &b, 4);
  }
  Numbers out(Float::float32, environments * 2 * size);
  const std::int64_t sinks = 2;
  const Ring ring{keys.bytes.data(), values.bytes.data(), dtype, environments, 1, rows, size, sinks};
  const DecodeStep step{q.bytes.data(),
                        wide_k.bytes.data(),
                        wide_v.bytes.data(),
                        Float::float32,
                        2 * size,
                        size,
                        size,
                        2,
                        cache_position.data(),
                        nullptr,
                        nullptr,
                        0.25f,
                        0,
                        out.bytes.data()};
  form.decode(ring, step, 0, environments);
  for (std::int64_t e = 0; e < environments; ++e) {
    const std::int64_t s = cache_position[static_cast<std::size_t>(e)];
    const std::int64_t slot = s < rows ? s : sinks + (s - sinks) % (rows - sinks);
    bool written = true;
    for (std::int64_t i = 0; i < size; ++i) {
      written &= keys.get((e * rows + slot) * size + i) == k.get(e * size + i);
      written &= values.get((e * rows + slot) * size + i) == v.get(e * size + i);
    }
    CHECK(written);
    for (std::int64_t g = 0; g < 2; ++g) {
      std::vector<double> sum(static_cast<std::size_t>(size));
      double total = 0;
      for (std::int64_t r = 0; r < std::min(s + 1, rows); ++r) {
        double score = 0;
        for (std::int64_t i = 0; i < size; ++i)
          score += double(q.get((2 * e + g) * size + i)) * double(keys.get((e * rows + r) * size + i));
        const double weight = std::exp(score / 4);
        total += weight;
        for (std::int64_t i = 0; i < size; ++i)
          sum[static_cast<std::size_t>(i)] += weight * double(values.get((e * rows + r) * size + i));
      }
      double error = 0;
      for (std::int64_t i = 0; i < size; ++i) {
        const double each =
            std::fabs(double(out.get((2 * e + g) * size + i)) - sum[static_cast<std::size_t>(i)] / total);
        error = each <= error ? error : each;
      }
      CHECK(error < 1e-5);
    }
  }
}

// Several threads write where one does, and nowhere twice.
void test_threads() {
  RandomStream random(7);
  constexpr std::int64_t batch = 3, steps = 130, heads = 2, size = 32;
  const std::int64_t count = batch * steps * heads * size;
  Numbers q(Float::float32, count), k(q), v(q), grad_output(q);
  for (Numbers* each : {&q, &k, &v, &grad_output}) each->fill(random);
  const auto run = [&](int threads) {
    Numbers out(Float::float32, count), dq(out), dk(out), dv(out);
    std::vector<float> lse(static_cast<std::size_t>(batch * heads * steps));
    const auto view = [&](Numbers& x) { return Heads{x.bytes.data(), steps * heads * size, heads * size, size}; };
    const AttentionWindow w{Float::float32, batch,   steps,   heads, 1, size, view(q), view(k),   view(v),
                            nullptr,        nullptr, nullptr, 0,     0, 0.2f, 0,       view(out), lse.data()};
    forward(w, threads);
    backward(w, {view(grad_output), view(dq), view(dk), view(dv)}, threads);
    for (const Numbers* each : {&dq, &dk, &dv})
      out.bytes.insert(out.bytes.end(), each->bytes.begin(), each->bytes.end());
    return out.bytes;
  };
  const std::vector<char> alone = run(1);
  CHECK(alone == run(3));
}

}  // namespace

int main() {
  RandomStream random(3);
  at = "threads";
  test_threads();
  for (const AttentionKernels* form : forms<AttentionKernels>()) {
    at = form->name;
    for (const Float dtype : {Float::float32, Float::bfloat16}) {
      for (const Shape& shape :
           {Shape{1, 1, 1, 1, 16, 0, 0, 0}, Shape{3, 49, 2, 1, 16, 0, 0, 0}, Shape{2, 97, 1, 3, 48, 0, 0, 2},
            Shape{2, 150, 1, 2, 32, 10, 100, 0}, Shape{1, 145, 1, 1, 64, 60, 0, 0}, Shape{1, 50, 1, 1, 256, 0, 0, 0}}) {
        at = std::string(form->name) + " window of " + std::to_string(shape.steps);
        test_window(*form, dtype, shape, random);
      }
      for (const std::int64_t rows : {9, 64, 133}) {
        for (const std::int64_t size : {16, 48, 64, 256}) {
          at = std::string(form->name) + " ring of " + std::to_string(rows);
          test_step(*form, dtype, rows, size, random);
        }
      }
    }
  }
  return report();
}
