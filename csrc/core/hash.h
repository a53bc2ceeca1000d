// A checksum of 64 bits: XXH64 (Collet, https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace twohot {

// XXH64 of bytes that come in pieces. Not thread-safe.
class Hash64 {
 public:
  explicit Hash64(std::uint64_t seed = 0) noexcept;

  // O(bytes).
  void add(const void* data, std::size_t bytes) noexcept;

  // Of everything added so far. O(1).
  std::uint64_t value() const noexcept;

 private:
  std::array<std::uint64_t, 4> lanes_;
  std::array<std::byte, 32> rest_{};
  std::size_t held_ = 0;
  std::uint64_t total_ = 0;
  std::uint64_t seed_;
};

inline std::uint64_t hash64(const void* data, std::size_t bytes, std::uint64_t seed = 0) noexcept {
  Hash64 hash(seed);
  hash.add(data, bytes);
  return hash.value();
}

}  // namespace twohot
