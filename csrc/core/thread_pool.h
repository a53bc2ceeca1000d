// A small pool of threads for loops whose iterations are independent.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace twohot {

// Thread-safe: concurrent calls of run() are served one after the other. Idle threads sleep on a condition variable.
// Destroying the pool joins its threads; no run() may be in progress then. In a forked process there are no threads to
// join, and run() may not be called.
class ThreadPool {
 public:
  // `threads` threads work on a loop, the caller being one of them: `threads` - 1 are started. Throws
  // std::invalid_argument below 1 or above 1024.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const noexcept { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(i) once for each i in 0 .. count - 1, in any order and on any thread, and returns when all are done.
  // `task` must not throw (std::terminate) and must not call run() of the same pool. A thread that the system has not
  // yet woken is not waited for; for one that works, the caller spins 0.1 ms before it sleeps.
  void run(std::int64_t count, const std::function<void(std::int64_t)>& task);

 private:
  void work();
  void stop() noexcept;
  void consume(const std::function<void(std::int64_t)>& task, std::int64_t count) noexcept;

  const std::uint64_t process_;
  std::mutex callers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  const std::function<void(std::int64_t)>* task_ = nullptr;
  std::int64_t count_ = 0;
  std::uint64_t round_ = 0;
  std::atomic<int> active_{0};  // changes under the mutex
  bool stopping_ = false;
  std::atomic<std::int64_t> next_{0};
  std::vector<std::thread> workers_;
};

}  // namespace twohot
