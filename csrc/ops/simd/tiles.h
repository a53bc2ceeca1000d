// The tiles of AMX, real and emulated, and products of matrices by them: include after defining TWOHOT_CAPABILITY.
//
// A tile is 16 rows of 16 words of 32 bits: float32 numbers of a sum, or pairs of bfloat16. A thread has eight of them,
// while it holds a Scope; others of the process configure the processor's for themselves, so that whatever is called
// from outside needs a scope of its own. Scopes are not nested.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace twohot::ops::TWOHOT_CAPABILITY {

constexpr std::int64_t tile_side = 16;
constexpr std::int64_t tile_words = tile_side * tile_side;

#ifdef TWOHOT_X86
// Assembly, for GCC 12's intrinsics do not say that they read memory.
struct AmxTiles {
  class Scope {
   public:
    Scope() noexcept {
      struct alignas(64) {
        std::uint8_t palette = 1;
        std::uint8_t start = 0;
        std::uint8_t none[14] = {};
        std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
      } const configuration;
      asm volatile("ldtilecfg %0" : : "m"(configuration));
    }
    ~Scope() { asm volatile("tilerelease"); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
  };

  template <int tile>
  static void zero() noexcept {
    asm volatile("tilezero %%tmm%c0" : : "i"(tile));
  }

  // Rows that are `row` words apart.
  template <int tile>
  static void load(const void* from, std::int64_t row) noexcept {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(4 * row), "i"(tile) : "memory");
  }

  template <int tile>
  static void store(void* to, std::int64_t row) noexcept {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(4 * row), "i"(tile) : "memory");
  }

  // sum += left right, over the pairs of left's rows and of right's columns.
  template <int sum, int left, int right>
  static void multiply() noexcept {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(left), "i"(right));
  }
};
#endif

// The same, bit for bit, on any processor.
struct EmulatedTiles {
  class Scope {
   public:
    Scope() noexcept { held = true; }
    ~Scope() { held = false; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
  };

  // A processor traps where no scope is held; here all becomes NaN.
  template <int tile>
  static void zero() noexcept {
    std::memset(tiles[tile].words, held ? 0 : 0xff, sizeof(Register));
  }

  template <int tile>
  static void load(const void* from, std::int64_t row) noexcept {
    zero<tile>();
    for (std::int64_t r = 0; held && r < tile_side; ++r) {
      std::memcpy(tiles[tile].words[r], static_cast<const std::uint32_t*>(from) + r * row, 4 * tile_side);
    }
  }

  template <int tile>
  static void store(void* to, std::int64_t row) noexcept {
    for (std::int64_t r = 0; r < tile_side; ++r) {
      std::memcpy(static_cast<std::uint32_t*>(to) + r * row, tiles[tile].words[r], 4 * tile_side);
    }
  }

  template <int sum, int left, int right>
  static void multiply() noexcept {
    multiply(tiles[sum], tiles[left], tiles[right]);
  }

 private:
  struct Register {
    std::uint32_t words[tile_side][tile_side];
  };

  static inline thread_local Register tiles[8];
  static inline thread_local bool held = false;

  // float32 as it is read: what is below the normal numbers is zero.
  static float number(std::uint32_t bits) noexcept {
    return std::bit_cast<float>((bits & 0x7f800000) == 0 ? bits & 0x80000000 : bits);
  }

  // float32 as it is written. In double precision a product of bfloat16 is exact, and a sum with it, or of two numbers,
  // is exact as far as float32 sees it.
  static float rounded(double x) noexcept {
    constexpr double normal = 0x1.ffffffp-127;  // from here on it rounds to a normal number
    const float nearest = static_cast<float>(x);
    return std::fabs(x) < normal ? std::copysign(0.0f, nearest) : nearest;
  }

  // As Intel's manual (volume 2) defines TDPBF16PS: even and odd products are summed apart.
  [[gnu::noinline]] static void multiply(Register& sum, const Register& left, const Register& right) noexcept {
    for (std::int64_t m = 0; m < tile_side; ++m) {
      float even[tile_side] = {};
      float odd[tile_side] = {};
      for (std::int64_t k = 0; k < tile_side; ++k) {
        const std::uint32_t x = left.words[m][k];
        const double low = number(x << 16);
        const double high = number(x & 0xffff0000);
        for (std::int64_t n = 0; n < tile_side; ++n) {
          const std::uint32_t y = right.words[k][n];
          even[n] = rounded(low * static_cast<double>(number(y << 16)) + static_cast<double>(even[n]));
          odd[n] = rounded(high * static_cast<double>(number(y & 0xffff0000)) + static_cast<double>(odd[n]));
        }
      }
      for (std::int64_t n = 0; n < tile_side; ++n) {
        std::uint32_t& word = sum.words[m][n];
        const float both = rounded(static_cast<double>(even[n]) + static_cast<double>(odd[n]));
        const double all = static_cast<double>(number(word)) + static_cast<double>(both);
        word = std::bit_cast<std::uint32_t>(rounded(all));
      }
    }
  }
};

// What a form multiplies bfloat16 with, if it is in tiles.
#if defined(__AMX_BF16__)
constexpr bool multiplies_tiles = true;
using Tiles = AmxTiles;
#elif defined(TWOHOT_EMULATED_TILES)
constexpr bool multiplies_tiles = true;
using Tiles = EmulatedTiles;
#else
constexpr bool multiplies_tiles = false;
using Tiles = EmulatedTiles;  // only named
#endif

struct NoScope {
  NoScope() noexcept {}
};
using TileScope = std::conditional_t<multiplies_tiles, Tiles::Scope, NoScope>;

// Where the tiles of an operand lie, in words.
struct TileOperand {
  const void* words;
  std::int64_t row;   // from a row to the next
  std::int64_t deep;  // to the tile that is next in depth, which is summed over
  std::int64_t side;  // to the tile of the next rows (of a left operand) or columns (of a right one)

  const std::uint32_t* tile(std::int64_t depth, std::int64_t i) const noexcept {
    return static_cast<const std::uint32_t*>(words) + depth * deep + i * side;
  }
};

// Invokes fn.operator()<i>() for i = 0 .. count - 1.
template <int count, class Fn>
inline void each_tile(const Fn& fn) noexcept {
  [&]<int... i>(std::integer_sequence<int, i...>) {
    (fn.template operator()<i>(), ...);
  }(std::make_integer_sequence<int, count>{});
}

// sums [16 rows, 16 columns] = (sums +) left right, over `depth` tiles; `row` leads to the next row of sums. Up to 2 x
// 2 tiles, for which there are tiles for all operands, so that none has to be read before the next is loaded.
template <int rows, int columns, class T = Tiles>
[[gnu::noinline]] void multiply_tiles(float* sums, std::int64_t row, TileOperand left, TileOperand right,
                                      std::int64_t depth, bool add) noexcept {
  constexpr int first_left = rows * columns;
  constexpr int first_right = first_left + rows;
  const auto each_sum = [&](const auto& fn) {
    each_tile<rows>([&]<int i>() {
      each_tile<columns>(
          [&]<int j>() { fn.template operator()<i * columns + j>(sums + i * tile_side * row + j * tile_side); });
    });
  };
  if (add) {
    each_sum([&]<int tile>(float* at) { T::template load<tile>(at, row); });
  } else {
    each_sum([&]<int tile>(float*) { T::template zero<tile>(); });
  }
  const auto step = [left_row = left.row, left_side = left.side, right_row = right.row, right_side = right.side](
                        const std::uint32_t* x, const std::uint32_t* y) {
    each_tile<columns>([=]<int j>() {
      T::template load<first_right + j>(y + j * right_side, right_row);
      each_tile<rows>([=]<int i>() {
        if constexpr (j == 0) T::template load<first_left + i>(x + i * left_side, left_row);
        T::template multiply<i * columns + j, first_left + i, first_right + j>();
      });
    });
  };
  for (std::int64_t k = 0; k < depth; ++k) step(left.tile(k, 0), right.tile(k, 0));
  each_sum([&]<int tile>(float* at) { T::template store<tile>(at, row); });
}

// The same for any number of tiles of rows and columns.
template <class T = Tiles>
inline void tile_product(float* sums, std::int64_t row, std::int64_t rows, std::int64_t columns,
                         const TileOperand& left, const TileOperand& right, std::int64_t depth, bool add) noexcept {
  for (std::int64_t j = 0; j < columns; j += 2) {
    for (std::int64_t i = 0; i < rows; i += 2) {
      const auto block = rows - i > 1 ? columns - j > 1 ? multiply_tiles<2, 2, T> : multiply_tiles<2, 1, T>
                                      : (columns - j > 1 ? multiply_tiles<1, 2, T> : multiply_tiles<1, 1, T>);
      block(sums + (i * row + j) * tile_side, row, {left.tile(0, i), left.row, left.deep, left.side},
            {right.tile(0, j), right.row, right.deep, right.side}, depth, add);
    }
  }
}

}  // namespace twohot::ops::TWOHOT_CAPABILITY
