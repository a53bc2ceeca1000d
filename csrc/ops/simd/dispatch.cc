#include "ops/simd/dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>

#ifdef TWOHOT_X86
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace twohot::ops {
namespace {

// Linux gives the memory of tiles, 8 KiB a thread, to processes that ask. It refuses where the stack for signals of a
// thread is too small for them.
bool permits_tiles() noexcept {
#if defined(TWOHOT_X86) && defined(__linux__)
  constexpr long request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long tile_data = 18;               // XFEATURE_XTILEDATA
  static const bool permitted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return permitted;
#else
  return false;
#endif
}

const Processor& this_processor() noexcept {
  static const Processor found = [] {
    Processor p{"", false, false, false, false, permits_tiles};
#ifdef TWOHOT_X86
    static char vendor[12];
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    if (__get_cpuid(0, &a, &b, &c, &d) != 0) {
      const unsigned letters[] = {b, d, c};
      std::memcpy(vendor, letters, sizeof vendor);
      p.vendor = {vendor, sizeof vendor};
    }
    p.avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
    p.avx512 = __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
               __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0;
    p.avx512_bf16 = __builtin_cpu_supports("avx512bf16") != 0;
    constexpr unsigned tiles_and_products = 1u << 24 | 1u << 22;
    p.amx = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & tiles_and_products) == tiles_and_products;
#endif
    return p;
  }();
  return found;
}

// The instructions are there; what else a form needs comes after it.
bool runs([[maybe_unused]] const Processor& p, Capability capability) noexcept {
  switch (capability) {
    case Capability::portable: return true;
#ifdef TWOHOT_X86
    case Capability::avx2: return p.avx2;
    case Capability::avx512: return p.avx2 && p.avx512;
    case Capability::avx512_bf16: return runs(p, Capability::avx512) && p.avx512_bf16;
    case Capability::amx: return runs(p, Capability::avx512_bf16) && p.amx && p.permits_tiles();
#elif defined(TWOHOT_ARM64)
    case Capability::neon: return true;  // a part of the architecture
#endif
    case Capability::amx_emulated:
#ifdef TWOHOT_WITH_AMX_EMULATED
      return true;
#else
      return false;
#endif
  }
  return false;
}

[[maybe_unused]] bool has_fast_pairs(const Processor& p) noexcept {
  return p.vendor == "AuthenticAMD" || p.vendor == "HygonGenuine";
}

bool pays([[maybe_unused]] const Processor& p, Capability capability) noexcept {
#ifdef TWOHOT_X86
  if (capability == Capability::avx512_bf16) return has_fast_pairs(p);
#endif
  return capability != Capability::amx_emulated;
}

// Of a form that runs and pays.
std::string reason_of([[maybe_unused]] const Processor& p, [[maybe_unused]] Capability capability) {
  std::string reason = "all that the processor has";
#ifdef TWOHOT_X86
  if (capability == Capability::amx) return "bfloat16 is multiplied in tiles";
  if (capability == Capability::avx512_bf16) {
    reason = "the processor's dot products of bfloat16 are faster than float32's";
  } else if (capability == Capability::avx512 && p.avx512_bf16) {
    reason = "bfloat16 is multiplied as float32, for its own dot products are no faster";
  }
  if (p.amx) reason += "; the system does not permit tiles";
#endif
  return reason;
}

}  // namespace

Choice choose(const Processor& p, std::string_view wanted) {
  const auto* const named = std::find_if(std::begin(capabilities), std::end(capabilities),
                                         [&](Capability c) { return wanted == name_of(c); });
  const bool known = named != std::end(capabilities);
  const std::string asked = "TWOHOT_CPU_CAPABILITY asks for " + std::string(wanted);
  if (known && runs(p, *named)) return {*named, asked};
  Capability found = Capability::portable;
  for (const auto* each = known ? named : std::end(capabilities); each-- != std::begin(capabilities);) {
    if (!pays(p, *each) || !runs(p, *each)) continue;
    found = *each;
    break;
  }
  std::string reason = reason_of(p, found);
  if (known) {
    reason = asked + ", which does not run here";
  } else if (!wanted.empty()) {
    reason = asked + ", which there is not; " + reason;
  }
  return {found, reason};
}

bool supported(Capability capability) noexcept { return runs(this_processor(), capability); }

const Choice& chosen() noexcept {
  static const Choice choice = [] {
    const char* variable = std::getenv("TWOHOT_CPU_CAPABILITY");
    return choose(this_processor(), variable == nullptr ? "" : variable);
  }();
  return choice;
}

}  // namespace twohot::ops
