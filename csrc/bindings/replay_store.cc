#include "bindings/replay_store.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <limits>

#include "bindings/arrays.h"
#include "bindings/enumerator.h"

namespace py = pybind11;

namespace twohot {
namespace {

constexpr std::int64_t max_rows = std::numeric_limits<std::int64_t>::max() / 2;

std::optional<DirectoryOptions> directory_options(const std::optional<std::string>& directory, const std::string& mode,
                                                  std::size_t segment_bytes, bool durable, bool keep_evicted,
                                                  bool skip_corrupt) {
  if (!directory) return std::nullopt;
  const bool made = mode == "create";
  const auto use = made ? Mode::append : enumerator<Mode>("mode", {"read", "append", "write"}, mode);
  return DirectoryOptions{*directory, use, segment_bytes, durable, keep_evicted, skip_corrupt, made};
}

std::shared_ptr<ReplayStore> make_store(const std::vector<FieldTuple>& observation, const FieldTuple& action,
                                        const std::vector<FieldTuple>& step, std::optional<std::int64_t> capacity_steps,
                                        std::optional<std::int64_t> capacity_bytes,
                                        std::optional<std::int64_t> capacity_trajectories, std::uint64_t seed,
                                        int threads, const std::optional<std::string>& directory,
                                        const std::string& mode, std::size_t segment_bytes, bool durable,
                                        bool keep_evicted, bool skip_corrupt) {
  return std::make_shared<ReplayStore>(
      observation, action, step, Capacity{capacity_steps, capacity_bytes, capacity_trajectories}, seed, threads,
      directory_options(directory, mode, segment_bytes, durable, keep_evicted, skip_corrupt));
}

// The rows of an array, of which there is one for each `what`.
std::int64_t rows_of(py::handle value, const std::string& name, const char* what) {
  if (!py::isinstance<py::array>(value)) {
    throw py::type_error(name + ": expected an array, got " + Py_TYPE(value.ptr())->tp_name);
  }
  const auto array = py::reinterpret_borrow<py::array>(value);
  if (array.ndim() == 0)
    throw py::value_error(name + ": expected one row for each " + what + ", got an array without axes");
  return array.shape(0);
}

std::int64_t add(const ReplayStore& self, const py::object& observation, const py::object& action,
                 const py::object& reward, const py::object& terminated, const py::object& truncated,
                 const py::object& step, std::int32_t task, bool protect, std::int64_t origin,
                 std::optional<std::int64_t> id) {
  const std::int64_t steps = rows_of(action, "action", "step");
  std::vector<const std::byte*> columns;
  const auto held = self.read_observation(observation, {steps + 1}, columns);
  const auto step_arrays = self.read_steps({action, reward, terminated, truncated}, step, steps, columns);
  const py::gil_scoped_release release;
  return self.store->add(columns, steps, {task, protect, origin, id});
}

// `columns` as drain() returns them, and the ids that the trajectories had in an earlier store, or None.
std::int64_t extend(const ReplayStore& self, const py::object& columns, const py::object& id) {
  std::vector<py::str> keys{"observation", "action", "reward", "terminated", "truncated",
                            "length",      "task",   "origin", "protected"};
  if (!self.step_names.empty()) keys.emplace_back("step");
  const std::vector<py::object> values = values_of(columns, keys, "columns");
  const std::int64_t count = rows_of(values[5], "length", "trajectory");
  const auto words = [&]<typename Word>(const py::object& value, const char* name, DType dtype) {
    return std::span(reinterpret_cast<const Word*>(read(value, {name, nullptr, dtype, {count}, {}})),
                     static_cast<std::size_t>(count));
  };
  const auto given = words.operator()<std::int64_t>(values[5], "length", DType::int64);
  const auto task = words.operator()<std::int32_t>(values[6], "task", DType::int32);
  const auto origin = words.operator()<std::int64_t>(values[7], "origin", DType::int64);
  const auto is_protected = words.operator()<std::uint8_t>(values[8], "protected", DType::boolean);
  // Copied: the rows that are read stay those that were checked, whoever else may write into the array.
  const std::vector<std::int64_t> lengths(given.begin(), given.end());
  std::int64_t steps = 0;
  for (const std::int64_t length : lengths) {
    if (length < 1 || length > max_rows - steps) {
      throw py::value_error("length: expected at least 1 step, and no more in all than the arrays have rows; got " +
                            std::to_string(length));
    }
    steps += length;
  }
  std::vector<TrajectoryInfo> info;
  info.reserve(lengths.size());
  for (std::size_t i = 0; i < lengths.size(); ++i) info.push_back({task[i], is_protected[i] != 0, origin[i], {}});
  if (!id.is_none()) {
    const auto earlier = words.operator()<std::int64_t>(id, "id", DType::int64);
    for (std::size_t i = 0; i < lengths.size(); ++i) info[i].id = earlier[i];
  }
  std::vector<const std::byte*> memory;
  const auto held = self.read_observation(values[0], {steps + count}, memory);
  const py::object step = self.step_names.empty() ? py::none() : values.back();
  const auto step_arrays = self.read_steps({values[1], values[2], values[3], values[4]}, step, steps, memory);
  const py::gil_scoped_release release;
  self.store->extend(memory, lengths, info);
  return count;
}

py::dict drain(const ReplayStore& self) {
  Store& store = *self.store;
  if (store.on_disk()) {
    throw std::runtime_error("a replay in a directory cannot be drained: other processes may read there what it holds");
  }
  while (true) {
    std::vector<std::shared_ptr<const Trajectory>> trajectories = store.snapshot().trajectories;
    // Room for them first, so that they stay where there is none.
    ColumnArrays columns(store.layout(), trajectories);
    describe(trajectories, columns.values);
    // Else somebody has committed since; no thread of Python can do so again while this one holds the GIL.
    if (!store.clear(trajectories)) continue;
    {
      const py::gil_scoped_release release;
      columns.fill(store.layout(), trajectories);
      trajectories.clear();
    }
    return columns.values;
  }
}

// The actions of all stored trajectories, one after the other.
py::array actions(const ReplayStore& self) {
  const auto trajectories = self.store->snapshot().trajectories;
  const Layout& layout = self.store->layout();
  const Column& column = layout.columns()[layout.action()];
  std::int64_t steps = 0;
  for (const auto& trajectory : trajectories) steps += trajectory->length;
  py::array array = make_array(column.field.dtype, {&steps, 1}, column.field.shape);
  auto* target = static_cast<std::byte*>(array.mutable_data());
  const py::gil_scoped_release release;
  for (const auto& trajectory : trajectories) {  // an action is never compressed
    trajectory->data.read(layout, layout.action(), 0, trajectory->length, target);
    target += static_cast<std::size_t>(trajectory->length) * column.row_bytes;
  }
  return array;
}

py::dict table(const ReplayStore& self) {
  const Snapshot snapshot = self.store->snapshot();
  py::dict result;
  result["id"] = ids(snapshot.trajectories);
  describe(snapshot.trajectories, result);
  result["return"] =
      each<double>(snapshot.trajectories, [](const Trajectory& trajectory) { return trajectory.total_reward; });
  result["priority"] =
      py::array_t<double>(static_cast<py::ssize_t>(snapshot.priorities.size()), snapshot.priorities.data());
  return result;
}

py::dict get(const ReplayStore& self, std::int64_t id) {
  const auto trajectory = self.store->find(id);
  if (trajectory == nullptr) {
    throw py::key_error("trajectory " + std::to_string(id) +
                        " is not stored: it never was, or it has left the replay, or its file was removed");
  }
  py::dict result = copy_columns(self.store->layout(), std::array{trajectory});
  result["task"] = trajectory->task;
  return result;
}

py::dict snapshot(const ReplayStore& self) {
  const Snapshot snapshot = self.store->snapshot();
  py::dict result = copy_columns(self.store->layout(), snapshot.trajectories);
  describe(snapshot.trajectories, result);
  result["id"] = ids(snapshot.trajectories);
  result["priority"] =
      py::array_t<double>(static_cast<py::ssize_t>(snapshot.priorities.size()), snapshot.priorities.data());
  result["random_state"] = snapshot.random;
  const Counters& counters = snapshot.counters;
  result["counters"] = py::make_tuple(counters.next_id, counters.evicted_trajectories, counters.evicted_steps);
  return result;
}

py::dict stats(const ReplayStore& self) {
  const Stats stats = self.store->stats();
  py::dict result;
  result["trajectories"] = stats.trajectories;
  result["protected_trajectories"] = stats.protected_trajectories;
  result["steps"] = stats.steps;
  result["bytes"] = stats.bytes;
  result["evicted_trajectories"] = stats.counters.evicted_trajectories;
  result["evicted_steps"] = stats.counters.evicted_steps;
  result["open_trajectories"] = stats.open_trajectories;
  result["problems"] = stats.problems;
  return result;
}

std::int64_t set_priorities(const ReplayStore& self, const py::array& ids, const py::array& priorities) {
  const std::int64_t count = ids.size();
  const auto* id = reinterpret_cast<const std::int64_t*>(read(ids, {"ids", nullptr, DType::int64, {count}, {}}));
  const auto* priority =
      reinterpret_cast<const double*>(read(priorities, {"priorities", nullptr, DType::float64, {count}, {}}));
  const py::gil_scoped_release release;
  return self.store->set_priorities({id, static_cast<std::size_t>(count)}, {priority, static_cast<std::size_t>(count)});
}

}  // namespace

py::list pairs(const std::vector<Problem>& problems) {
  py::list result;
  for (const Problem& problem : problems) result.append(py::make_tuple(decoded(problem.file), decoded(problem.what)));
  return result;
}

void bind_replay_store(py::module_& module) {
  using namespace py::literals;
  using Released = py::call_guard<py::gil_scoped_release>;
  ReplayStoreClass store(module, "ReplayStore");
  store
      .def(py::init(&make_store), "observation"_a, "action"_a, "step"_a, py::kw_only(), "capacity_steps"_a,
           "capacity_bytes"_a, "capacity_trajectories"_a, "seed"_a, "threads"_a, "directory"_a, "mode"_a,
           "segment_bytes"_a, "durable"_a, "keep_evicted"_a, "skip_corrupt"_a)
      .def("add", &add, "observation"_a, "action"_a, "reward"_a, "terminated"_a, "truncated"_a, "step"_a, "task"_a,
           "protect"_a, "origin"_a, "trajectory"_a)
      .def("extend", &extend, "columns"_a, "ids"_a)
      .def("drain", &drain)
      .def("table", &table)
      .def("actions", &actions)
      .def("get", &get, "trajectory"_a)
      .def("snapshot", &snapshot)
      .def("stats", &stats)
      .def("set_priorities", &set_priorities, "ids"_a, "priorities"_a)
      .def(
          "refresh", [](ReplayStore& self) { self.store->refresh(); }, Released())
      .def(
          "evicted_files", [](const ReplayStore& self) { return self.store->evicted_files(); }, Released())
      .def(
          "reclaim",
          [](ReplayStore& self, const std::vector<std::string>& names) { return self.store->reclaim(names); },
          "names"_a, Released())
      .def(
          "sync", [](ReplayStore& self) { self.store->sync(); }, Released())
      .def("position", [](const ReplayStore& self) { return self.store->position(); })
      .def("verify",
           [](const ReplayStore& self) {
             std::vector<Problem> problems;
             {
               const py::gil_scoped_release release;
               problems = self.store->verify();
             }
             return pairs(problems);
           })
      .def(
          "close", [](ReplayStore& self) { self.store->close(); }, Released())
      .def(
          "clear", [](ReplayStore& self) { self.store->clear(); }, Released())
      .def(
          "resume",
          [](ReplayStore& self, std::int64_t next_id, std::int64_t evicted_trajectories, std::int64_t evicted_steps) {
            self.store->resume({next_id, evicted_trajectories, evicted_steps});
          },
          "next_id"_a, "evicted_trajectories"_a, "evicted_steps"_a)
      .def_property(
          "random_state", [](const ReplayStore& self) { return self.store->random_state(); },
          [](ReplayStore& self, const RandomState& state) { self.store->set_random_state(state); });
  bind_replay_sampling(store);
}

}  // namespace twohot
