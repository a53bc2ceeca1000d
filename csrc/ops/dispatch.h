// What the CPU kernels share: which of the compiled forms this processor runs, and the threads of the process.
#pragma once

#include <cstdint>
#include <memory>

#include "core/thread_pool.h"

namespace twohot::ops {

enum class Capability : std::uint8_t { portable, avx2, avx512, avx512_bf16 };

// The best form that this processor runs. The environment variable TWOHOT_CPU_CAPABILITY picks a lesser one; it is read once.
Capability best_capability() noexcept;

// The pool of the process, replaced when another number of threads is asked for, and in a forked child. Thread-safe.
// Throws as ThreadPool does.
std::shared_ptr<ThreadPool> process_pool(int threads);

}  // namespace twohot::ops
