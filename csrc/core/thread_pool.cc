#include "core/thread_pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

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

struct ThreadPool::State {
  explicit State(int threads) {
    try {
      for (int i = 1; i < threads; ++i) workers.emplace_back([this] { work(); });
    } catch (...) {
      stop();
      throw;
    }
  }
  ~State() { stop(); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void work();
  void stop() noexcept;
  void consume(const std::function<void(std::int64_t)>& each, std::int64_t until) noexcept;

  std::mutex callers;
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable idle;
  const std::function<void(std::int64_t)>* task = nullptr;
  std::int64_t count = 0;
  std::uint64_t round = 0;
  std::atomic<int> active{0};  // changes under the mutex
  bool stopping = false;
  std::atomic<std::int64_t> next{0};
  std::vector<std::thread> workers;
};

ThreadPool::ThreadPool(int threads) {
  if (threads < 1 || threads > 1024) {
    throw std::invalid_argument("expected 1 to 1024 threads, got " + std::to_string(threads));
  }
  state_.reset(new State(threads));
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::threads() const noexcept { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::State::stop() noexcept {
  {
    const std::lock_guard lock(mutex);
    stopping = true;
  }
  wake.notify_all();
  for (std::thread& worker : workers) worker.join();
}

void ThreadPool::run(std::int64_t count, const std::function<void(std::int64_t)>& task) {
  State& state = *state_;
  const std::lock_guard serial(state.callers);
  {
    const std::lock_guard lock(state.mutex);
    state.next.store(0, std::memory_order_relaxed);
    state.task = &task;
    state.count = count;
    ++state.round;
  }
  state.wake.notify_all();
  state.consume(task, count);
  // The others are about to be done as well. Sleeping until then costs more than a small task takes, most of all on a
  // virtual machine, whose processor halts.
  const auto end = std::chrono::steady_clock::now() + patience;
  while (state.active.load(std::memory_order_relaxed) != 0 && std::chrono::steady_clock::now() < end) pause();
  std::unique_lock lock(state.mutex);
  state.task = nullptr;
  state.idle.wait(lock, [&] { return state.active.load(std::memory_order_relaxed) == 0; });
}

void ThreadPool::State::consume(const std::function<void(std::int64_t)>& each, std::int64_t until) noexcept {
  for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < until;) each(i);
}

void ThreadPool::State::work() {
  std::uint64_t seen = 0;
  std::unique_lock lock(mutex);
  while (true) {
    wake.wait(lock, [&] { return stopping || (task != nullptr && round != seen); });
    if (stopping) return;
    seen = round;
    const auto* mine = task;
    const std::int64_t until = count;
    active.fetch_add(1, std::memory_order_relaxed);
    lock.unlock();
    consume(*mine, until);
    lock.lock();
    if (active.fetch_sub(1, std::memory_order_relaxed) == 1) idle.notify_all();
  }
}

std::shared_ptr<ThreadPool> global_thread_pool(int threads) {
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

}  // namespace twohot
