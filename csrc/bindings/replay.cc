#include "bindings/replay.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "core/sampler.h"
#include "core/store.h"
#include "core/writer.h"

namespace py = pybind11;

namespace twohot {
namespace {

using FieldTuple = std::tuple<std::string, std::string, std::vector<std::int64_t>>;

Schema make_schema(const std::vector<FieldTuple>& observation, const FieldTuple& action) {
  const auto make = [](const FieldTuple& field) {
    const auto& [name, dtype, shape] = field;
    return Field{name, dtype_named(dtype), shape};
  };
  Schema schema;
  for (const FieldTuple& field : observation) schema.observation.push_back(make(field));
  schema.action = make(action);
  return schema;
}

// A store with its sampler, and the Python strings that its arguments are looked up by.
class ReplayStore {
 public:
  ReplayStore(const std::vector<FieldTuple>& observation, const FieldTuple& action,
              std::optional<std::int64_t> capacity_steps, std::optional<std::int64_t> capacity_bytes,
              std::uint64_t seed, int threads)
      : store(std::make_shared<Store>(make_schema(observation, action), Capacity{capacity_steps, capacity_bytes},
                                      seed)),
        sampler(store, threads) {
    for (std::size_t c = 0; c < store->layout().observations(); ++c) {
      names.emplace_back(store->layout().columns()[c].field.name);
    }
  }

  // Appends the memory of the observation arrays, each of `leading` axes, to `columns`. The arrays that it returns keep
  // that memory alive, even where the dict changes while the GIL is released.
  [[nodiscard]] std::vector<py::object> read_observation(const py::dict& observation,
                                                         std::initializer_list<std::int64_t> leading,
                                                         std::vector<const std::byte*>& columns) const {
    std::vector<py::object> values = values_of(observation, names, "observation");
    for (std::size_t c = 0; c < values.size(); ++c) {
      const Field& field = store->layout().columns()[c].field;
      columns.push_back(read(values[c], {"observation", &field.name, field.dtype, leading, field.shape}));
    }
    return values;
  }

  // Appends the memory of the step arrays, each of `rows` rows, in the order of the layout.
  void read_steps(std::initializer_list<py::handle> values, std::int64_t rows,
                  std::vector<const std::byte*>& columns) const {
    const Column* column = &store->layout().columns()[store->layout().action()];
    for (const py::handle value : values) {
      const Field& field = (column++)->field;
      columns.push_back(read(value, {field.name.c_str(), nullptr, field.dtype, {rows}, field.shape}));
    }
  }

  std::shared_ptr<Store> store;
  Sampler sampler;
  std::vector<py::str> names;
};

class ReplayWriter {
 public:
  ReplayWriter(std::shared_ptr<ReplayStore> store, std::int64_t environments)
      : store_(std::move(store)), writer_(store_->store, environments) {}

  void begin(const py::dict& observation, const py::object& mask, const py::object& task) {
    std::vector<const std::byte*> columns;
    const auto held = store_->read_observation(observation, {writer_.environments()}, columns);
    const std::uint8_t* active = read_mask(mask);
    const std::int32_t* labels = nullptr;
    if (!task.is_none()) {
      labels = reinterpret_cast<const std::int32_t*>(
          read(task, {"task", nullptr, DType::int32, {writer_.environments()}, {}}));
    }
    const py::gil_scoped_release release;
    writer_.begin(columns, active, labels);
  }

  void append(const py::object& action, const py::object& reward, const py::object& terminated,
              const py::object& truncated, const py::dict& observation, const py::object& mask) {
    std::vector<const std::byte*> columns;
    columns.reserve(store_->store->layout().columns().size());
    const auto held = store_->read_observation(observation, {writer_.environments()}, columns);
    store_->read_steps({action, reward, terminated, truncated}, writer_.environments(), columns);
    const std::uint8_t* active = read_mask(mask);
    const py::gil_scoped_release release;
    writer_.append(columns, active);
  }

  void cut() { writer_.cut(); }
  void discard() { writer_.discard(); }

 private:
  const std::uint8_t* read_mask(const py::object& mask) const {
    if (mask.is_none()) return nullptr;
    return reinterpret_cast<const std::uint8_t*>(
        read(mask, {"mask", nullptr, DType::boolean, {writer_.environments()}, {}}));
  }

  std::shared_ptr<ReplayStore> store_;
  Writer writer_;
};

std::int64_t insert(const ReplayStore& self, const py::dict& observation, const py::array& action,
                    const py::object& reward, const py::object& terminated, const py::object& truncated,
                    std::int32_t task) {
  if (action.ndim() == 0) throw py::value_error("action: expected one row for each step, got an array without axes");
  const std::int64_t steps = action.shape(0);
  std::vector<const std::byte*> columns;
  const auto held = self.read_observation(observation, {steps + 1}, columns);
  self.read_steps({action, reward, terminated, truncated}, steps, columns);
  const py::gil_scoped_release release;
  return self.store->insert(columns, steps, task);
}

void sample(ReplayStore& self, std::int64_t batch_size, std::int64_t length, const std::string& by,
            const py::dict& out) {
  if (by != "trajectory" && by != "step") {
    throw py::value_error("by: expected 'trajectory' or 'step', got '" + by + "'");
  }
  const Layout& layout = self.store->layout();
  std::vector<py::object> held;
  const auto get = [&](const char* name) {
    held.push_back(find(out, py::str(name)));
    if (!held.back()) throw py::value_error(std::string("out: '") + name + "' is missing");
    return py::handle(held.back());
  };
  const auto array = [&](const char* name, DType dtype, std::initializer_list<std::int64_t> leading) {
    return write(get(name), {name, nullptr, dtype, leading, {}});
  };
  BatchMemory batch{};
  batch.batch_size = batch_size;
  batch.length = length;
  const std::vector<py::object> observation =
      values_of(py::cast<py::dict>(get("observation")), self.names, "out observation");
  for (std::size_t c = 0; c < observation.size(); ++c) {
    const Field& field = layout.columns()[c].field;
    batch.observation.push_back(
        write(observation[c], {"observation", &field.name, field.dtype, {batch_size, length + 1}, field.shape}));
  }
  const Field& action = layout.columns()[layout.action()].field;
  batch.previous_action = write(get("previous_action"), {"previous_action", nullptr, action.dtype,
                                                         {batch_size, length + 1}, action.shape});
  batch.previous_reward = array("previous_reward", DType::float32, {batch_size, length + 1});
  batch.time = reinterpret_cast<std::int32_t*>(array("time", DType::int32, {batch_size, length + 1}));
  batch.action = write(get("action"), {"action", nullptr, action.dtype, {batch_size, length}, action.shape});
  batch.reward = array("reward", DType::float32, {batch_size, length});
  batch.terminated = array("terminated", DType::boolean, {batch_size, length});
  batch.truncated = array("truncated", DType::boolean, {batch_size, length});
  batch.mask = array("mask", DType::boolean, {batch_size, length});
  batch.task = reinterpret_cast<std::int32_t*>(array("task", DType::int32, {batch_size}));
  batch.trajectory = reinterpret_cast<std::int64_t*>(array("trajectory", DType::int64, {batch_size}));
  batch.start = reinterpret_cast<std::int64_t*>(array("start", DType::int64, {batch_size}));
  const py::gil_scoped_release release;
  self.sampler.sample(by == "step" ? Law::step : Law::trajectory, batch);
}

// One array for each column of `trajectories`, one behind the other, as a dict that insert() takes.
py::dict copy_columns(const Layout& layout, const std::vector<std::shared_ptr<const Trajectory>>& trajectories) {
  std::int64_t steps = 0;
  for (const auto& trajectory : trajectories) steps += trajectory->length;
  py::dict observation;
  py::dict result;
  std::vector<std::byte*> targets;
  for (const Column& column : layout.columns()) {
    const std::int64_t rows = steps + column.extra_rows * static_cast<std::int64_t>(trajectories.size());
    py::array array = make_array(column.field.dtype, {&rows, 1}, column.field.shape);
    targets.push_back(static_cast<std::byte*>(array.mutable_data()));
    (column.extra_rows != 0 ? observation : result)[py::str(column.field.name)] = array;
  }
  result["observation"] = observation;
  const py::gil_scoped_release release;
  for (std::size_t c = 0; c < targets.size(); ++c) {
    const Column& column = layout.columns()[c];
    for (const auto& trajectory : trajectories) {
      const std::size_t bytes = static_cast<std::size_t>(trajectory->length + column.extra_rows) * column.row_bytes;
      std::memcpy(targets[c], trajectory->block.column(c), bytes);
      targets[c] += bytes;
    }
  }
  return result;
}

template <typename Value, typename Get>
py::array_t<Value> each(const std::vector<std::shared_ptr<const Trajectory>>& trajectories, Get get) {
  py::array_t<Value> result(static_cast<py::ssize_t>(trajectories.size()));
  Value* at = result.mutable_data();
  for (const auto& trajectory : trajectories) *at++ = get(*trajectory);
  return result;
}

const auto length_of = [](const Trajectory& trajectory) { return trajectory.length; };
const auto task_of = [](const Trajectory& trajectory) { return trajectory.task; };
const auto return_of = [](const Trajectory& trajectory) { return trajectory.total_reward; };

py::dict get(const ReplayStore& self, std::int64_t id) {
  const auto trajectory = self.store->find(id);
  if (trajectory == nullptr) throw py::key_error("trajectory " + std::to_string(id) + " is not stored");
  py::dict result = copy_columns(self.store->layout(), {trajectory});
  result["task"] = trajectory->task;
  return result;
}

py::tuple counters_tuple(const Counters& counters) {
  return py::make_tuple(counters.next_id, counters.evicted_trajectories, counters.evicted_steps);
}

py::dict snapshot(const ReplayStore& self) {
  const Snapshot snapshot = self.store->snapshot();
  py::dict result = copy_columns(self.store->layout(), snapshot.trajectories);
  result["length"] = each<std::int64_t>(snapshot.trajectories, length_of);
  result["task"] = each<std::int32_t>(snapshot.trajectories, task_of);
  result["id"] = each<std::int64_t>(snapshot.trajectories, [](const Trajectory& trajectory) { return trajectory.id; });
  result["random_state"] = snapshot.random;
  result["counters"] = counters_tuple(snapshot.counters);
  return result;
}

py::dict stats(const ReplayStore& self) {
  const Stats stats = self.store->stats();
  py::dict result;
  result["trajectories"] = stats.trajectories;
  result["steps"] = stats.steps;
  result["bytes"] = stats.bytes;
  result["evicted_trajectories"] = stats.counters.evicted_trajectories;
  result["evicted_steps"] = stats.counters.evicted_steps;
  result["open_trajectories"] = stats.open_trajectories;
  return result;
}

}  // namespace

void bind_replay(py::module_& module) {
  using namespace py::literals;
  py::class_<ReplayStore, std::shared_ptr<ReplayStore>>(module, "ReplayStore")
      .def(py::init<const std::vector<FieldTuple>&, const FieldTuple&, std::optional<std::int64_t>,
                    std::optional<std::int64_t>, std::uint64_t, int>(),
           "observation"_a, "action"_a, py::kw_only(), "capacity_steps"_a, "capacity_bytes"_a, "seed"_a, "threads"_a)
      .def("insert", &insert, "observation"_a, "action"_a, "reward"_a, "terminated"_a, "truncated"_a, "task"_a)
      .def("sample", &sample, "batch_size"_a, "length"_a, "by"_a, "out"_a)
      .def("lengths", [](const ReplayStore& self) {
        return each<std::int64_t>(self.store->snapshot().trajectories, length_of);
      })
      .def("tasks", [](const ReplayStore& self) {
        return each<std::int32_t>(self.store->snapshot().trajectories, task_of);
      })
      .def("returns", [](const ReplayStore& self) {
        return each<double>(self.store->snapshot().trajectories, return_of);
      })
      .def("get", &get, "id"_a)
      .def("snapshot", &snapshot)
      .def("stats", &stats)
      .def("clear", [](ReplayStore& self) { self.store->clear(); }, py::call_guard<py::gil_scoped_release>())
      .def("resume",
           [](ReplayStore& self, std::int64_t next_id, std::int64_t evicted_trajectories, std::int64_t evicted_steps) {
             self.store->resume({next_id, evicted_trajectories, evicted_steps});
           },
           "next_id"_a, "evicted_trajectories"_a, "evicted_steps"_a)
      .def_property("random_state", [](const ReplayStore& self) { return self.store->random_state(); },
                    [](ReplayStore& self, const RandomState& state) { self.store->set_random_state(state); });
  py::class_<ReplayWriter>(module, "ReplayWriter")
      .def(py::init<std::shared_ptr<ReplayStore>, std::int64_t>(), "store"_a, "environments"_a)
      .def("begin", &ReplayWriter::begin, "observation"_a, "mask"_a, "task"_a)
      .def("append", &ReplayWriter::append, "action"_a, "reward"_a, "terminated"_a, "truncated"_a, "observation"_a,
           "mask"_a)
      .def("cut", &ReplayWriter::cut, py::call_guard<py::gil_scoped_release>())
      .def("discard", &ReplayWriter::discard, py::call_guard<py::gil_scoped_release>());
}

}  // namespace twohot
