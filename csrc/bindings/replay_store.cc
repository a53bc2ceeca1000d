#include "bindings/replay_store.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>

#include "bindings/arrays.h"
#include "bindings/enumerator.h"

namespace py = pybind11;

namespace twohot {
namespace {

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

std::int64_t add(const ReplayStore& self, const py::object& observation, const py::object& action,
                 const py::object& reward, const py::object& terminated, const py::object& truncated,
                 const py::object& step, std::int32_t task, bool protect, std::int64_t origin,
                 std::optional<std::int64_t> id) {
  if (!py::isinstance<py::array>(action)) {
    throw py::type_error(std::string("action: expected an array, got ") + Py_TYPE(action.ptr())->tp_name);
  }
  const auto rows = py::reinterpret_borrow<py::array>(action);
  if (rows.ndim() == 0) throw py::value_error("action: expected one row for each step, got an array without axes");
  const std::int64_t steps = rows.shape(0);
  std::vector<const std::byte*> columns;
  const auto held = self.read_observation(observation, {steps + 1}, columns);
  const auto step_arrays = self.read_steps({action, reward, terminated, truncated}, step, steps, columns);
  const py::gil_scoped_release release;
  return self.store->add(columns, steps, {task, protect, origin, id});
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
  describe(snapshot.trajectories, result);
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
