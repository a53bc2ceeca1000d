// The forms that kernels are compiled in.
#pragma once

#include <cstdint>

namespace twohot::ops {

// The instruction sets that CMakeLists.txt compiles each *_target.cc for, from the least to the best; dispatch.cc says
// what a processor needs for each. amx_emulated is amx in plain C++, which CMakeLists.txt compiles for tests alone.
#ifdef TWOHOT_X86
#define TWOHOT_EACH_INSTRUCTION_SET(X) X(portable) X(avx2) X(avx512) X(avx512_bf16) X(amx)
#elif defined(TWOHOT_ARM64)
#define TWOHOT_EACH_INSTRUCTION_SET(X) X(portable) X(neon)
#else
#define TWOHOT_EACH_INSTRUCTION_SET(X) X(portable)
#endif
#define TWOHOT_EACH_CAPABILITY(X) TWOHOT_EACH_INSTRUCTION_SET(X) X(amx_emulated)

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

// The kernels of an operation for one instruction set: a table of functions, which its *_kernels.h declares and its
// *_target.cc fills.
template <class Table, Capability capability>
const Table& compiled_kernels() noexcept;

}  // namespace twohot::ops
