// What the tests of the replay share: checks, a schema with its steps and batches, and a directory that goes away.
#pragma once

#include <stdlib.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "replay/sampler.h"
#include "replay/store.h"
#include "replay/writer.h"

namespace twohot::test {

inline std::atomic<int> passed{0};  // checks are made on several threads
inline std::atomic<int> failed{0};

inline void check(bool holds, const char* text, const char* file, int line) {
  ++(holds ? passed : failed);
  if (!holds) std::printf("%s:%d: %s\n", file, line, text);
}

#define CHECK(...) twohot::test::check((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

// The exit status of a test program.
inline int report() {
  std::printf("%d passed, %d failed\n", passed.load(), failed.load());
  return failed == 0 ? 0 : 1;
}

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

// What the error of a call says, or "" where it raises none.
template <typename Call>
std::string sentence(Call call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

// `width` int32 observations and one int32 action.
inline Schema schema(std::int64_t width) { return {{{"value", DType::int32, {width}}}, {"action", DType::int32, {}}}; }

inline Capacity steps(std::int64_t count) { return {count, {}, {}}; }

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

// Memory of a batch of the schema above, filled with 0x7f.
class Memory {
 public:
  Memory(std::int64_t batch_size, std::int64_t length, std::size_t width, std::int64_t lookahead = 0) {
    const auto windows = static_cast<std::size_t>(batch_size);
    const auto places = static_cast<std::size_t>(length + lookahead);
    const std::size_t rows = windows * (places + 1);
    const auto make = [&](std::size_t bytes) {
      parts_.emplace_back((bytes + 7) / 8, 0x7f7f7f7f7f7f7f7fu);
      return reinterpret_cast<std::byte*>(parts_.back().data());
    };
    batch.batch_size = batch_size;
    batch.length = length;
    batch.lookahead = lookahead;
    batch.observation = {make(rows * width * 4)};
    batch.previous_action = make(rows * 4);
    batch.previous_reward = make(rows * 4);
    batch.time = reinterpret_cast<std::int32_t*>(make(rows * 4));
    batch.action = make(windows * places * 4);
    batch.reward = make(windows * places * 4);
    batch.terminated = make(windows * places);
    batch.truncated = make(windows * places);
    batch.mask = make(windows * places);
    batch.task = reinterpret_cast<std::int32_t*>(make(windows * 4));
    batch.trajectory = reinterpret_cast<std::int64_t*>(make(windows * 8));
    batch.start = reinterpret_cast<std::int64_t*>(make(windows * 8));
    batch.probability = reinterpret_cast<double*>(make(windows * 8));
  }

  const std::vector<std::vector<std::uint64_t>>& parts() const { return parts_; }

  BatchMemory batch{};

 private:
  std::vector<std::vector<std::uint64_t>> parts_;
};

// Lets one environment of a writer live `length` steps, whose values are `first` + the step.
inline void live(Writer& writer, std::size_t width, std::int32_t first, int length) {
  writer.begin(Step(1, width, first, false).observation(), nullptr, nullptr);
  for (int t = 1; t <= length; ++t) writer.append(Step(1, width, first + t, t == length).columns(), nullptr);
}

// One trajectory for each length; its values are 100 x its place + the step.
inline void fill(const std::shared_ptr<Store>& store, std::size_t width, const std::vector<int>& lengths) {
  Writer writer(store, 1);
  std::int32_t first = 0;
  for (const int length : lengths) {
    live(writer, width, first, length);
    first += 100;
  }
}

// All rows of a column of int32, in order.
inline std::vector<std::int32_t> column(const Store& store, const Trajectory& trajectory, std::size_t index) {
  const Column& column = store.layout().columns()[index];
  const std::int64_t rows = trajectory.length + column.extra_rows;
  std::vector<std::int32_t> result(static_cast<std::size_t>(rows) * column.row_bytes / 4);
  CHECK(trajectory.data.read(store.layout(), index, 0, rows, reinterpret_cast<std::byte*>(result.data())));
  return result;
}

// A fresh directory, removed with all in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = std::filesystem::temp_directory_path() / "twohot-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::shared_ptr<Store> open_store(const std::string& directory, Mode mode = Mode::append,
                                         std::size_t segment_bytes = std::size_t{1} << 20, bool skip_corrupt = false,
                                         Capacity capacity = steps(100000), std::int64_t width = 2) {
  return std::make_shared<Store>(schema(width), capacity, 0,
                                 DirectoryOptions{directory, mode, segment_bytes, false, false, skip_corrupt});
}

// The paths of a directory's segments without their suffixes: those of each writer in their order.
inline std::vector<std::string> segments(const std::string& directory) {
  std::vector<std::string> paths;
  for (const auto& [name, files] : list(directory)) paths.push_back(directory + "/" + name.text());
  return paths;
}

inline std::vector<char> content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void overwrite(const std::string& path, const std::vector<char>& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace twohot::test
