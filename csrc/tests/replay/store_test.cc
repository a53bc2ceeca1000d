// Schema, store and writer in memory.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support.h"

namespace twohot::test {
namespace {

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
  CHECK(throws<std::invalid_argument>([] {
    Schema fixed = schema(1);
    fixed.step.push_back({"reward", DType::float64, {}});
    Layout{fixed};
  }));
  Schema other = schema(3);
  CHECK(Layout(other).fingerprint() == layout.fingerprint());
  other.observation[0].nan = true;
  CHECK(Layout(other).fingerprint() == layout.fingerprint());
  other.observation[0].dtype = DType::uint32;
  CHECK(Layout(other).fingerprint() != layout.fingerprint());
  CHECK(Layout(schema(4)).fingerprint() != layout.fingerprint());
  CHECK(dtype_named("float16") == DType::float16);
  CHECK(throws<std::invalid_argument>([] { dtype_named("bfloat16"); }));
}

void test_store() {
  CHECK(throws<std::invalid_argument>([] { Store(schema(1), {}, 0); }));
  CHECK(throws<std::invalid_argument>([] { Store(schema(1), steps(0), 0); }));
  CHECK(throws<std::invalid_argument>([] { Store(schema(1), {{}, 319, {}}, 0); }));
  CHECK(Store(schema(1), {{}, 320, {}}, 0).max_trajectory_steps() == 15);  // 16 observations of 4 bytes fill 64

  const auto store = std::make_shared<Store>(schema(2), steps(10), 0);
  fill(store, 2, {4, 3, 2});
  CHECK(store->stats().trajectories == 3 && store->stats().steps == 9);
  const std::shared_ptr<const Trajectory> held = store->find(0);
  CHECK(held->total_reward == 1 + 2 + 3 + 4);
  fill(store, 2, {5});
  CHECK(store->stats().trajectories == 3 && store->stats().steps == 10);
  CHECK(store->stats().counters.evicted_trajectories == 1 && store->stats().counters.evicted_steps == 4);
  CHECK(store->find(0) == nullptr && store->find(4) == nullptr && store->find(-1) == nullptr);
  CHECK(store->find(3)->length == 5);
  CHECK(column(*store, *held, 0) == std::vector<std::int32_t>{0, 0, 1, 1, 2, 2, 3, 3, 4, 4});
  std::int64_t expected = 1;
  for (const auto& trajectory : store->snapshot().trajectories) CHECK(trajectory->id == expected++);
  CHECK(throws<std::invalid_argument>([&] { store->resume({3, 0, 0}); }));
  store->clear();
  CHECK(store->stats().trajectories == 0 && store->stats().steps == 0 && store->stats().bytes == 0);
  CHECK(throws<std::runtime_error>([&] { store->draw({1, 1, 0, Sampling::step}); }));
  CHECK(throws<std::invalid_argument>([&] { store->draw({0, 1, 0, Sampling::step}); }));
  CHECK(throws<std::invalid_argument>([&] { store->draw({1, 0, 0, Sampling::step}); }));
  store->resume({70, 5, 50});
  fill(store, 2, {1});
  CHECK(store->find(70) != nullptr);
}

void test_writer() {
  const auto store = std::make_shared<Store>(schema(1), steps(6), 0);
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
  CHECK(store->find(0)->length == 6);
  std::vector<std::byte> truncated(6);
  store->find(0)->data.read(store->layout(), store->layout().truncated(), 0, 6, truncated.data());
  CHECK(truncated == std::vector<std::byte>({{}, {}, {}, {}, {}, std::byte{1}}));
  CHECK(store->stats().open_trajectories == 0);
}

// The rows of trajectories whose ends lie around the borders of blocks, in memory and in files, read in any part.
void test_rows_over_block_borders() {
  constexpr std::size_t width = 20000;
  const TemporaryDirectory directory;
  for (const bool on_disk : {false, true}) {
    const auto store = std::make_shared<Store>(
        schema(width), steps(1000), 0,
        on_disk ? std::optional(DirectoryOptions{directory.path(), Mode::append, std::size_t{1} << 22}) : std::nullopt);
    const auto rows = static_cast<int>(store->block_rows());
    CHECK(rows > 2 && rows < 10);
    Writer writer(store, 1);
    std::vector<int> lengths;
    for (const int blocks : {1, 2, 3}) {
      for (const int more : {-2, -1, 0, 1}) lengths.push_back(blocks * rows + more);
    }
    for (std::size_t i = 0; i < lengths.size(); ++i)
      live(writer, width, static_cast<std::int32_t>(1000 * i), lengths[i]);
    std::int64_t place = 0;
    for (const auto& trajectory : store->snapshot().trajectories) {
      CHECK(trajectory->length == lengths[static_cast<std::size_t>(place)]);
      const auto first = static_cast<std::int32_t>(1000 * place++);
      const auto value = column(*store, *trajectory, 0);
      const auto action = column(*store, *trajectory, 1);
      bool right = true;
      for (std::int64_t t = 0; t <= trajectory->length; ++t) {
        const auto at = static_cast<std::size_t>(t);
        right = right && value[at * width] == first + t && value[at * width + width - 1] == first + t;
        right = right && (t == trajectory->length || action[at] == first + t + 1);
      }
      CHECK(right);
      for (std::int64_t from = 0; from < trajectory->length; ++from) {
        for (std::int64_t count = 0; from + count <= trajectory->length; ++count) {
          std::vector<std::int32_t> part(static_cast<std::size_t>(count));
          trajectory->data.read(store->layout(), 1, from, count, reinterpret_cast<std::byte*>(part.data()));
          right = right && std::equal(part.begin(), part.end(), action.begin() + from);
        }
      }
      CHECK(right);
      CHECK(trajectory->total_reward == trajectory->length * (first + (trajectory->length + 1) / 2.0));
    }
    CHECK(place == static_cast<std::int64_t>(lengths.size()));
  }
}

// A block of rows never exceeds its share of a huge page, whatever the rounding of its columns.
void test_block_size() {
  for (const std::int64_t width : {1, 3, 43, 500, 3072}) {
    Schema wide = schema(width);
    for (const char* name : {"a", "b", "c"}) wide.step.push_back({name, DType::int8, {}});
    const Store store(wide, steps(1000000), 0);
    const std::int64_t rows = store.block_rows();
    CHECK(store.layout().bytes(RowCounts{rows, rows}) <= std::size_t{1} << 19);
    CHECK(store.layout().bytes(RowCounts{rows, rows}) > (std::size_t{1} << 19) - (std::size_t{1} << 14));
  }
  CHECK(Store(schema(1 << 20), steps(10), 0).block_rows() == 1);
  CHECK(Store(schema(1), steps(10), 0).block_rows() == 11);
}

// A trial of 10 steps in chunks of 4 that share 2: steps 1-4, 3-6, 5-8, 7-10.
void test_chunks_of_a_trial() {
  const auto store = std::make_shared<Store>(schema(1), steps(1000), 0);
  CHECK(throws<std::invalid_argument>([&] { Writer(store, 1, {4, 4}); }));
  CHECK(throws<std::invalid_argument>([&] { Writer(store, 1, {4, 0}); }));
  CHECK(throws<std::invalid_argument>([&] { Writer(store, 1, {-4, 1}); }));
  Writer writer(store, 1, {4, 2});
  live(writer, 1, 0, 10);
  const auto stored = store->snapshot().trajectories;
  CHECK(stored.size() == 4);
  for (std::size_t i = 0; i < stored.size(); ++i) {
    const auto first = static_cast<std::int32_t>(2 * i);
    CHECK(stored[i]->length == 4 && stored[i]->origin == first && stored[i]->first_start() == (i == 0 ? 0 : 1));
    CHECK(column(*store, *stored[i], 0) ==
          std::vector<std::int32_t>{first, first + 1, first + 2, first + 3, first + 4});
    CHECK(column(*store, *stored[i], 1) == std::vector<std::int32_t>{first + 1, first + 2, first + 3, first + 4});
    std::byte ends[2];
    stored[i]->data.read(store->layout(), store->layout().terminated(), 3, 1, ends);
    stored[i]->data.read(store->layout(), store->layout().truncated(), 3, 1, ends + 1);
    const bool last = i + 1 == stored.size();
    CHECK(ends[0] == std::byte{last} && ends[1] == std::byte{!last});
  }
  // The steps that a chunk begins with are none of its own: a cut drops a chunk that has no more than those.
  writer.begin(Step(1, 1, 0, false).observation(), nullptr, nullptr);
  for (std::int32_t t = 1; t <= 4; ++t) writer.append(Step(1, 1, t, false).columns(), nullptr);
  writer.cut();
  CHECK(store->stats().trajectories == 5);
  writer.begin(Step(1, 1, 0, false).observation(), nullptr, nullptr);
  for (std::int32_t t = 1; t <= 5; ++t) writer.append(Step(1, 1, t, false).columns(), nullptr);
  writer.cut();
  CHECK(store->stats().trajectories == 7);
  const auto cut = store->snapshot().trajectories.back();
  CHECK(cut->length == 3 && cut->origin == 2);
  // What follows is a new trajectory.
  live(writer, 1, 50, 2);
  CHECK(store->snapshot().trajectories.back()->origin == 0);
}

void test_protected() {
  const auto store = std::make_shared<Store>(schema(1), steps(10), 0);
  const Step end(1, 1, 7, true);
  const auto columns = end.columns();
  const std::int32_t values[] = {1, 2};
  const std::vector<const std::byte*> one{reinterpret_cast<const std::byte*>(values), columns[1], columns[2],
                                          columns[3], columns[4]};
  for (int i = 0; i < 4; ++i) CHECK(store->add(one, 1, {0, true, 0, {}}) == i);
  for (int i = 4; i < 30; ++i) CHECK(store->add(one, 1, {0, false, 0, {}}) == i);
  CHECK(store->stats().protected_trajectories == 4 && store->stats().trajectories == 10);
  CHECK(store->snapshot().trajectories[3]->id == 3 && store->snapshot().trajectories[4]->id == 24);
  for (int i = 0; i < 6; ++i) store->add(one, 1, {0, true, 0, {}});
  CHECK(store->stats().protected_trajectories == 10 && store->stats().counters.evicted_trajectories == 26);
  CHECK(throws<std::length_error>([&] { store->add(one, 1, {0, true, 0, {}}); }));
  CHECK(throws<std::length_error>([&] { store->add(one, 1, {0, false, 0, {}}); }));
  CHECK(store->stats().trajectories == 10 && store->stats().bytes == 10 * 64 * 5);
}

// Trajectories of these lengths one after the other; the values of each are 100 x its place + the step.
struct Columns {
  explicit Columns(std::vector<std::int64_t> all) : lengths(std::move(all)), info(lengths.size()) {
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      for (std::int64_t t = 0; t <= lengths[i]; ++t) {
        const auto number = static_cast<std::int32_t>(100 * static_cast<std::int64_t>(i) + t);
        value.push_back(number);
        if (t == 0) continue;
        action.push_back(number);
        reward.push_back(static_cast<float>(number));
        terminated.push_back(t == lengths[i] && i % 2 == 0 ? 1 : 0);
        truncated.push_back(t == lengths[i] && i % 2 == 1 ? 1 : 0);
      }
      info[i] = {static_cast<std::int32_t>(i), false, static_cast<std::int64_t>(7 * i), {}};
    }
  }

  std::vector<const std::byte*> columns() const {
    const auto bytes = [](const auto& values) { return reinterpret_cast<const std::byte*>(values.data()); };
    return {bytes(value), bytes(action), bytes(reward), bytes(terminated), bytes(truncated)};
  }

  void extend(Store& store) const { store.extend(columns(), lengths, info); }

  std::vector<std::int64_t> lengths;
  std::vector<TrajectoryInfo> info;
  std::vector<std::int32_t> value;
  std::vector<std::int32_t> action;
  std::vector<float> reward;
  std::vector<std::uint8_t> terminated;
  std::vector<std::uint8_t> truncated;
};

void test_extend() {
  for (const bool on_disk : {false, true}) {
    const TemporaryDirectory directory;
    const auto store = on_disk ? open_store(directory.path(), Mode::append, 1 << 20, false, steps(14), 1)
                               : std::make_shared<Store>(schema(1), steps(14), 0);
    Columns({4, 1, 5}).extend(*store);
    CHECK(store->stats().trajectories == 3 && store->stats().steps == 10);
    std::int32_t place = 0;
    for (const auto& trajectory : store->snapshot().trajectories) {
      std::vector<std::int32_t> value(1, 100 * place);
      double sum = 0;
      for (std::int64_t t = 0; t < trajectory->length; ++t) {
        value.push_back(value.back() + 1);
        sum += value.back();
      }
      CHECK(column(*store, *trajectory, 0) == value && trajectory->total_reward == sum);
      value.erase(value.begin());
      CHECK(column(*store, *trajectory, 1) == value);
      CHECK(trajectory->task == place && trajectory->origin == 7 * place && trajectory->first_start() == (place == 2));
      ++place;
    }
    // As many adds would: the oldest leave, those of the same call too.
    Columns columns({2, 3, 9, 2});
    columns.info[1].protect = true;
    columns.extend(*store);
    const auto stored = store->snapshot().trajectories;
    CHECK(stored.size() == 3 && stored[0]->length == 3 && stored[1]->length == 9 && stored[2]->length == 2);
    CHECK(stored[1]->id == stored[0]->id + 1 && stored[2]->id == stored[0]->id + 2);
    CHECK(store->stats().counters.evicted_trajectories == 4 && store->stats().counters.evicted_steps == 12);
    CHECK(store->stats().protected_trajectories == 1);
    Columns({}).extend(*store);
    CHECK(store->snapshot().trajectories == stored);
    // All or nothing.
    const auto refused = [&](auto change, const std::string& words) {
      Columns bad({2, 1, 3});
      change(bad);
      CHECK(sentence([&] { bad.extend(*store); }).find(words) != std::string::npos);
      CHECK(store->snapshot().trajectories == stored && store->stats().counters.evicted_steps == 12);
    };
    refused([](Columns& bad) { bad.truncated[2] = 0; }, "trajectory 1: expected the last step");
    refused([](Columns& bad) { bad.terminated[4] = 1; }, "trajectory 2: expected the last step");
    refused([](Columns& bad) { bad.reward[5] = std::nanf(""); }, "trajectory 2: reward of step 2 is not finite");
    refused([](Columns& bad) { bad.lengths[1] = 0; }, "trajectory 1: expected a trajectory of at least 1 step, got 0");
    refused([](Columns& bad) { bad.lengths[0] = -1; }, "trajectory 0: expected a trajectory of at least 1 step");
    refused([](Columns& bad) { bad.info[2].origin = -1; }, "trajectory 2: expected steps at times from 0");
    refused([](Columns& bad) { bad.info[2].origin = (std::int64_t{1} << 31) - 3; }, "got 3 from 2147483645 on");
    refused([](Columns& bad) { bad = Columns({1, 15}); }, "exceeds the whole capacity");
    refused([](Columns& bad) { bad = Columns({1, 12}); }, "does not fit beside the protected ones");
    Columns last({3});
    last.info[0].origin = (std::int64_t{1} << 31) - 4;
    last.extend(*store);
    CHECK(store->snapshot().trajectories.back()->origin == last.info[0].origin);
  }
}

// Who looks sees all trajectories of a call or none, and who takes them out as clear() lets one gets each once.
void test_extend_and_clear_at_once() {
  constexpr int calls = 300;
  const auto store = std::make_shared<Store>(schema(1), steps(1000000), 0);
  std::vector<std::thread> threads;
  std::atomic<int> running{2};
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < calls; ++j) Columns({3, 1, 2}).extend(*store);
      --running;
    });
  }
  std::vector<std::int64_t> taken;
  bool right = true;
  while (true) {
    const bool last = running == 0;
    const auto stored = store->snapshot().trajectories;
    right = right && stored.size() % 3 == 0;
    if (store->clear(stored)) {
      for (const auto& trajectory : stored) taken.push_back(trajectory->id);
      if (last) break;
    }
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(right && store->stats().trajectories == 0 && store->stats().bytes == 0 && store->stats().steps == 0);
  CHECK(store->stats().counters.evicted_trajectories == 0 && taken.size() == std::size_t{6} * calls);
  for (std::size_t i = 0; i < taken.size(); ++i) right = right && taken[i] == static_cast<std::int64_t>(i);
  CHECK(right);
  Columns({3, 1}).extend(*store);
  const auto stored = store->snapshot().trajectories;
  CHECK(!store->clear(std::span(stored).first(1)) && store->stats().trajectories == 2);
  CHECK(store->clear(stored) && store->stats().trajectories == 0);
}

// Every call on a closed store says so, one that meets the closing included: what it returned for is stored or it
// throws.
void test_closed() {
  const auto store = std::make_shared<Store>(schema(1), steps(10), 0);
  fill(store, 1, {3});
  const auto held = store->draw({1, 2});
  Writer writer(store, 1);
  writer.begin(Step(1, 1, 0, false).observation(), nullptr, nullptr);
  store->close();
  store->close();
  const std::vector<std::int64_t> ids{0};
  const std::vector<double> priorities{1};
  CHECK(throws<std::runtime_error>([&] { store->draw({1, 1}); }));
  CHECK(throws<std::runtime_error>([&] { store->find(0); }));
  CHECK(throws<std::runtime_error>([&] { store->snapshot(); }));
  CHECK(throws<std::runtime_error>([&] { store->stats(); }));
  CHECK(throws<std::runtime_error>([&] { store->clear(); }));
  CHECK(throws<std::runtime_error>([&] { Columns({1}).extend(*store); }));
  CHECK(throws<std::runtime_error>([&] { store->refresh(); }));
  CHECK(throws<std::runtime_error>([&] { store->random_state(); }));
  CHECK(throws<std::runtime_error>([&] { store->set_random_state({1, 2, 3, 4}); }));
  CHECK(throws<std::runtime_error>([&] { store->resume({}); }));
  CHECK(throws<std::runtime_error>([&] { store->set_priorities(ids, priorities); }));
  CHECK(throws<std::runtime_error>([&] { store->verify(); }));
  CHECK(throws<std::runtime_error>([&] { writer.append(Step(1, 1, 1, true).columns(), nullptr); }));
  CHECK(throws<std::runtime_error>([&] { writer.begin(Step(1, 1, 1, true).observation(), nullptr, nullptr); }));
  CHECK(column(*store, *held[0].trajectory, 0) == std::vector<std::int32_t>{0, 1, 2, 3});
}

// A commit that returns while the store closes has stored what it was given: what is on the disk is what was counted.
void test_closing_during_commits() {
  for (int round = 0; round < 30; ++round) {
    const TemporaryDirectory directory;
    std::atomic<int> committed{0};
    {
      const auto store = open_store(directory.path());
      std::vector<std::thread> threads;
      for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
          Writer writer(store, 1);
          try {
            for (int j = 0; j < 2000; ++j) {
              live(writer, 2, 0, 1);
              ++committed;
            }
          } catch (const std::runtime_error&) {
          }
        });
      }
      while (committed < 20) std::this_thread::yield();
      store->close();
      for (std::thread& thread : threads) thread.join();
    }
    CHECK(open_store(directory.path(), Mode::read)->stats().trajectories == committed);
  }
}

// Any parts of a packed column are those that went in; a corrupt block is refused, whatever its bytes say.
void test_packed_rows() {
  for (const char* codec : {"lz4", "zstd"}) {
    Schema packed = schema(4000);
    packed.observation[0].codec = codec;
    const Layout layout(packed);
    CHECK(layout.compresses() && layout.fingerprint() != Layout(schema(4000)).fingerprint());
    const std::int64_t each = TrajectoryData::packed_rows(layout.columns()[0]);
    CHECK(each == 4);
    RandomStream random(9);
    for (const std::int64_t steps : {1, 3, 4, 7, 8, 30}) {
      TrajectoryData plain(layout, steps);
      for (std::size_t c = 0; c < layout.columns().size(); ++c) {
        const Column& column = layout.columns()[c];
        std::byte* at = plain.owned_column(layout, c);
        const std::size_t bytes = static_cast<std::size_t>(steps + column.extra_rows) * column.row_bytes;
        for (std::size_t i = 0; i < bytes; ++i) at[i] = static_cast<std::byte>(random.below(3));
      }
      const TrajectoryData rows = plain.packed(layout, nullptr);
      CHECK(rows.bytes(layout) < plain.bytes(layout));
      for (int round = 0; round < 40; ++round) {
        const std::size_t c = random.below(layout.columns().size());
        const Column& column = layout.columns()[c];
        const auto all = static_cast<std::uint64_t>(steps + column.extra_rows);
        const std::uint64_t first = random.below(all);
        const std::uint64_t count = 1 + random.below(all - first);
        std::vector<std::byte> left(count * column.row_bytes);
        std::vector<std::byte> right(left.size());
        const auto from = static_cast<std::int64_t>(first);
        CHECK(plain.read(layout, c, from, static_cast<std::int64_t>(count), left.data()));
        CHECK(rows.read(layout, c, from, static_cast<std::int64_t>(count), right.data()));
        CHECK(left == right);
      }
      std::vector<std::byte> bytes(rows.packed_block(), rows.packed_block() + rows.bytes(layout));
      std::vector<std::byte> target(static_cast<std::size_t>(steps + 1) * layout.columns()[0].row_bytes);
      int refused = 0;
      for (int round = 0; round < 200; ++round) {
        auto block = std::make_shared<std::vector<std::byte>>(bytes);
        const std::size_t near = round % 2 == 0 ? std::min<std::size_t>(200, block->size()) : block->size();
        (*block)[random.below(near)] ^= static_cast<std::byte>(1 + random.below(255));
        const TrajectoryData corrupt(steps, block->data(), block->size(), block);
        for (std::size_t c = 0; c < layout.columns().size(); ++c) {
          refused += corrupt.read(layout, c, 0, steps, target.data()) ? 0 : 1;
        }
      }
      CHECK(refused > 10);
    }
  }
  CHECK(throws<std::invalid_argument>([] {
    Schema packed = schema(1);
    packed.action.codec = "lz4";
    Layout{packed};
  }));
  CHECK(throws<std::invalid_argument>([] {
    Schema packed = schema(1);
    packed.observation[0].codec = "gzip";
    Layout{packed};
  }));
}

}  // namespace
}  // namespace twohot::test

int main() {
  using namespace twohot::test;
  test_schema();
  test_store();
  test_writer();
  test_rows_over_block_borders();
  test_block_size();
  test_chunks_of_a_trial();
  test_protected();
  test_extend();
  test_extend_and_clear_at_once();
  test_packed_rows();
  test_closed();
  test_closing_during_commits();
  return report();
}
