#include "ops/simd/dispatch.h"

#include <cstdlib>
#include <string_view>

namespace twohot::ops {

bool supported(Capability capability) noexcept {
  switch (capability) {
    case Capability::portable: return true;
#ifdef TWOHOT_X86
    case Capability::avx2: return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
    case Capability::avx512:
      return supported(Capability::avx2) && __builtin_cpu_supports("avx512f") != 0 &&
             __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
             __builtin_cpu_supports("avx512dq") != 0;
    case Capability::avx512_bf16: return supported(Capability::avx512) && __builtin_cpu_supports("avx512bf16") != 0;
#endif
  }
  return false;
}

Capability best_capability() noexcept {
  static const Capability best = [] {
    const char* variable = std::getenv("TWOHOT_CPU_CAPABILITY");
    const std::string_view wanted = variable == nullptr ? "" : variable;
    Capability found = Capability::portable;
    for (const Capability each : capabilities) {
      if (supported(each)) found = each;
      if (wanted == name_of(each)) break;
    }
    return found;
  }();
  return best;
}

}  // namespace twohot::ops
