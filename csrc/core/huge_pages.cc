#include "core/huge_pages.h"

#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace twohot {

void* allocate_huge(std::size_t bytes) {
  void* data = std::aligned_alloc(huge_page, bytes);
  if (data == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  madvise(data, bytes, MADV_HUGEPAGE);  // advice: a refusal costs time, not correctness
#endif
  return data;
}

}  // namespace twohot
