// Which of the compiled forms of a kernel this processor runs.
#pragma once

#include <cstdint>

namespace twohot::ops {

// The instruction sets that CMakeLists.txt compiles each *_target.cc for, from the least to the best; dispatch.cc says
// what a processor needs for each.
#ifdef TWOHOT_X86
#define TWOHOT_EACH_CAPABILITY(X) X(portable) X(avx2) X(avx512) X(avx512_bf16)
#else
#define TWOHOT_EACH_CAPABILITY(X) X(portable)
#endif

#define TWOHOT_LISTED(capability) capability,
enum class Capability : std::uint8_t { TWOHOT_EACH_CAPABILITY(TWOHOT_LISTED) };
#undef TWOHOT_LISTED

#define TWOHOT_LISTED(capability) Capability::capability,
constexpr Capability capabilities[] = {TWOHOT_EACH_CAPABILITY(TWOHOT_LISTED)};
#undef TWOHOT_LISTED

#define TWOHOT_LISTED(capability) #capability,
constexpr const char* capability_names[] = {TWOHOT_EACH_CAPABILITY(TWOHOT_LISTED)};
#undef TWOHOT_LISTED

constexpr const char* name_of(Capability capability) noexcept {
  return capability_names[static_cast<std::uint8_t>(capability)];
}

// Whether this processor runs it.
bool supported(Capability capability) noexcept;

// The best that this processor runs. The environment variable TWOHOT_CPU_CAPABILITY picks a lesser one; it is read
// once.
Capability best_capability() noexcept;

// The kernels of an operation for one instruction set: a table of functions, which its *_kernels.h declares and its
// *_target.cc fills.
template <class Table, Capability capability>
const Table& compiled_kernels() noexcept;

template <class Table>
const Table& kernels(Capability capability = best_capability()) noexcept {
  switch (capability) {
#define TWOHOT_LISTED(listed) \
  case Capability::listed: return compiled_kernels<Table, Capability::listed>();
    TWOHOT_EACH_CAPABILITY(TWOHOT_LISTED)
#undef TWOHOT_LISTED
  }
  return compiled_kernels<Table, Capability::portable>();
}

}  // namespace twohot::ops
