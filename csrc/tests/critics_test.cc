// The layers of critics in every form that this machine runs, against plain loops, at the edges of vectors and of memory:
// each array ends where it ends, so that the address sanitizer sees what goes beyond.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "core/random.h"
#if defined(__x86_64__) && !defined(TWOHOT_X86)
#define TWOHOT_X86
#endif
#include "ops/critics_kernels.h"

namespace {

using twohot::RandomStream;
using namespace twohot::ops;

constexpr float slope = 0.25f;

int passed = 0;
int failed = 0;
std::string at;  // what is being checked

void check(bool holds, const char* text, int line) {
  ++(holds ? passed : failed);
  if (!holds && failed <= 20) std::printf("line %d: %s (%s)\n", line, text, at.c_str());
}

#define CHECK(...) check((__VA_ARGS__), #__VA_ARGS__, __LINE__)

std::vector<const CriticKernels*> forms() {
  std::vector<const CriticKernels*> found{&portable_critics};
#ifdef TWOHOT_X86
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2_critics);
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) found.push_back(&avx512_critics);
  if (__builtin_cpu_supports("avx512bf16")) found.push_back(&avx512_bf16_critics);
#endif
  return found;
}

// Small multiples of 1 / 8 in float32 or bfloat16, whose sums and quarters both hold exactly.
struct Numbers {
  Float dtype;
  std::vector<char> bytes;

  Numbers(Float kind, std::int64_t count, RandomStream& random)
      : dtype(kind), bytes(static_cast<std::size_t>(count * bytes_of(kind))) {
    for (std::int64_t i = 0; i < count; ++i) set(i, (static_cast<float>(random.below(16)) - 8) / 8);
  }

  float get(std::int64_t i) const {
    if (dtype == Float::float32) {
      float x;
      std::memcpy(&x, bytes.data() + 4 * i, 4);
      return x;
    }
    std::uint16_t half;
    std::memcpy(&half, bytes.data() + 2 * i, 2);
    return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
  }

  void set(std::int64_t i, float x) {
    const std::uint16_t half = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16);
    if (dtype == Float::float32) {
      std::memcpy(bytes.data() + 4 * i, &x, 4);
    } else {
      std::memcpy(bytes.data() + 2 * i, &half, 2);
    }
  }

  const float* floats() const { return reinterpret_cast<const float*>(bytes.data()); }
  float* floats() { return reinterpret_cast<float*>(bytes.data()); }
};

float leaky(float x) { return x > 0 ? x : slope * x; }

void run(const CriticKernels& form, Float dtype, Float state_dtype, std::int64_t width, bool add) {
  RandomStream random(7);
  constexpr std::int64_t rows = 5, steps = 3, entries = 2;
  const std::int64_t stride = width + 3;
  const Numbers state(state_dtype, (steps - 1) * stride + width, random);
  const Numbers table(Float::float32, entries * width, random);
  const Numbers before(dtype, rows * width, random);
  const Numbers output(dtype, rows * width, random);
  std::vector<std::int64_t> step, entry;
  for (std::int64_t r = 0; r < rows; ++r) {
    step.push_back(static_cast<std::int64_t>(random.below(steps)));
    entry.push_back(static_cast<std::int64_t>(random.below(entries)));
  }

  Numbers x = before;
  const Features features{x.bytes.data(), dtype, rows, width};
  const FirstLayer layer{state.bytes.data(), state_dtype, stride, table.floats(), step.data(), entry.data(), add};
  form.first(features, layer, slope, 1, rows);  // the first row stays
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < width; ++i) {
      const float sum = state.get(step[r] * stride + i) + table.get(entry[r] * width + i) + (add ? before.get(r * width + i) : 0);
      CHECK(x.get(r * width + i) == (r < 1 ? before.get(i) : leaky(sum)));
    }
  }

  x = before;
  const Features hidden{x.bytes.data(), dtype, rows, width};
  form.hidden(hidden, table.floats(), slope, 0, rows);
  for (std::int64_t i = 0; i < rows * width; ++i) CHECK(x.get(i) == leaky(before.get(i) + table.get(i % width)));

  // Two ranges of columns, as two threads take them.
  const std::int64_t half = width / 64 * 64 / 2 / 64 * 64;
  Numbers of_bias = table;
  x = before;
  const Features gradient{x.bytes.data(), dtype, rows, width};
  if (half > 0) form.hidden_backward(gradient, output.bytes.data(), of_bias.floats(), slope, 0, half);
  form.hidden_backward(gradient, output.bytes.data(), of_bias.floats(), slope, half, width);
  Numbers y = before;
  Numbers of_state(Float::float32, (steps - 1) * stride + width, random);
  Numbers of_table = table;
  Numbers right_state = of_state;
  Numbers right_table = table;
  const FirstLayerGradient into{step.data(), entry.data(), of_state.floats(), stride, of_table.floats()};
  const Features other{y.bytes.data(), dtype, rows, width};
  if (half > 0) form.first_backward(other, output.bytes.data(), into, slope, 0, half);
  form.first_backward(other, output.bytes.data(), into, slope, half, width);
  for (std::int64_t i = 0; i < width; ++i) {
    float bias = table.get(i);
    for (std::int64_t r = 0; r < rows; ++r) {
      const float g = before.get(r * width + i) * (output.get(r * width + i) > 0 ? 1 : slope);
      CHECK(x.get(r * width + i) == g);
      CHECK(y.get(r * width + i) == g);
      bias += g;
      right_state.set(step[r] * stride + i, right_state.get(step[r] * stride + i) + g);
      right_table.set(entry[r] * width + i, right_table.get(entry[r] * width + i) + g);
    }
    CHECK(of_bias.get(i) == bias);
  }
  CHECK(of_state.bytes == right_state.bytes);  // what lies between the steps, too
  CHECK(of_table.bytes == right_table.bytes);
}

}  // namespace

int main() {
  for (const CriticKernels* form : forms()) {
    for (const Float dtype : {Float::float32, Float::bfloat16}) {
      for (const Float state : {Float::float32, Float::bfloat16}) {
        for (const std::int64_t width : {1, 7, 16, 31, 33, 64, 100, 200}) {
          for (const bool add : {false, true}) {
            at = std::string(form->name) + ", width " + std::to_string(width) + (dtype == state ? "" : ", mixed");
            run(*form, dtype, state, width, add);
          }
        }
      }
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
