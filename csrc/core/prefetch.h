// Hints that memory is read soon.
#pragma once

#include <cstddef>

namespace twohot {

// Asks for the cache lines of `bytes` bytes; any address may be given, none is touched. O(bytes / 64). Always inlined,
// as its callers have to be that do nothing else: GCC leaves out calls of functions that only prefetch.
[[gnu::always_inline]] inline void prefetch(const void* address, std::size_t bytes = 1) noexcept {
#if defined(__GNUC__)
  const auto* at = static_cast<const std::byte*>(address);
  for (std::size_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i);
#else
  (void)address;
  (void)bytes;
#endif
}

}  // namespace twohot
