// Tests of the replay's core without Python; meant to run under the sanitizers as well.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <limits>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/random.h"
#include "core/sampler.h"
#include "core/store.h"
#include "core/thread_pool.h"
#include "core/writer.h"

namespace {

using namespace twohot;

int passed = 0;
int failed = 0;

void check(bool holds, const char* text, int line) {
  ++(holds ? passed : failed);
  if (!holds) std::printf("line %d: %s\n", line, text);
}

#define CHECK(...) check((__VA_ARGS__), #__VA_ARGS__, __LINE__)

template <typename Error, typename Call>
bool throws(Call call) {
  try {
    call();
  } catch (const Error&) {
    return true;
  } catch (...) {
  }
  return false;
}

// `width` int32 observations and one int32 action.
Schema schema(std::int64_t width) {
  return {{{"value", DType::int32, {width}}}, {"action", DType::int32, {}}};
}

// The arrays of one step of `environments` environments, all of whose values are `number`.
struct Step {
  Step(std::size_t environments, std::size_t width, std::int32_t number, bool end)
      : value(environments * width, number),
        action(environments, number),
        reward(environments, static_cast<float>(number)),
        terminated(environments, end ? 1 : 0),
        truncated(environments, 0) {}

  std::vector<const std::byte*> columns() const {
    const auto bytes = [](const auto& values) { return reinterpret_cast<const std::byte*>(values.data()); };
    return {bytes(value), bytes(action), bytes(reward), bytes(terminated), bytes(truncated)};
  }

  std::vector<const std::byte*> observation() const { return {reinterpret_cast<const std::byte*>(value.data())}; }

  std::vector<std::int32_t> value;
  std::vector<std::int32_t> action;
  std::vector<float> reward;
  std::vector<std::uint8_t> terminated;
  std::vector<std::uint8_t> truncated;
};

// Memory of a batch, filled with 0x7f.
class Memory {
 public:
  Memory(std::int64_t batch_size, std::int64_t length, std::size_t width) {
    const auto windows = static_cast<std::size_t>(batch_size);
    const auto steps = static_cast<std::size_t>(length);
    const std::size_t rows = windows * (steps + 1);
    const auto make = [&](std::size_t bytes) {
      parts_.emplace_back((bytes + 7) / 8, 0x7f7f7f7f7f7f7f7fu);
      return reinterpret_cast<std::byte*>(parts_.back().data());
    };
    batch.batch_size = batch_size;
    batch.length = length;
    batch.observation = {make(rows * width * 4)};
    batch.previous_action = make(rows * 4);
    batch.previous_reward = make(rows * 4);
    batch.time = reinterpret_cast<std::int32_t*>(make(rows * 4));
    batch.action = make(windows * steps * 4);
    batch.reward = make(windows * steps * 4);
    batch.terminated = make(windows * steps);
    batch.truncated = make(windows * steps);
    batch.mask = make(windows * steps);
    batch.task = reinterpret_cast<std::int32_t*>(make(windows * 4));
    batch.trajectory = reinterpret_cast<std::int64_t*>(make(windows * 8));
    batch.start = reinterpret_cast<std::int64_t*>(make(windows * 8));
  }

  const std::vector<std::vector<std::uint64_t>>& parts() const { return parts_; }

  BatchMemory batch{};

 private:
  std::vector<std::vector<std::uint64_t>> parts_;
};

// One trajectory for each length in one environment; its values are 100 x its place + the step.
void fill(const std::shared_ptr<Store>& store, std::size_t width, const std::vector<int>& lengths) {
  Writer writer(store, 1);
  std::int32_t first = 0;
  for (const int length : lengths) {
    writer.begin(Step(1, width, first, false).observation(), nullptr, nullptr);
    for (int t = 1; t <= length; ++t) writer.append(Step(1, width, first + t, t == length).columns(), nullptr);
    first += 100;
  }
}

void test_random_stream() {
  RandomStream stream(0);
  CHECK(stream.state() == RandomState{0xe220a8397b1dcdafu, 0x6e789e6aa1b965f4u, 0x06c45d188009454fu,
                                      0xf88bb8a8724c81ecu});  // splitmix64 from 0
  stream.set_state({1, 2, 3, 4});
  for (const std::uint64_t expected : {41943041u, 58720359u}) CHECK(stream.next() == expected);
  CHECK(stream.next() == 3588806011781223u);
  CHECK(stream.next() == 3591011842654386u);
  CHECK(throws<std::invalid_argument>([&] { stream.set_state({}); }));

  RandomStream twin(9);
  twin.set_state(stream.state());
  CHECK(twin.next() == stream.next());

  CHECK(stream.below(1) == 0);
  for (const std::uint64_t bound : {2u, 3u, 7u, 8u, 9u}) {
    std::vector<double> counts(bound);
    for (int i = 0; i < 90000; ++i) counts[stream.below(bound)] += 1;
    double statistic = 0;
    const double expected = 90000.0 / static_cast<double>(bound);
    for (const double count : counts) statistic += (count - expected) * (count - expected) / expected;
    CHECK(statistic < 80);  // 8 degrees of freedom: below 1e-13
  }
  const std::uint64_t huge = (std::uint64_t{3} << 62) + 1;
  int upper = 0;
  for (int i = 0; i < 30000; ++i) {
    const std::uint64_t drawn = stream.below(huge);
    CHECK(drawn < huge);
    upper += drawn >= (std::uint64_t{1} << 63) ? 1 : 0;
  }
  CHECK(std::abs(upper - 10000) < 600);  // 7 standard deviations
}

void test_thread_pool() {
  CHECK(throws<std::invalid_argument>([] { ThreadPool pool(0); }));
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    bool once = true;
    for (int round = 0; round < 200; ++round) {
      std::vector<int> visits(static_cast<std::size_t>(round) % 17, 0);
      const auto visit = [&](std::int64_t i) { ++visits[static_cast<std::size_t>(i)]; };
      pool.run(static_cast<std::int64_t>(visits.size()), visit);
      for (const int count : visits) once = once && count == 1;
    }
    CHECK(once);
  }
  ThreadPool pool(3);
  std::atomic<std::int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) pool.run(50, [&](std::int64_t i) { sum += i; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(sum == 3 * 100 * 1225);
}

void test_schema() {
  const Layout layout(schema(3));
  CHECK(layout.columns().size() == 5);
  CHECK(layout.bytes(10) == 192 + 64 + 64 + 64 + 64);
  CHECK(throws<std::invalid_argument>([] { Layout({{}, {"action", DType::int32, {}}}); }));
  CHECK(throws<std::invalid_argument>([] { Layout(schema(0)); }));
  CHECK(throws<std::invalid_argument>([] { Layout(schema(std::int64_t{1} << 62)); }));
  CHECK(throws<std::invalid_argument>([] {
    Schema twice = schema(1);
    twice.observation.push_back(twice.observation[0]);
    Layout{twice};
  }));
  CHECK(dtype_named("float16") == DType::float16);
  CHECK(throws<std::invalid_argument>([] { dtype_named("bfloat16"); }));
}

void test_store() {
  CHECK(throws<std::invalid_argument>([] { Store(schema(1), {}, 0); }));
  CHECK(throws<std::invalid_argument>([] { Store(schema(1), {0, {}}, 0); }));
  CHECK(throws<std::invalid_argument>([] { Store(schema(1), {{}, 319}, 0); }));
  CHECK(Store(schema(1), {{}, 320}, 0).longest() == 15);  // 16 observations of 4 bytes fill 64

  const auto store = std::make_shared<Store>(schema(2), Capacity{10, {}}, 0);
  fill(store, 2, {4, 3, 2});
  CHECK(store->stats().trajectories == 3 && store->stats().steps == 9);
  const std::shared_ptr<const Trajectory> held = store->find(0);
  CHECK(held->total_reward == 1 + 2 + 3 + 4);
  fill(store, 2, {5});
  CHECK(store->stats().trajectories == 3 && store->stats().steps == 10);
  CHECK(store->stats().counters.evicted_trajectories == 1 && store->stats().counters.evicted_steps == 4);
  CHECK(store->find(0) == nullptr && store->find(4) == nullptr && store->find(-1) == nullptr);
  CHECK(store->find(3)->length == 5);
  CHECK(reinterpret_cast<const std::int32_t*>(held->block.column(0))[8] == 4);
  CHECK(reinterpret_cast<std::uintptr_t>(held->block.column(1)) % Layout::alignment == 0);
  std::int64_t expected = 1;
  for (const auto& trajectory : store->snapshot().trajectories) CHECK(trajectory->id == expected++);
  CHECK(throws<std::runtime_error>([&] { store->resume({7, 0, 0}); }));
  store->clear();
  CHECK(store->stats().trajectories == 0 && store->stats().steps == 0 && store->stats().bytes == 0);
  CHECK(throws<std::runtime_error>([&] { store->draw(1, 1, Law::step); }));
  CHECK(throws<std::invalid_argument>([&] { store->draw(0, 1, Law::step); }));
  CHECK(throws<std::invalid_argument>([&] { store->draw(1, 0, Law::step); }));
  store->resume({70, 5, 50});
  fill(store, 2, {1});
  CHECK(store->find(70) != nullptr);
}

void test_writer() {
  const auto store = std::make_shared<Store>(schema(1), Capacity{6, {}}, 0);
  CHECK(throws<std::invalid_argument>([&] { Writer(store, 0); }));
  Writer writer(store, 2);
  const std::uint8_t second[] = {0, 1};
  CHECK(throws<std::runtime_error>([&] { writer.append(Step(2, 1, 0, false).columns(), nullptr); }));
  writer.begin(Step(2, 1, 0, false).observation(), second, nullptr);
  CHECK(throws<std::runtime_error>([&] { writer.begin(Step(2, 1, 0, false).observation(), nullptr, nullptr); }));
  CHECK(throws<std::runtime_error>([&] { writer.append(Step(2, 1, 0, true).columns(), nullptr); }));
  CHECK(store->stats().open_trajectories == 1 && store->stats().trajectories == 0);
  Step bad(2, 1, 1, true);
  bad.reward[1] = std::numeric_limits<float>::infinity();
  CHECK(throws<std::invalid_argument>([&] { writer.append(bad.columns(), second); }));
  bad = Step(2, 1, 1, false);
  bad.reward[0] = std::nanf("");
  writer.append(bad.columns(), second);
  for (std::int32_t t = 2; t <= 6; ++t) writer.append(Step(2, 1, t, false).columns(), second);
  CHECK(throws<std::length_error>([&] { writer.append(Step(2, 1, 7, true).columns(), second); }));
  CHECK(store->stats().trajectories == 0);
  writer.cut();
  CHECK(store->find(0)->length == 6 && store->find(0)->block.column(4)[5] == std::byte{1});
  CHECK(store->find(0)->block.column(4)[4] == std::byte{0});
  CHECK(store->stats().open_trajectories == 0);
}

void test_sampler() {
  std::vector<std::vector<std::vector<std::uint64_t>>> seen;
  for (const int threads : {1, 2, 4}) {
    const auto store = std::make_shared<Store>(schema(200), Capacity{1000, {}}, 5);
    fill(store, 200, {1, 30, 7, 12});
    Sampler sampler(store, threads);
    Memory memory(700, 10, 200);
    CHECK(700 * 11 * 200 * 4 > Sampler::inline_bytes);
    for (const Law law : {Law::trajectory, Law::step}) sampler.sample(law, memory.batch);
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
  const auto store = std::make_shared<Store>(schema(width), Capacity{200, {}}, 0);
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
  const auto read = [&](Law law) {
    Memory memory(500, 8, width);
    for (int round = 0; round < 20; ++round) {
      sampler.sample(law, memory.batch);
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
  std::thread other(read, Law::trajectory);
  read(Law::step);
  other.join();
  stop = true;
  for (std::thread& writer : writers) writer.join();
  CHECK(torn == 0);
  CHECK(store->stats().counters.evicted_trajectories > 0);
  CHECK(store->stats().steps <= 200);
  CHECK(store->stats().open_trajectories == 0);
}

}  // namespace

int main() {
  test_random_stream();
  test_thread_pool();
  test_schema();
  test_store();
  test_writer();
  test_sampler();
  test_concurrency();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
