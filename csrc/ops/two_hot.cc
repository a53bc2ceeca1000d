#include "ops/two_hot.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>

#include "core/thread_pool.h"

namespace twohot::ops {

#define TWOHOT_DECLARE(name)                                                               \
  void forward_##name(const Rows&, const Forward&, std::int64_t, std::int64_t) noexcept; \
  void backward_##name(const Rows&, const Backward&, std::int64_t, std::int64_t) noexcept;
TWOHOT_DECLARE(portable)
#ifdef TWOHOT_X86
TWOHOT_DECLARE(avx2)
TWOHOT_DECLARE(avx512)
#endif
#undef TWOHOT_DECLARE

namespace {

struct Kernels {
  const char* name;
  decltype(&forward_portable) forward;
  decltype(&backward_portable) backward;
};

Kernels choose() noexcept {
  const char* variable = std::getenv("TWOHOT_CPU_CAPABILITY");
  const std::string_view wanted = variable == nullptr ? "" : variable;
#ifdef TWOHOT_X86
  const bool avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
                      __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0;
  if (avx512 && wanted != "avx2" && wanted != "portable") return {"avx512", forward_avx512, backward_avx512};
  if (avx2 && wanted != "portable") return {"avx2", forward_avx2, backward_avx2};
#endif
  return {"portable", forward_portable, backward_portable};
}

const Kernels& kernels() noexcept {
  static const Kernels chosen = choose();
  return chosen;
}

// Rows that one turn of a thread takes: enough to forget the price of a turn, few enough to share the work.
constexpr std::int64_t elements_per_turn = std::int64_t{1} << 16;
// Below this many elements a second thread costs more than it brings.
constexpr std::int64_t elements_for_threads = std::int64_t{1} << 18;

// The pool of the process, grown when more threads are asked for. Never destroyed: its threads may outlive statics.
void parallel(std::int64_t rows, std::int64_t bins, int threads,
              const std::function<void(std::int64_t, std::int64_t)>& work) {
  if (threads <= 1 || rows * bins < elements_for_threads) {
    work(0, rows);
    return;
  }
  static std::mutex mutex;
  static std::shared_ptr<ThreadPool>* const pool = new std::shared_ptr<ThreadPool>();
  std::shared_ptr<ThreadPool> mine;
  {
    const std::lock_guard lock(mutex);
    if (*pool == nullptr || (*pool)->threads() != threads) *pool = std::make_shared<ThreadPool>(threads);
    mine = *pool;
  }
  const std::int64_t block = std::max<std::int64_t>(1, elements_per_turn / bins);
  mine->run((rows + block - 1) / block, [&](std::int64_t turn) {
    work(turn * block, std::min(rows, (turn + 1) * block));
  });
}

}  // namespace

void two_hot_forward(const Rows& rows, const Forward& out, int threads) {
  parallel(rows.rows, rows.bins, threads, [&](std::int64_t begin, std::int64_t end) {
    kernels().forward(rows, out, begin, end);
  });
}

void two_hot_backward(const Rows& rows, const Backward& pass, int threads) {
  parallel(rows.rows, rows.bins, threads, [&](std::int64_t begin, std::int64_t end) {
    kernels().backward(rows, pass, begin, end);
  });
}

const char* capability() noexcept { return kernels().name; }

}  // namespace twohot::ops
