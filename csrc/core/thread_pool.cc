#include "core/thread_pool.h"

#include <chrono>
#include <stdexcept>
#include <string>

#include "core/files.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace twohot {
namespace {

constexpr std::chrono::microseconds patience{100};

void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : process_(process_generation()) {
  if (threads < 1 || threads > 1024) {
    throw std::invalid_argument("expected 1 to 1024 threads, got " + std::to_string(threads));
  }
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() noexcept {
  if (process_ != process_generation()) {  // the threads stayed in the parent process
    for (std::thread& worker : workers_) worker.detach();
    return;
  }
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(std::int64_t count, const std::function<void(std::int64_t)>& task) {
  std::lock_guard turn(callers_);
  {
    std::lock_guard lock(mutex_);
    next_.store(0, std::memory_order_relaxed);
    task_ = &task;
    count_ = count;
    ++round_;
  }
  wake_.notify_all();
  consume(task, count);
  // The others are about to be done as well. Sleeping until then costs more than a small task takes, most of all on a
  // virtual machine, whose processor halts.
  const auto end = std::chrono::steady_clock::now() + patience;
  while (active_.load(std::memory_order_relaxed) != 0 && std::chrono::steady_clock::now() < end) pause();
  std::unique_lock lock(mutex_);
  task_ = nullptr;
  idle_.wait(lock, [this] { return active_.load(std::memory_order_relaxed) == 0; });
}

void ThreadPool::consume(const std::function<void(std::int64_t)>& task, std::int64_t count) noexcept {
  for (std::int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) task(i);
}

void ThreadPool::work() {
  std::uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [&] { return stopping_ || (task_ != nullptr && round_ != seen); });
    if (stopping_) return;
    seen = round_;
    const auto* task = task_;
    const std::int64_t count = count_;
    active_.fetch_add(1, std::memory_order_relaxed);
    lock.unlock();
    consume(*task, count);
    lock.lock();
    if (active_.fetch_sub(1, std::memory_order_relaxed) == 1) idle_.notify_all();
  }
}

}  // namespace twohot
