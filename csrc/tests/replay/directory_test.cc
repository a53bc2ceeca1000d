// Directories with several users: two writers, readers, eviction, going back, a full disk, fork.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "replay/directory.h"
#include "tests/support.h"

namespace twohot::test {
namespace {

namespace fs = std::filesystem;

int files(const std::string& directory) {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(directory)) ++count;
  return count;
}

void test_two_writers() {
  const TemporaryDirectory directory;
  const auto left = open_store(directory.path());
  const auto right = open_store(directory.path(), Mode::write);
  fill(left, 2, {1, 2});
  fill(right, 2, {3});
  fill(left, 2, {4});
  CHECK(throws<std::runtime_error>([&] { right->draw({1, 1}); }));
  left->refresh();
  left->refresh();
  CHECK(left->stats().steps == 10 && left->stats().trajectories == 4);
  const auto reader = open_store(directory.path(), Mode::read);
  std::set<std::int64_t> ids;
  std::vector<std::int64_t> lengths;
  for (const auto& trajectory : reader->snapshot().trajectories) {
    ids.insert(trajectory->id);
    lengths.push_back(trajectory->length);
  }
  CHECK(ids.size() == 4 && lengths == std::vector<std::int64_t>({1, 2, 3, 4}));  // in the order of their commits
}

void test_reclaim() {
  const TemporaryDirectory directory;
  const auto store = open_store(directory.path(), Mode::append, 4000, false, steps(100));
  fill(store, 2, {100});
  const auto held = store->draw({1, 100});
  for (int i = 0; i < 20; ++i) fill(store, 2, {50});
  CHECK(store->stats().trajectories == 2 && files(directory.path()) <= 8);
  CHECK(store->stats().counters.evicted_trajectories == 19);
  const auto value = column(*store, *held[0].trajectory, 0);
  CHECK(value.size() == 202 && value[200] == 100 && value[2] == 1);
  store->clear();
  CHECK(store->reclaim(store->evicted_files()) > 0);
  CHECK(files(directory.path()) == 2);  // what the writer is at
}

// What another writer committed before it ended, unseen yet, stays where the rest of its segment was evicted.
void test_reclaim_leaves_what_nobody_has_read() {
  const TemporaryDirectory directory;
  const auto store = open_store(directory.path(), Mode::append, 1 << 20, false, steps(10));
  auto other = open_store(directory.path());
  fill(other, 2, {5});
  store->refresh();
  fill(store, 2, {10});
  CHECK(store->stats().trajectories == 1);
  fill(other, 2, {7});
  other.reset();
  store->reclaim(store->evicted_files());
  store->refresh();
  CHECK(store->snapshot().trajectories.back()->length == 7);
  CHECK(open_store(directory.path(), Mode::read)->stats().steps == 22);
}

// A record that is corrupt may be repaired: its segment stays.
void test_reclaim_leaves_corrupt_segments() {
  const TemporaryDirectory directory;
  fill(open_store(directory.path()), 2, {5});
  const std::string path = segments(directory.path())[0] + ".journal";
  auto bytes = content(path);
  bytes[200] = static_cast<char>(bytes[200] + 1);
  overwrite(path, bytes);
  {
    const auto store = open_store(directory.path(), Mode::append, 1 << 20, true);
    CHECK(store->stats().trajectories == 0 && store->reclaim(store->evicted_files()) == 0);
  }
  CHECK(repair(directory.path(), Layout(schema(2))).empty());
  CHECK(open_store(directory.path(), Mode::read)->stats().trajectories == 1);
}

void test_roll_back() {
  const TemporaryDirectory directory;
  Position then;
  {
    const auto store = open_store(directory.path(), Mode::append, 2000);
    fill(store, 2, {3, 20, 2});
    then = store->position();
    fill(store, 2, {1, 30, 4});
    CHECK(throws<std::runtime_error>([&] { roll_back(directory.path(), then); }));
  }
  roll_back(directory.path(), then);
  roll_back(directory.path(), then);
  {
    const auto store = open_store(directory.path());
    CHECK(store->stats().trajectories == 3 && store->stats().steps == 25 && store->verify().empty());
    fill(store, 2, {9});
    CHECK(store->stats().trajectories == 4);
  }
  CHECK(open_store(directory.path(), Mode::read)->stats().steps == 34);
  const std::string name = then.begin()->first;
  CHECK(throws<std::runtime_error>([&] { roll_back(directory.path(), {{"00000009-00000000", 1}}); }));
  CHECK(throws<std::runtime_error>([&] { roll_back(directory.path(), {{name, 100}}); }));
  CHECK(throws<std::runtime_error>([&] { roll_back(directory.path(), {{name, -1}}); }));
  const std::string path = directory.path() + "/" + name;
  const auto data_bytes = fs::file_size(path + ".data");
  auto bytes = content(path + ".journal");
  bytes[128 + 16] = static_cast<char>(bytes[128 + 16] + 1);  // the offset in the first record
  overwrite(path + ".journal", bytes);
  CHECK(throws<std::runtime_error>([&] { roll_back(directory.path(), {{name, 1}}); }));
  CHECK(fs::file_size(path + ".data") == data_bytes);
}

// A file that may not grow, as on a full disk: the call raises, and goes through once there is room.
void test_full_disk() {
  std::signal(SIGXFSZ, SIG_IGN);
  const TemporaryDirectory directory;
  rlimit before;
  ::getrlimit(RLIMIT_FSIZE, &before);
  {
    const auto store = open_store(directory.path());
    Writer writer(store, 1);
    live(writer, 2, 0, 5);
    writer.begin(Step(1, 2, 100, false).observation(), nullptr, nullptr);
    for (int t = 1; t < 50; ++t) writer.append(Step(1, 2, 100 + t, false).columns(), nullptr);
    for (const rlim_t bytes : {100, 1000, 1500}) {
      rlimit tight = before;
      tight.rlim_cur = bytes;
      ::setrlimit(RLIMIT_FSIZE, &tight);
      const bool refused = throws<FileError>([&] { writer.append(Step(1, 2, 150, true).columns(), nullptr); });
      const bool cut_refused = throws<FileError>([&] { writer.cut(); });
      ::setrlimit(RLIMIT_FSIZE, &before);
      CHECK(refused && cut_refused);
      CHECK(store->stats().trajectories == 1 && store->stats().open_trajectories == 1);
      CHECK(open_store(directory.path(), Mode::read)->verify().empty());
    }
    writer.append(Step(1, 2, 150, true).columns(), nullptr);
    CHECK(store->verify().empty());
  }
  const auto store = open_store(directory.path(), Mode::read);
  CHECK(store->stats().trajectories == 2 && column(*store, *store->snapshot().trajectories[1], 0)[100] == 150 &&
        store->verify().empty());
}

// A segment that could not be begun leaves no file, and its name is not given again.
void test_a_segment_that_cannot_be_begun() {
  const TemporaryDirectory directory;
  rlimit before;
  ::getrlimit(RLIMIT_NOFILE, &before);
  const auto left = open_store(directory.path(), Mode::append, 500);
  fill(left, 2, {1});
  const auto right = open_store(directory.path(), Mode::append, 1 << 20);
  fill(right, 2, {1, 1});
  const int count = files(directory.path());
  for (int more = 0; more < 4; ++more) {
    const int probe = ::dup(0);
    ::close(probe);
    rlimit tight = before;
    tight.rlim_cur = static_cast<rlim_t>(probe + more);
    ::setrlimit(RLIMIT_NOFILE, &tight);
    const bool refused = throws<FileError>([&] { fill(left, 2, {9}); });
    ::setrlimit(RLIMIT_NOFILE, &before);
    CHECK(refused && files(directory.path()) == count);
  }
  fill(left, 2, {9, 9});
  CHECK(files(directory.path()) > count);
  for (const std::string& path : segments(directory.path())) CHECK(!path.ends_with("-00000001"));
  CHECK(open_store(directory.path(), Mode::read)->stats().trajectories == 5);
}

// Names are of one form each, wherever they come from; any other file is no segment.
void test_names() {
  for (const char* text : {"00000003-00000007", "9f3c01d2ab45e677-0000000a"})
    CHECK(SegmentName::of(text)->text() == text);
  for (const char* text : {"", "00000003", "00000003-0000000A", "00000003-000000007", "0000000000000003-00000007",
                           "9F3c01d2ab45e677-0000000a", "9f3c01d2ab45e677-0000000a ", "+0000003-00000007",
                           "9f3c01d2ab45e677_0000000a", "\xff\xfe"}) {
    CHECK(!SegmentName::of(text));
  }
  std::set<std::uint64_t> writers;
  for (int i = 0; i < 1000; ++i) writers.insert(draw_writer());
  CHECK(writers.size() == 1000 && *writers.begin() >= SegmentName::first_drawn);
}

void test_fork() {
  const TemporaryDirectory directory;
  const auto store = open_store(directory.path());
  const auto memory = std::make_shared<Store>(schema(2), steps(10), 0);
  fill(store, 2, {3});
  fill(memory, 2, {3});
  const pid_t child = ::fork();
  if (child == 0) {
    bool right = throws<std::runtime_error>([&] { store->draw({1, 1}); });
    right = right && sentence([&] { memory->stats(); }).find("before a fork") != std::string::npos;
    right = right && sentence([&] { store->random_state(); }).find("before a fork") != std::string::npos;
    store->close();
    right = right && open_store(directory.path(), Mode::append)->stats().trajectories == 1;
    ::_exit(right ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  fill(store, 2, {4});
  CHECK(store->stats().trajectories == 2);
}

// A writer, an evicting owner and a reader at once: what is drawn is whole.
void test_threads() {
  const TemporaryDirectory directory;
  const auto owner = open_store(directory.path(), Mode::append, 3000, false, steps(200));
  fill(owner, 2, {5});
  const auto reader = open_store(directory.path(), Mode::read, 3000, false, steps(300));
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (const Mode mode : {Mode::append, Mode::write}) {
    threads.emplace_back([&, mode] {
      const auto store = mode == Mode::append ? owner : open_store(directory.path(), mode, 3000);
      for (int i = 0; !stop && i < 400; ++i) fill(store, 2, {5, 17, 1});
    });
  }
  for (const auto& store : {owner, reader}) {
    threads.emplace_back([&, store] {
      for (int i = 0; i < 60; ++i) {
        store->refresh();
        for (const Window& window : store->draw({20, 4, 0, Sampling::step})) {
          const auto value = column(*store, *window.trajectory, 0);
          for (std::size_t at = 2; at < value.size(); ++at) wrong += value[at] == value[at - 2] + 1 ? 0 : 1;
        }
      }
    });
  }
  for (std::size_t i = 2; i < threads.size(); ++i) threads[i].join();
  stop = true;
  for (std::size_t i = 0; i < 2; ++i) threads[i].join();
  CHECK(wrong == 0);
  owner->close();
  CHECK(open_store(directory.path(), Mode::read)->verify().empty());
}

}  // namespace
}  // namespace twohot::test

int main() {
  using namespace twohot::test;
  test_two_writers();
  test_reclaim();
  test_reclaim_leaves_what_nobody_has_read();
  test_reclaim_leaves_corrupt_segments();
  test_roll_back();
  test_full_disk();
  test_a_segment_that_cannot_be_begun();
  test_names();
  test_fork();
  test_threads();
  return report();
}
