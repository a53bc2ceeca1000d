// Which of the compiled forms of a kernel this processor runs.
#pragma once

#include <string>
#include <string_view>

#include "ops/simd/capability.h"

namespace twohot::ops {

// What decides which forms run, and which of them pay.
struct Processor {
  std::string_view vendor;           // as cpuid says it; empty where there is no cpuid
  bool avx2;                         // and FMA
  bool avx512;                       // its F, VL, BW and DQ
  bool avx512_bf16;                  // dot products of pairs
  bool amx;                          // tiles and their dot products of pairs
  bool (*permits_tiles)() noexcept;  // asks the kernel of the system for them
};

struct Choice {
  Capability capability;
  std::string reason;
};

// The form that pays most of those that run: tiles where they are permitted, and dot products of pairs only where they
// are faster than float32's, which on Intel they are not. `wanted`, a name or empty, is the best that may be taken,
// whether it pays or not. It follows from what the processor is, not from timing: a run's bits depend on it. Tiles are
// asked for only where nothing else decides.
Choice choose(const Processor& processor, std::string_view wanted);

// Whether this processor runs a form.
bool supported(Capability capability) noexcept;

// choose() for this processor, where the environment variable TWOHOT_CPU_CAPABILITY says what is wanted; it is read
// once.
const Choice& chosen() noexcept;

template <class Table>
const Table& kernels(Capability capability = chosen().capability) noexcept {
  switch (capability) {
#define TWOHOT_LISTED(listed) \
  case Capability::listed: return compiled_kernels<Table, Capability::listed>();
    TWOHOT_EACH_INSTRUCTION_SET(TWOHOT_LISTED)
#ifdef TWOHOT_WITH_AMX_EMULATED
    TWOHOT_LISTED(amx_emulated)
#else
    case Capability::amx_emulated: break;
#endif
#undef TWOHOT_LISTED
  }
  return compiled_kernels<Table, Capability::portable>();
}

}  // namespace twohot::ops
