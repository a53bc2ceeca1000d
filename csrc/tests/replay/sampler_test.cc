// Batches: their content, and that writers, samplers and evictions run at once.
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "tests/support.h"

namespace twohot::test {
namespace {

void test_sampler() {
  std::vector<std::vector<std::vector<std::uint64_t>>> seen;
  for (const int threads : {1, 2, 4}) {
    const auto store = std::make_shared<Store>(schema(200), steps(1000), 5);
    fill(store, 200, {1, 30, 7, 12});
    Sampler sampler(store, threads);
    Memory memory(700, 10, 200);
    CHECK(700 * 11 * 200 * 4 > Sampler::inline_bytes);
    for (const Sampling by : {Sampling::trajectory, Sampling::step}) sampler.sample({700, 10, 0, by}, memory.batch);
    const auto* value = reinterpret_cast<const std::int32_t*>(memory.batch.observation[0]);
    const auto* action = reinterpret_cast<const std::int32_t*>(memory.batch.action);
    const auto* previous = reinterpret_cast<const std::int32_t*>(memory.batch.previous_action);
    const int lengths[] = {1, 30, 7, 12};
    bool right = true;
    for (int b = 0; b < 700; ++b) {
      const auto trajectory = static_cast<int>(memory.batch.trajectory[b]);
      const auto start = static_cast<int>(memory.batch.start[b]);
      for (int l = 0; l <= 10; ++l) {
        const int t = start + l;
        const int at = b * 11 + l;
        const bool real = t <= lengths[trajectory];
        for (const int w : {0, 199}) right = right && value[at * 200 + w] == (real ? 100 * trajectory + t : 0);
        right = right && previous[at] == (real && t > 0 ? 100 * trajectory + t : 0);
        right = right && memory.batch.time[at] == (real ? t : 0);
        if (l == 10) continue;
        const bool taken = t < lengths[trajectory];
        right = right && action[b * 10 + l] == (taken ? 100 * trajectory + t + 1 : 0);
        right = right && memory.batch.mask[b * 10 + l] == std::byte{taken};
        right = right && memory.batch.terminated[b * 10 + l] == std::byte{t + 1 == lengths[trajectory]};
      }
    }
    CHECK(right);
    seen.push_back(memory.parts());
  }
  CHECK(seen[0] == seen[1]);
  CHECK(seen[0] == seen[2]);
}

// Two writers and two samplers on a small store: each trajectory carries one number, so that a torn read shows.
void test_concurrency() {
  constexpr std::size_t width = 300;
  const auto store = std::make_shared<Store>(schema(width), steps(200), 0);
  fill(store, width, {1});
  store->clear();
  std::atomic<bool> stop{false};
  const auto write = [&](std::int32_t number) {
    Writer writer(store, 2);
    for (; !stop; number += 2) {
      const std::vector<std::int32_t> task(2, number);
      writer.begin(Step(2, width, number, false).observation(), nullptr, task.data());
      for (std::int32_t t = 0; t < number % 7; ++t) writer.append(Step(2, width, number, false).columns(), nullptr);
      writer.append(Step(2, width, number, true).columns(), nullptr);
    }
  };
  std::vector<std::thread> writers;
  for (const std::int32_t number : {1, 2}) writers.emplace_back(write, number);
  while (store->stats().trajectories == 0) std::this_thread::yield();
  Sampler sampler(store, 2);
  std::atomic<int> torn{0};
  const auto read = [&](Sampling by) {
    Memory memory(500, 8, width);
    for (int round = 0; round < 20; ++round) {
      sampler.sample({500, 8, 0, by}, memory.batch);
      const auto* value = reinterpret_cast<const std::int32_t*>(memory.batch.observation[0]);
      for (int b = 0; b < 500; ++b) {
        for (int l = 0; l < 8; ++l) {
          const bool real = memory.batch.mask[b * 8 + l] != std::byte{0};
          const auto* row = value + (b * 9 + l) * static_cast<int>(width);
          if (real && (row[0] != memory.batch.task[b] || row[width - 1] != memory.batch.task[b])) ++torn;
        }
      }
    }
  };
  std::thread other(read, Sampling::trajectory);
  read(Sampling::step);
  other.join();
  stop = true;
  for (std::thread& writer : writers) writer.join();
  CHECK(torn == 0);
  CHECK(store->stats().counters.evicted_trajectories > 0);
  CHECK(store->stats().steps <= 200);
  CHECK(store->stats().open_trajectories == 0);
}

}  // namespace
}  // namespace twohot::test

int main() {
  using namespace twohot::test;
  test_sampler();
  test_concurrency();
  return report();
}
