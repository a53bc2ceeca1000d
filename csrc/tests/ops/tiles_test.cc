// Products in tiles: the emulated ones against double precision, against what Intel's manual says in words, and, where
// the processor has tiles, the processor's against the emulated ones, bit for bit.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#define TWOHOT_CAPABILITY test
#include "core/random.h"
#include "ops/simd/tiles.h"
#include "tests/ops/checks.h"

namespace twohot::ops::tests {
namespace {

using namespace twohot::ops::test;
using Words = std::vector<std::uint32_t>;
using Floats = std::vector<float>;

std::uint32_t word(float low, float high) {
  return std::bit_cast<std::uint32_t>(low) >> 16 | (std::bit_cast<std::uint32_t>(high) & 0xffff0000);
}

double half(std::uint32_t word, int i) { return std::bit_cast<float>(i == 0 ? word << 16 : word & 0xffff0000); }

struct Sizes {
  std::int64_t rows, columns, depth;  // in tiles
};

// Operands with room between their rows, of words that `draw` gives.
struct Operands {
  Sizes size;
  std::int64_t left_row, right_row;
  Words left, right;

  template <class Draw>
  Operands(const Sizes& s, Draw draw)
      : size(s), left_row(tile_side * s.depth + 3), right_row(tile_side * s.columns + 5) {
    for (std::int64_t i = 0; i < tile_side * s.rows * left_row; ++i) left.push_back(draw());
    for (std::int64_t i = 0; i < tile_side * s.depth * right_row; ++i) right.push_back(draw());
  }

  template <class T>
  Floats product(const Floats& sums, bool add) const {
    Floats out = sums;
    const TileOperand x{left.data(), left_row, tile_side, tile_side * left_row};
    const TileOperand y{right.data(), right_row, tile_side * right_row, tile_side};
    const typename T::Scope scope;
    tile_product<T>(out.data(), tile_side * size.columns, size.rows, size.columns, x, y, size.depth, add);
    return out;
  }
};

Floats start(const Sizes& s, RandomStream& random) {
  Floats sums;
  for (std::int64_t i = 0; i < tile_words * s.rows * s.columns; ++i)
    sums.push_back(static_cast<float>(random.below(2001)) / 1000 - 1);
  return sums;
}

std::uint32_t moderate(RandomStream& random) {
  const auto one = [&] { return static_cast<float>(random.below(4001)) / 2000 - 1; };
  return word(one(), one());
}

// Small integers, of which every product and every sum is a float32.
std::uint32_t whole(RandomStream& random) {
  const auto one = [&] { return static_cast<float>(random.below(31)) - 15; };
  return word(one(), one());
}

void test_products() {
  RandomStream random(3);
  for (std::int64_t rows = 1; rows <= 7; ++rows) {
    for (const auto& [columns, depth] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {2, 3}, {5, 2}}) {
      for (const bool exact : {false, true}) {
        const Sizes s{rows, columns, depth};
        const Operands of(s, [&] { return exact ? whole(random) : moderate(random); });
        Floats sums = start(s, random);
        if (exact) std::transform(sums.begin(), sums.end(), sums.begin(), [](float x) { return std::round(9 * x); });
        for (const bool add : {false, true}) {
          at = std::to_string(rows) + " x " + std::to_string(columns) + " x " + std::to_string(depth) + " tiles";
          const Floats found = of.product<EmulatedTiles>(sums, add);
          double worst = 0;
          for (std::int64_t m = 0; m < tile_side * rows; ++m) {
            for (std::int64_t n = 0; n < tile_side * columns; ++n) {
              const auto i = static_cast<std::size_t>(m * tile_side * columns + n);
              double right = add ? sums[i] : 0;
              double size = std::fabs(right);
              for (std::int64_t k = 0; k < tile_side * depth; ++k) {
                for (const int part : {0, 1}) {
                  const double each = half(of.left[static_cast<std::size_t>(m * of.left_row + k)], part) *
                                      half(of.right[static_cast<std::size_t>(k * of.right_row + n)], part);
                  right += each;
                  size += std::fabs(each);
                }
              }
              // A product is rounded with those of its tile, with the other half's, and at each tile's end.
              const double roundings = static_cast<double>(tile_side + 1 + depth);
              const double bound = roundings * 0x1p-24 / (1 - roundings * 0x1p-24) * size;
              const double error = std::fabs(found[i] - right);
              if (!(exact ? error == 0 : error <= bound)) worst = std::max(worst, 1.0);
            }
          }
          CHECK(worst == 0);
        }
      }
    }
  }
}

// One sum of a tile: the products of `left` and `right`, one after the other.
float one_sum(const Words& left, const Words& right, float sum, bool add) {
  Operands of({1, 1, 1}, [] { return 0u; });
  for (std::size_t k = 0; k < left.size(); ++k) {
    of.left[k] = left[k];
    of.right[k * static_cast<std::size_t>(of.right_row)] = right[k];
  }
  return of.product<EmulatedTiles>(Floats(tile_words, sum), add)[0];
}

void test_arithmetic() {
  at = "even and odd products apart, then the sum";
  const float large = 0x1p24f;
  const std::uint32_t ones = word(1, 1);
  CHECK(one_sum({word(large, -large), word(1, 0), word(1, 0)}, {ones, ones, ones}, 0, true) == 0);
  CHECK(one_sum({word(1, 0), word(1, 0), word(large, -large)}, {ones, ones, ones}, 0, true) == 2);
  CHECK(one_sum({word(large, 0), word(1, 1)}, {ones, ones}, 0, true) == large);
  CHECK(one_sum({word(large, 1), word(0, 1)}, {ones, ones}, 0, true) == large + 2);
  CHECK(one_sum({word(1, 1)}, {ones}, -large, true) == 2 - large);
  CHECK(one_sum({word(1, 1)}, {ones}, -large, false) == 2);
  at = "one rounding of a product and its sum, to nearest even";
  CHECK(one_sum({word(1, 0), word(0x1p-24f, 0)}, {ones, ones}, 0, true) == 1);
  CHECK(one_sum({word(1 + 0x1p-7f, 0), word(0x1.8p-24f, 0)}, {ones, ones}, 0, true) == 1 + 0x1p-7f + 0x1p-23f);
  CHECK(one_sum({word(0x1p127f, 0), word(0x1p127f, 0)}, {word(-1, 0), word(0x1.8p0f, 0)}, 0, true) == 0x1p126f);
  CHECK(one_sum({word(-0x1p127f, 0), word(0x1p127f, 0)}, {word(1.5f, 0), word(2, 0)}, 0, true) == 0x1p126f);
  at = "what is below the normal numbers is zero";
  const float least = std::numeric_limits<float>::min();
  CHECK(one_sum({word(0x1p-127f, 0)}, {word(0x1p100f, 0)}, 0, true) == 0);
  CHECK(one_sum({ones}, {word(0x1p-130f, 0)}, 0, true) == 0);
  CHECK(one_sum({word(0x1p-63f, 0)}, {word(0x1p-64f, 0)}, 0, true) == 0);
  CHECK(one_sum({word(0x1p-63f, 0)}, {word(0x1p-63f, 0)}, 0, true) == least);
  CHECK(one_sum({}, {}, least / 2, true) == 0);
  CHECK(one_sum({word(-least, 0)}, {ones}, 1.5f * least, true) == 0);
  at = "no numbers";
  const float endless = std::numeric_limits<float>::infinity();
  CHECK(one_sum({word(endless, 0)}, {ones}, 0, true) == endless);
  CHECK(std::isnan(one_sum({word(endless, 0)}, {word(0, 0)}, 0, true)));
  CHECK(std::isnan(one_sum({word(endless, -endless)}, {ones}, 0, true)));
}

void test_without_scope() {
  at = "no scope";
  Floats sums(tile_words);
  const Words zeros(tile_words);
  const TileOperand all{zeros.data(), tile_side, tile_words, tile_words};
  multiply_tiles<1, 1, EmulatedTiles>(sums.data(), tile_side, all, all, 1, true);
  CHECK(std::all_of(sums.begin(), sums.end(), [](float x) { return std::isnan(x); }));
}

#ifdef TWOHOT_X86
// Any bits of numbers: large, small, below the normal ones.
void test_processor() {
  RandomStream random(5);
  for (int round = 0; round < 200; ++round) {
    const std::uint64_t spread = 1 + random.below(60);
    const auto one = [&] {
      const auto bits = static_cast<std::uint32_t>(random.below(std::uint64_t{1} << 32));
      const auto exponent =
          static_cast<std::uint32_t>(random.below(4) == 0 ? 0 : 127 - spread + random.below(2 * spread));
      return (bits & 0x807fffff) | exponent << 23;
    };
    const Sizes s{1 + round % 7, 1 + round % 3, 1 + round % 4};
    const Operands of(s, [&] { return (one() & 0xffff0000) | one() >> 16; });
    Floats sums(static_cast<std::size_t>(tile_words * s.rows * s.columns));
    for (float& each : sums) each = std::bit_cast<float>(one());
    for (const bool add : {false, true}) {
      at = "round " + std::to_string(round);
      const Floats expected = of.product<EmulatedTiles>(sums, add);
      const Floats found = of.product<AmxTiles>(sums, add);
      CHECK(std::memcmp(found.data(), expected.data(), 4 * found.size()) == 0);
    }
  }
}
#endif

}  // namespace
}  // namespace twohot::ops::tests

int main() {
  using namespace twohot::ops;
  tests::test_products();
  tests::test_arithmetic();
  tests::test_without_scope();
#ifdef TWOHOT_X86
  if (supported(Capability::amx)) tests::test_processor();
#endif
  return tests::report();
}
