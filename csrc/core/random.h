// The random stream of the replay: xoshiro256++ (Blackman and Vigna, 2021), seeded through splitmix64.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <stdexcept>

namespace twohot {

using RandomState = std::array<std::uint64_t, 4>;

// The same seed or state gives the same numbers on every machine. Not thread-safe: its owner locks.
class RandomStream {
 public:
  explicit RandomStream(std::uint64_t seed) noexcept {
    for (std::uint64_t& word : state_) {
      seed += 0x9e3779b97f4a7c15u;
      std::uint64_t z = seed;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
      word = z ^ (z >> 31);
    }
  }

  const RandomState& state() const noexcept { return state_; }

  // Throws std::invalid_argument for four zeros, the one state that the generator cannot leave; the state is then as
  // before.
  void set_state(const RandomState& state) {
    if (state == RandomState{}) throw std::invalid_argument("expected a random state with a non-zero word, got zeros");
    state_ = state;
  }

  // Uniform over all 64-bit words. O(1).
  std::uint64_t next() noexcept {
    const std::uint64_t result = std::rotl(state_[0] + state_[3], 23) + state_[0];
    const std::uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

  // Uniform over 0 .. bound - 1 without bias, by rejection: fewer than two words are used on average. `bound` >= 1.
  std::uint64_t below(std::uint64_t bound) noexcept {
    const int shift = std::countl_zero((bound - 1) | 1);
    std::uint64_t drawn;
    do {
      drawn = next() >> shift;
    } while (drawn >= bound);
    return drawn;
  }

 private:
  RandomState state_;
};

}  // namespace twohot
