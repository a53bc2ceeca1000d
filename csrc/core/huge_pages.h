// Large memory in huge pages, where the system offers them.
#pragma once

#include <cstddef>

namespace twohot {

inline constexpr std::size_t huge_page = std::size_t{1} << 21;

// Uninitialised memory that std::free() frees, aligned to a huge page; `bytes` is a multiple of that. Throws
// std::bad_alloc.
void* allocate_huge(std::size_t bytes);

}  // namespace twohot
