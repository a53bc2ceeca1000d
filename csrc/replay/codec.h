// Lossless compression of columns by libraries of the system, loaded when a schema first asks for one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace twohot {

// One of LZ4 (https://lz4.org) and Zstandard (https://facebook.github.io/zstd). Stateless and thread-safe.
class Codec {
 public:
  // Loads the library. Throws std::invalid_argument for a name other than "lz4" and "zstd", and std::runtime_error
  // where the library is not installed.
  static const Codec& named(std::string_view name);

  std::string_view name() const noexcept { return name_; }

  // The most bytes that `bytes` bytes can become.
  std::size_t bound(std::size_t bytes) const { return bound_(bytes); }

  // Compresses into `target`, which has room for bound(bytes), and returns the size. Throws std::runtime_error where
  // the library refuses.
  std::size_t compress(const std::byte* source, std::size_t bytes, std::byte* target) const;

  // Decompresses into exactly `target_bytes` bytes; false where `source` does not hold them. Reads and writes nothing
  // beyond either.
  bool decompress(const std::byte* source, std::size_t bytes, std::byte* target,
                  std::size_t target_bytes) const noexcept;

 private:
  using Bound = std::size_t (*)(std::size_t bytes);
  using Call = std::int64_t (*)(const std::byte* source, std::size_t bytes, std::byte* target, std::size_t room);

  Codec(std::string_view name, Bound bound, Call compress, Call decompress)
      : name_(name), bound_(bound), compress_(compress), decompress_(decompress) {}

  static Codec lz4();
  static Codec zstd();

  std::string_view name_;
  Bound bound_;
  Call compress_;    // the size, or below 1
  Call decompress_;  // the size, or below 0
};

}  // namespace twohot
