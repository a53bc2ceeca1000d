#include "ops/simd/dispatch.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
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

#ifdef TWOHOT_X86
// Bits of cpuid's answers and of XCR0, as Intel's manual numbers them (volume 2, CPUID; volume 1, 13.3).
enum Leaf1Ecx { fma = 12, osxsave = 27, f16c = 29 };
enum Leaf7Ebx { avx2 = 5, avx512f = 16, avx512dq = 17, avx512bw = 30, avx512vl = 31 };
enum Leaf7Edx { amx_bf16 = 22, amx_tile = 24 };
enum Leaf7Eax1 { avx512_bf16 = 5 };
enum State { sse_state = 1, avx_state = 2, mask_state = 5, upper_state = 6, more_state = 7 };

bool has(std::uint64_t word, std::initializer_list<int> bits) noexcept {
  return std::all_of(bits.begin(), bits.end(), [word](int bit) { return (word >> bit & 1) != 0; });
}

// The registers that the system saves for a process.
std::uint64_t saved_state() noexcept {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}
#endif

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
    // By cpuid alone: __builtin_cpu_supports finds nothing where Zig's runtime library stands behind it.
    if (__get_cpuid(1, &a, &b, &c, &d) != 0 && has(c, {osxsave})) {
      const std::uint64_t saved = saved_state();
      const bool fused = has(c, {fma, f16c}) && has(saved, {sse_state, avx_state});
      if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) {
        p.avx2 = fused && has(b, {avx2});
        p.avx512 = has(b, {avx512f, avx512dq, avx512bw, avx512vl}) && has(saved, {mask_state, upper_state, more_state});
        p.amx = has(d, {amx_tile, amx_bf16});
      }
      p.avx512_bf16 = __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && has(a, {avx512_bf16});
    }
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
