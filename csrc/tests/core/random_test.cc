// The random stream and the pool of threads.
#include <atomic>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/random.h"
#include "core/thread_pool.h"
#include "tests/support.h"

namespace twohot::test {

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

}  // namespace twohot::test

int main() {
  twohot::test::test_random_stream();
  twohot::test::test_thread_pool();
  return twohot::test::report();
}
