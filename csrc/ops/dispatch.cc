#include "ops/dispatch.h"

#include <cstdlib>
#include <mutex>
#include <string_view>

#include "core/files.h"

namespace twohot::ops {
namespace {

Capability detect() noexcept {
  const char* variable = std::getenv("TWOHOT_CPU_CAPABILITY");
  const std::string_view wanted = variable == nullptr ? "" : variable;
#ifdef TWOHOT_X86
  const bool avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
                      __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0;
  if (avx512 && wanted != "avx2" && wanted != "portable") {
    const bool bfloat16 = __builtin_cpu_supports("avx512bf16") != 0 && wanted != "avx512";
    return bfloat16 ? Capability::avx512_bf16 : Capability::avx512;
  }
  if (avx2 && wanted != "portable") return Capability::avx2;
#endif
  return Capability::portable;
}

}  // namespace

Capability best_capability() noexcept {
  static const Capability best = detect();
  return best;
}

std::shared_ptr<ThreadPool> process_pool(int threads) {
  // Never destroyed: its threads may outlive statics.
  static std::shared_ptr<ThreadPool>* const pool = new std::shared_ptr<ThreadPool>();
  static std::mutex* const mutex = [] {
    auto* made = new std::mutex();
    hold_while_forking(*made);
    return made;
  }();
  const std::lock_guard lock(*mutex);
  if (*pool == nullptr || (*pool)->threads() != threads || !(*pool)->usable()) {
    *pool = std::make_shared<ThreadPool>(threads);
  }
  return *pool;
}

}  // namespace twohot::ops
