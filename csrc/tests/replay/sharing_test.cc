// Directories whose files come and go under their users: names, removal, going back, leftovers of the dead, repair.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
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

using Lengths = std::vector<std::int64_t>;

Lengths lengths(const Store& store) {
  Lengths result;
  for (const auto& trajectory : store.snapshot().trajectories) {
    result.push_back(trajectory->length);
    const auto value = column(store, *trajectory, 0);
    for (std::size_t at = 2; at < value.size(); ++at) CHECK(value[at] == value[at - 2] + 1);
  }
  return result;
}

Lengths fresh(const std::string& directory) {
  const auto store = open_store(directory, Mode::read);
  CHECK(store->stats().problems == 0 && store->verify().empty());
  return lengths(*store);
}

std::map<std::string, std::uintmax_t> sizes(const std::string& directory) {
  std::map<std::string, std::uintmax_t> result;
  for (const auto& entry : fs::directory_iterator(directory)) {
    result[entry.path().filename().string()] = entry.is_regular_file() ? entry.file_size() : 0;
  }
  return result;
}

// Files of the directory that this process has mapped although they have no name any more.
std::size_t removed_but_mapped(const std::string& directory) {
  std::set<std::string> paths;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const auto at = line.find(directory);
    if (at != std::string::npos && line.ends_with("(deleted)")) paths.insert(line.substr(at));
  }
  return paths.size();
}

// A reader that remembers the files of an actor sees those of the actor after it, whatever became of the first ones.
void test_names_do_not_come_back() {
  const TemporaryDirectory directory;
  const auto reader = open_store(directory.path(), Mode::read);  // before there is any file
  CHECK(reader->stats().trajectories == 0);
  std::set<std::string> names;
  std::set<std::int64_t> ids;
  for (int life = 1; life <= 4; ++life) {
    for (const int length : {life, 30 * life}) fill(open_store(directory.path(), Mode::write), 2, {length});
    for (const std::string& name : segments(directory.path())) CHECK(names.insert(name).second);
    if (life % 2 == 1) reader->refresh();
    for (const auto& trajectory : reader->snapshot().trajectories) ids.insert(trajectory->id);
    const auto owner = open_store(directory.path());
    owner->clear();
    owner->reclaim(owner->evicted_files());
    CHECK(sizes(directory.path()).empty());
  }
  fill(open_store(directory.path(), Mode::write), 2, {7});
  reader->refresh();
  CHECK(lengths(*reader) == Lengths{7} && reader->verify().empty());
  CHECK(!ids.contains(reader->snapshot().trajectories[0]->id) && ids.size() == 4);
}

void test_readers_let_go_of_removed_files() {
  const TemporaryDirectory directory;
  const auto owner = open_store(directory.path(), Mode::append, 3000, false, steps(100));
  const auto large = open_store(directory.path(), Mode::read, 3000, false, steps(100000));
  const auto small = open_store(directory.path(), Mode::read, 3000, false, steps(30));
  fill(owner, 2, {50, 20});
  large->refresh();
  auto held = large->draw({1, 50, 0, Sampling::recency, WindowAnchor::anywhere, 1e-9});
  const std::int64_t id = held[0].trajectory->id;
  const auto priority = large->snapshot().trajectories[0]->id;
  large->set_priorities(std::vector{priority}, std::vector{2.0});
  for (int i = 0; i < 30; ++i) {
    fill(owner, 2, {50});
    large->refresh();
    small->refresh();
    CHECK(removed_but_mapped(directory.path()) <= 1);  // what is held
  }
  CHECK(large->find(id) == nullptr && large->stats().steps <= 200);
  CHECK(large->stats().steps >= owner->stats().steps && small->stats().steps <= 30);
  CHECK(column(*large, *held[0].trajectory, 0).back() == 120);
  std::int64_t total = 0;
  std::int64_t bytes = 0;
  for (const auto& trajectory : large->snapshot().trajectories) {
    total += trajectory->length;
    bytes += static_cast<std::int64_t>(trajectory->data.bytes(large->layout()));
  }
  CHECK(total == large->stats().steps && bytes == large->stats().bytes);
  held.clear();
  CHECK(removed_but_mapped(directory.path()) == 0);
  owner->clear();
  owner->reclaim(owner->evicted_files());
  large->refresh();
  CHECK(large->stats().trajectories <= 2 && removed_but_mapped(directory.path()) == 0);
}

// Of two that may remove files, the smaller capacity decides; the other learns of it.
void test_two_owners() {
  const TemporaryDirectory directory;
  const auto large = open_store(directory.path(), Mode::append, 2000, false, steps(100000));
  const auto small = open_store(directory.path(), Mode::append, 2000, false, steps(40));
  for (int i = 0; i < 20; ++i) {
    fill(large, 2, {20});
    fill(small, 2, {10});
    small->refresh();
  }
  CHECK(large->stats().trajectories == 20);
  large->refresh();
  CHECK(large->stats().trajectories < 15 && large->stats().steps >= small->stats().steps);
  CHECK(lengths(*large).back() == 10 && large->verify().empty());
  Lengths left = fresh(directory.path());
  Lengths known = lengths(*large);
  std::sort(left.begin(), left.end());
  std::sort(known.begin(), known.end());
  CHECK(left == known);
}

void test_roll_back_under_a_reader() {
  const TemporaryDirectory directory;
  auto owner = open_store(directory.path(), Mode::append, 3000);
  fill(owner, 2, {3, 20, 2});
  const Position then = owner->position();
  const auto reader = open_store(directory.path(), Mode::read);
  fill(owner, 2, {1, 60, 4, 80});
  reader->refresh();
  owner.reset();
  const auto before = sizes(directory.path());
  const auto held = reader->snapshot().trajectories;
  roll_back(directory.path(), then);
  const auto after = sizes(directory.path());
  for (const auto& [name, bytes] : before) CHECK(!after.contains(name) || after.at(name) == bytes);
  CHECK(lengths(*reader) == Lengths({3, 20, 2, 1, 60, 4, 80}) && reader->verify().empty());
  reader->refresh();
  CHECK(lengths(*reader) == Lengths({3, 20, 2}) && reader->find(held[3]->id) == nullptr);
  CHECK(fresh(directory.path()) == Lengths({3, 20, 2}));
  CHECK(column(*reader, *held[6], 0).size() == 162);
  // What lies behind the cut is nobody's corruption, and nobody's find.
  const std::string name = directory.path() + "/" + then.begin()->first;
  std::ofstream(name + ".journal", std::ios::app | std::ios::binary) << std::string(200, 'x');
  CHECK(fresh(directory.path()) == Lengths({3, 20, 2}));
  const Layout layout(schema(2));
  const auto problems = repair(directory.path(), layout);
  CHECK(problems.empty() && fresh(directory.path()) == Lengths({3, 20, 2}));
  fs::remove(name + ".journal");
  CHECK(repair(directory.path(), layout).empty() && fresh(directory.path()) == Lengths({3, 20, 2}));
  // Going on, and back again, and back further.
  for (const int length : {9, 11}) {
    fill(open_store(directory.path()), 2, {length});
    reader->refresh();
    CHECK(lengths(*reader) == Lengths({3, 20, 2, length}) && fresh(directory.path()) == lengths(*reader));
    roll_back(directory.path(), then);
  }
  Position further = then;
  --further.begin()->second;
  roll_back(directory.path(), further);
  CHECK(throws<std::runtime_error>([&] { roll_back(directory.path(), then); }));
  reader->refresh();
  CHECK(lengths(*reader) == Lengths({3, 20}) && fresh(directory.path()) == Lengths({3, 20}));
  // The space behind the cut comes back with the rest.
  owner = open_store(directory.path());
  owner->clear();
  owner->reclaim(owner->evicted_files());
  CHECK(sizes(directory.path()).empty());
  reader->refresh();
  CHECK(reader->stats().trajectories == 0 && reader->stats().steps == 0 && reader->stats().bytes == 0);
}

// Wherever the process dies that removes a segment, its trajectories are all there or gone for good.
void test_death_in_the_midst_of_a_removal() {
  for (int stage = 0; stage < 3; ++stage) {
    const TemporaryDirectory directory;
    Position then;
    {
      const auto store = open_store(directory.path(), Mode::append, 500);
      fill(store, 2, {3});
      then = store->position();
      fill(store, 2, {4});
    }
    roll_back(directory.path(), then);
    fill(open_store(directory.path()), 2, {5});
    const std::string name = directory.path() + "/" + then.begin()->first;
    make_cut(directory.path(), *SegmentName::of(then.begin()->first), {1, 5000});
    fs::rename(name + ".journal", name + ".removed");
    if (stage > 0) fs::remove(name + ".data");
    if (stage > 1) fs::remove(name + ".removed");
    CHECK(fresh(directory.path()) == Lengths{5});
    if (stage == 1) {
      CHECK(repair(directory.path(), Layout(schema(2))).empty());
    } else {
      open_store(directory.path())->reclaim({});
    }
    CHECK(fresh(directory.path()) == Lengths{5} && sizes(directory.path()).size() == 2);
  }
}

// What writers leave that die before their first trajectory goes with the next removal; what one is about to use stays.
void test_leftovers() {
  const Layout layout(schema(2));
  const TemporaryDirectory directory;
  const SegmentName names[] = {{draw_writer(), 0}, {draw_writer(), 0}, {draw_writer(), 0}, {3, 0}};
  std::optional<SegmentWriter> writer;
  writer.emplace(directory.path(), names[0], layout, 1000);
  overwrite(journal_path(directory.path(), names[1]), {});
  overwrite(journal_path(directory.path(), names[2]), std::vector<char>(128, 'x'));
  overwrite(data_path(directory.path(), names[2]), {'x'});
  overwrite(data_path(directory.path(), names[3]), std::vector<char>(128, 'x'));
  CHECK(fresh(directory.path()).empty());
  const auto owner = open_store(directory.path());
  CHECK(owner->reclaim({}) == 257 && sizes(directory.path()).size() == 2);
  writer.reset();
  CHECK(owner->reclaim({}) == 256 && sizes(directory.path()).empty());
  owner->refresh();
  // The name is lost while a writer begins it: it is told.
  CHECK(throws<FileError>([&] {
    overwrite(journal_path(directory.path(), names[1]), {});
    SegmentWriter(directory.path(), names[1], layout, 1000);
  }));
}

// A journal that takes no more: the call raises, what it wrote does not count, and the next one goes elsewhere.
void test_a_journal_that_fails() {
  if (!fs::exists("/proc/self/fd")) return;
  const TemporaryDirectory directory;
  const auto reader = open_store(directory.path(), Mode::read);
  {
    const auto owner = open_store(directory.path());
    fill(owner, 2, {3});
    const std::string journal = segments(directory.path())[0] + ".journal";
    int descriptor = -1;
    for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
      std::error_code error;
      if (fs::read_symlink(entry.path(), error) == fs::canonical(journal)) {
        descriptor = std::stoi(entry.path().filename().string());
      }
    }
    CHECK(descriptor >= 0);
    const int read_only = ::open(journal.c_str(), O_RDONLY | O_CLOEXEC);
    const int held = ::dup(descriptor);
    ::dup2(read_only, descriptor);
    CHECK(throws<FileError>([&] { fill(owner, 2, {4}); }));
    ::close(read_only);
    ::close(held);
    reader->refresh();
    CHECK(lengths(*reader) == Lengths{3});
    fill(owner, 2, {4, 5});
    CHECK(lengths(*owner) == Lengths({3, 4, 5}));
  }
  reader->refresh();
  CHECK(lengths(*reader) == Lengths({3, 4, 5}) && fresh(directory.path()) == Lengths({3, 4, 5}));
  CHECK(repair(directory.path(), Layout(schema(2))).empty() && fresh(directory.path()) == Lengths({3, 4, 5}));
}

// A reader that has read a part of a journal goes on in the one that took its place.
void test_repair_under_a_reader() {
  const TemporaryDirectory directory;
  auto actor = open_store(directory.path(), Mode::write);
  fill(actor, 2, {3, 4});
  const auto reader = open_store(directory.path(), Mode::read);
  fill(actor, 2, {5, 6});
  actor.reset();
  const std::string name = segments(directory.path())[0];
  auto bytes = content(name + ".data");
  bytes[128 + 128 + 130] = static_cast<char>(bytes[128 + 128 + 130] ^ 1);
  overwrite(name + ".data", bytes);
  CHECK(repair(directory.path(), Layout(schema(2))).size() == 1);
  reader->refresh();
  Lengths found;
  for (const auto& trajectory : reader->snapshot().trajectories) found.push_back(trajectory->length);
  CHECK(found == Lengths({3, 4, 5, 6}) && reader->stats().problems == 0);
  CHECK(fresh(directory.path()) == Lengths({4, 5, 6}));
}

// What one process reads and then writes is in this order for everybody, though its clock is behind.
void test_a_clock_that_is_set() {
  const TemporaryDirectory directory;
  const auto memory = std::make_shared<Store>(schema(2), steps(1000), 0);
  fill(memory, 2, {3});
  for (const std::int64_t time : {std::int64_t{1} << 62, std::int64_t{5}}) {
    SegmentWriter writer(directory.path(), {draw_writer(), 0}, memory->layout(), 10000);
    auto trajectory = std::make_shared<Trajectory>(*memory->snapshot().trajectories[0]);
    trajectory->id = time;
    writer.append(std::span(&trajectory, 1), memory->layout(), time, false);
  }
  for (const int length : {4, 5, 6}) fill(open_store(directory.path()), 2, {length});
  CHECK(fresh(directory.path()) == Lengths({3, 3, 4, 5, 6}));
}

// A refresh that cannot open all files loses nothing of what it has read.
void test_too_few_descriptors() {
  const TemporaryDirectory directory;
  const auto reader = open_store(directory.path(), Mode::read);
  std::vector<std::shared_ptr<Store>> actors;
  for (int i = 0; i < 3; ++i) {
    actors.push_back(open_store(directory.path(), Mode::write));
    fill(actors.back(), 2, {1});
  }
  reader->refresh();
  std::int64_t expected = 3;
  int refused = 0;
  rlimit before;
  ::getrlimit(RLIMIT_NOFILE, &before);
  for (int more = 0; more < 4; ++more) {
    for (const auto& actor : actors) fill(actor, 2, {2});
    fill(open_store(directory.path(), Mode::write), 2, {3});
    expected += 4;
    const int probe = ::dup(0);
    ::close(probe);
    rlimit tight = before;
    tight.rlim_cur = static_cast<rlim_t>(probe + more);
    ::setrlimit(RLIMIT_NOFILE, &tight);
    refused += throws<FileError>([&] { reader->refresh(); }) ? 1 : 0;
    ::setrlimit(RLIMIT_NOFILE, &before);
    reader->refresh();
    CHECK(reader->stats().trajectories == expected && reader->stats().problems == 0);
  }
  CHECK(refused > 0 && lengths(*reader).size() == static_cast<std::size_t>(expected));
}

// A repair knows where a segment was cut though its places have moved.
void test_repair_behind_a_cut() {
  const TemporaryDirectory directory;
  Position then;
  {
    const auto store = open_store(directory.path());
    fill(store, 2, {3, 20});
    then = store->position();
    fill(store, 2, {4});
  }
  roll_back(directory.path(), then);
  const std::string name = segments(directory.path())[0];
  auto bytes = content(name + ".data");
  bytes[128 + 128 + 4] = static_cast<char>(bytes[128 + 128 + 4] ^ 1);
  overwrite(name + ".data", bytes);
  fs::remove(name + ".journal");
  CHECK(repair(directory.path(), Layout(schema(2))).size() == 1);
  CHECK(fresh(directory.path()) == Lengths{20});
}

// Who draws while another thread refreshes meets what was there or what is there, never a replay without either.
void test_a_refresh_is_seen_whole() {
  const TemporaryDirectory directory;
  const auto owner = open_store(directory.path(), Mode::append, 1, false, {{}, {}, 1});
  fill(owner, 2, {5});
  const auto reader = open_store(directory.path(), Mode::read);
  std::atomic<bool> stop{false};
  std::thread drawing([&] {
    while (!stop) CHECK(reader->draw({4, 2}).size() == 4);
  });
  for (int i = 0; i < 100; ++i) {
    fill(owner, 2, {5});
    reader->refresh();
  }
  stop = true;
  drawing.join();
}

// Readers of every kind while files are written, evicted, removed and left behind: what is drawn is whole.
void test_threads() {
  const TemporaryDirectory directory;
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  fill(open_store(directory.path()), 2, {5});
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop) fill(open_store(directory.path(), Mode::write, 2000), 2, {5, 17, 1, 30});
    });
  }
  threads.emplace_back([&] {
    while (!stop) {
      const auto owner = open_store(directory.path(), Mode::append, 2000, false, steps(150));
      for (int i = 0; i < 10; ++i) {
        fill(owner, 2, {9});
        owner->refresh();
        owner->reclaim(owner->evicted_files());
      }
    }
  });
  const auto shared = open_store(directory.path(), Mode::read, 2000, false, steps(100000));
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&, i] {
      for (int round = 0; round < 40; ++round) {
        const auto store = i < 2 ? shared : open_store(directory.path(), Mode::read, 2000, false, steps(80));
        store->refresh();
        CHECK(store->verify().empty());
        try {
          for (const Window& window : store->draw({20, 4, 0, Sampling::step})) {
            const auto value = column(*store, *window.trajectory, 0);
            for (std::size_t at = 2; at < value.size(); ++at) CHECK(value[at] == value[at - 2] + 1);
          }
        } catch (const std::runtime_error& error) {
          CHECK(std::string(error.what()).find("the replay is empty") == 0);
        }
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  const auto owner = open_store(directory.path());
  owner->clear();
  owner->reclaim(owner->evicted_files());
  CHECK(sizes(directory.path()).empty());
}

}  // namespace
}  // namespace twohot::test

int main() {
  using namespace twohot::test;
  test_names_do_not_come_back();
  test_readers_let_go_of_removed_files();
  test_two_owners();
  test_roll_back_under_a_reader();
  test_death_in_the_midst_of_a_removal();
  test_leftovers();
  test_a_journal_that_fails();
  test_repair_under_a_reader();
  test_a_clock_that_is_set();
  test_too_few_descriptors();
  test_repair_behind_a_cut();
  test_a_refresh_is_seen_whole();
  test_threads();
  return report();
}
