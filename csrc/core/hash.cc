#include "core/hash.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace twohot {
namespace {

static_assert(std::endian::native == std::endian::little, "files of the replay are little-endian");

constexpr std::uint64_t prime1 = 0x9e3779b185ebca87u;
constexpr std::uint64_t prime2 = 0xc2b2ae3d27d4eb4fu;
constexpr std::uint64_t prime3 = 0x165667b19e3779f9u;
constexpr std::uint64_t prime4 = 0x85ebca77c2b2ae63u;
constexpr std::uint64_t prime5 = 0x27d4eb2f165667c5u;

template <typename Word>
std::uint64_t load(const std::byte* at) noexcept {
  Word word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

std::uint64_t mixed(std::uint64_t lane, std::uint64_t word) noexcept {
  return std::rotl(lane + word * prime2, 31) * prime1;
}

}  // namespace

Hash64::Hash64(std::uint64_t seed) noexcept
    : lanes_{seed + prime1 + prime2, seed + prime2, seed, seed - prime1}, seed_(seed) {}

void Hash64::add(const void* data, std::size_t bytes) noexcept {
  const auto* at = static_cast<const std::byte*>(data);
  total_ += bytes;
  if (held_ != 0) {
    const std::size_t taken = std::min(bytes, rest_.size() - held_);
    std::memcpy(rest_.data() + held_, at, taken);
    held_ += taken;
    at += taken;
    bytes -= taken;
    if (held_ < rest_.size()) return;
    for (std::size_t i = 0; i < 4; ++i) lanes_[i] = mixed(lanes_[i], load<std::uint64_t>(rest_.data() + 8 * i));
    held_ = 0;
  }
  std::array<std::uint64_t, 4> lanes = lanes_;
  for (; bytes >= 32; at += 32, bytes -= 32) {
    for (std::size_t i = 0; i < 4; ++i) lanes[i] = mixed(lanes[i], load<std::uint64_t>(at + 8 * i));
  }
  lanes_ = lanes;
  if (bytes != 0) std::memcpy(rest_.data(), at, bytes);
  held_ = bytes;
}

std::uint64_t Hash64::value() const noexcept {
  std::uint64_t hash = seed_ + prime5;
  if (total_ >= 32) {
    hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
    for (const std::uint64_t lane : lanes_) hash = (hash ^ mixed(0, lane)) * prime1 + prime4;
  }
  hash += total_;
  const std::byte* at = rest_.data();
  std::size_t left = held_;
  for (; left >= 8; at += 8, left -= 8) {
    hash = std::rotl(hash ^ mixed(0, load<std::uint64_t>(at)), 27) * prime1 + prime4;
  }
  if (left >= 4) {
    hash = std::rotl(hash ^ (load<std::uint32_t>(at) * prime1), 23) * prime2 + prime3;
    at += 4;
    left -= 4;
  }
  for (; left != 0; ++at, --left) hash = std::rotl(hash ^ (load<std::uint8_t>(at) * prime5), 11) * prime1;
  hash = (hash ^ (hash >> 33)) * prime2;
  hash = (hash ^ (hash >> 29)) * prime3;
  return hash ^ (hash >> 32);
}

}  // namespace twohot
