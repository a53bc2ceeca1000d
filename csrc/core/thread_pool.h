// A small pool of threads for loops whose iterations are independent.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "core/files.h"

namespace twohot {

// Thread-safe: concurrent calls of run() are served one after the other. Idle threads sleep on a condition variable.
// Destroying the pool joins its threads; no run() may be in progress then. A forked child has none of its threads:
// there the pool may be destroyed, and run() may not be called.
class ThreadPool {
 public:
  // `threads` threads work on a loop, the caller being one of them: `threads` - 1 are started. Throws
  // std::invalid_argument below 1 or above 1024.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const noexcept;

  // Whether this is the process that made the pool.
  bool usable() const noexcept { return state_.get_deleter().process == process_generation(); }

  // Invokes task(i) once for each i in 0 .. count - 1, in any order and on any thread, and returns when all are done.
  // `task` must not throw (std::terminate) and must not call run() of the same pool. A thread that the system has not
  // yet woken is not waited for; for one that works, the caller spins 0.1 ms before it sleeps.
  void run(std::int64_t count, const std::function<void(std::int64_t)>& task);

 private:
  struct State;

  std::unique_ptr<State, ProcessDelete> state_;
};

// The pool of the process, replaced when another number of threads is asked for, and in a forked child. Thread-safe.
// Throws as ThreadPool does.
std::shared_ptr<ThreadPool> global_thread_pool(int threads);

}  // namespace twohot
