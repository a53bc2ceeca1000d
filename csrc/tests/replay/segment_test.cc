// Segments and directories: what was committed is found again, and what does not hold is named.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "replay/directory.h"
#include "tests/support.h"

namespace twohot::test {
namespace {

namespace fs = std::filesystem;

// Trajectories of 3, 1, 40 and 2 steps in the directory.
void write_some(const std::string& directory) { fill(open_store(directory), 2, {3, 1, 40, 2}); }

// Lengths of the stored trajectories whose values are those that fill() wrote; 5 is the first of its own.
std::vector<std::int64_t> right_ones(const Store& store) {
  const std::map<std::int64_t, std::int32_t> first_values{{3, 0}, {1, 100}, {40, 200}, {2, 300}, {5, 0}};
  std::vector<std::int64_t> lengths;
  for (const auto& trajectory : store.snapshot().trajectories) {
    const auto value = column(store, *trajectory, 0);
    const std::int32_t first = first_values.at(trajectory->length);
    bool right = true;
    for (std::size_t i = 0; i < value.size(); ++i)
      right = right && value[i] == first + static_cast<std::int32_t>(i / 2);
    if (right) lengths.push_back(trajectory->length);
  }
  return lengths;
}

std::vector<std::int64_t> skipping(const std::string& directory) {
  return right_ones(*open_store(directory, Mode::read, 1 << 20, true));
}

void test_round_trip() {
  const TemporaryDirectory directory;
  for (const std::size_t segment_bytes : {std::size_t{1} << 20, std::size_t{1000}}) {
    fs::remove_all(directory.path());
    fs::create_directory(directory.path());
    {
      const auto store = open_store(directory.path(), Mode::append, segment_bytes);
      fill(store, 2, {3, 1, 40, 2});
      CHECK(right_ones(*store) == std::vector<std::int64_t>{3, 1, 40, 2});
    }
    const auto store = open_store(directory.path(), Mode::read);
    CHECK(right_ones(*store) == std::vector<std::int64_t>{3, 1, 40, 2});
    CHECK(store->verify().empty() && store->stats().problems == 0 && store->stats().steps == 46);
    CHECK(store->snapshot().trajectories[2]->total_reward == 40 * 200 + 820);
    CHECK(throws<std::runtime_error>([&] { fill(store, 2, {1}); }));
    CHECK(throws<std::runtime_error>([&] { store->reclaim({}); }));
    CHECK((segments(directory.path()).size() > 1) == (segment_bytes == 1000));
  }
}

// Wherever the writer died while it wrote its journal, the trajectories before that place are there.
void test_torn_journal() {
  const TemporaryDirectory directory;
  write_some(directory.path());
  const auto whole = content(segments(directory.path())[0] + ".journal");
  CHECK(whole.size() == 5 * 128);
  for (std::size_t bytes = 128; bytes <= whole.size(); bytes += 16) {
    overwrite(segments(directory.path())[0] + ".journal", {whole.begin(), whole.begin() + static_cast<long>(bytes)});
    const auto store = open_store(directory.path(), Mode::read);
    CHECK(right_ones(*store).size() == bytes / 128 - 1);
    CHECK(store->verify().empty());
  }
}

// A flipped bit of the journal costs one trajectory or the whole file, of the data one at most, and both are named.
void test_flipped_bits() {
  const TemporaryDirectory directory;
  write_some(directory.path());
  const auto intact = skipping(directory.path());
  for (const std::string suffix : {".journal", ".data"}) {
    const std::string path = segments(directory.path())[0] + suffix;
    const auto whole = content(path);
    for (std::size_t at = 0; at < whole.size(); at += suffix == ".journal" ? 1 : 7) {
      auto flipped = whole;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << at % 8));
      overwrite(path, flipped);
      const auto store = open_store(directory.path(), Mode::read, 1 << 20, true);
      const auto problems = store->verify();
      const bool header = at < 128;
      if (suffix == ".journal" || header) {
        CHECK(problems.size() == 1 && problems[0].file.starts_with(segments(directory.path())[0]));
        CHECK(right_ones(*store).size() == (header ? 0u : 3u) && store->stats().problems == 1);
        const auto text = sentence([&] { open_store(directory.path(), Mode::read); });
        CHECK(text.find(segments(directory.path())[0]) != std::string::npos);
        CHECK(throws<CorruptionError>([&] { open_store(directory.path(), Mode::read); }));
      } else {
        CHECK(problems.size() <= 1 && store->stats().trajectories == 4);
        CHECK(!problems.empty() || right_ones(*store) == intact);  // padding, or the copy of a record
      }
    }
    overwrite(path, whole);
  }
}

void test_truncated_data() {
  const TemporaryDirectory directory;
  write_some(directory.path());
  const std::string path = segments(directory.path())[0] + ".data";
  const auto whole = content(path);
  std::size_t most = 0;
  for (std::size_t bytes = 0; bytes < whole.size(); bytes += 96) {
    overwrite(path, {whole.begin(), whole.begin() + static_cast<long>(bytes)});
    const auto store = open_store(directory.path(), Mode::read, 1 << 20, true);
    CHECK(store->stats().problems > 0 &&
          right_ones(*store).size() == static_cast<std::size_t>(store->stats().trajectories));
    CHECK(right_ones(*store).size() >= most);
    most = right_ones(*store).size();
  }
  CHECK(most == 3);
}

void test_files_that_are_none() {
  const auto expect = [](const char* words, auto corrupt) {
    const TemporaryDirectory directory;
    write_some(directory.path());
    corrupt(directory.path());
    CHECK(throws<CorruptionError>([&] { open_store(directory.path(), Mode::read); }));
    CHECK(sentence([&] { open_store(directory.path(), Mode::read); }).find(words) != std::string::npos);
    CHECK(skipping(directory.path()).empty());
    // Others go on.
    fill(open_store(directory.path(), Mode::append, 1 << 20, true), 2, {2});
    CHECK(open_store(directory.path(), Mode::read, 1 << 20, true)->stats().trajectories == 1);
  };
  expect("is no segment", [](const std::string& directory) {
    overwrite(segments(directory)[0] + ".journal", std::vector<char>(1000, 'x'));
  });
  expect("is too short", [](const std::string& directory) { overwrite(segments(directory)[0] + ".journal", {'x'}); });
  expect("No such file", [](const std::string& directory) { fs::remove(segments(directory)[0] + ".data"); });
  expect("it was renamed", [](const std::string& directory) {
    const std::string name = segments(directory)[0];
    for (const char* suffix : {".journal", ".data"})
      fs::rename(name + suffix, directory + "/00000003-00000007" + suffix);
  });
  expect("has a corrupt header", [](const std::string& directory) {
    auto bytes = content(segments(directory)[0] + ".data");
    bytes[40] = static_cast<char>(bytes[40] + 1);
    overwrite(segments(directory)[0] + ".data", bytes);
  });
  expect("is not the file", [](const std::string& directory) {  // a data file in the place of its journal
    fs::copy(segments(directory)[0] + ".data", segments(directory)[0] + ".journal",
             fs::copy_options::overwrite_existing);
  });
  const TemporaryDirectory directory;
  write_some(directory.path());
  const auto other = [&] { open_store(directory.path(), Mode::read, 1 << 20, false, steps(1000), 3); };
  CHECK(sentence(other).find("was written for another schema") != std::string::npos);
}

// A record that comes twice is one trajectory.
void test_spliced_journal() {
  const TemporaryDirectory directory;
  write_some(directory.path());
  auto bytes = content(segments(directory.path())[0] + ".journal");
  const std::vector<char> record(bytes.begin() + 256, bytes.begin() + 384);
  for (int i = 0; i < 3; ++i) bytes.insert(bytes.begin() + 384, record.begin(), record.end());
  overwrite(segments(directory.path())[0] + ".journal", bytes);
  CHECK(skipping(directory.path()) == std::vector<std::int64_t>({3, 1, 40, 2}));
}

void test_repair() {
  const auto layout = Layout(schema(2));
  const TemporaryDirectory directory;
  write_some(directory.path());
  const std::string journal = segments(directory.path())[0] + ".journal";
  const std::string data = segments(directory.path())[0] + ".data";
  const auto journal_bytes = content(journal);
  const auto data_bytes = content(data);
  {
    const auto writing = open_store(directory.path());
    fill(writing, 2, {5});
    CHECK(throws<std::runtime_error>([&] { repair(directory.path(), layout); }));
  }
  CHECK(repair(directory.path(), layout).empty());
  CHECK(content(journal) == journal_bytes);
  for (const bool missing : {false, true}) {
    if (missing) fs::remove(journal);
    if (!missing) overwrite(journal, std::vector<char>(300, 'y'));
    CHECK(repair(directory.path(), layout).empty());
    const auto again = content(journal);  // its header has a number of its own
    CHECK(std::equal(again.begin() + 128, again.end(), journal_bytes.begin() + 128, journal_bytes.end()));
  }
  // One byte of the second trajectory: it alone is lost, and the data stay as they are.
  auto flipped = data_bytes;
  flipped[128 + (sizeof(Record) + layout.bytes(3)) + 130] ^= 4;
  overwrite(data, flipped);
  auto problems = repair(directory.path(), layout);
  CHECK(problems.size() == 1 && problems[0].file == data && problems[0].what.find("checksum") != std::string::npos);
  CHECK(skipping(directory.path()) == std::vector<std::int64_t>({3, 40, 2, 5}));
  // A record in the data file whose copy in the journal holds, and one without a copy.
  flipped = data_bytes;
  flipped[128 + (sizeof(Record) + layout.bytes(3))] ^= 4;
  overwrite(journal, journal_bytes);
  overwrite(data, flipped);
  CHECK(repair(directory.path(), layout).empty() && skipping(directory.path()).size() == 5);
  fs::remove(journal);
  problems = repair(directory.path(), layout);
  CHECK(problems.size() == 1 && problems[0].what.find("nothing usable in bytes") != std::string::npos);
  CHECK(skipping(directory.path()).size() == 4);
  // What a writer leaves that dies before its first trajectory is no loss.
  overwrite(directory.path() + "/00000005-00000000.data", std::vector<char>(60, 'z'));
  overwrite(directory.path() + "/00000005-00000000.journal", {});
  CHECK(open_store(directory.path(), Mode::read)->stats().problems == 0);
  CHECK(repair(directory.path(), layout).size() == 1 && !fs::exists(directory.path() + "/00000005-00000000.data"));
  // No header: moved away.
  overwrite(data, {'n', 'o'});
  problems = repair(directory.path(), layout);
  CHECK(problems.size() == 1 && problems[0].what.find("moved to 'damaged'") != std::string::npos);
  CHECK(fs::exists(directory.path() + "/damaged/" + fs::path(data).filename().string()) && !fs::exists(journal));
  CHECK(skipping(directory.path()).size() == 1 && open_store(directory.path(), Mode::read)->verify().empty());
}

}  // namespace
}  // namespace twohot::test

int main() {
  using namespace twohot::test;
  test_round_trip();
  test_torn_journal();
  test_flipped_bits();
  test_truncated_data();
  test_files_that_are_none();
  test_spliced_journal();
  test_repair();
  return report();
}
