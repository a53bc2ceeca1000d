#include "bindings/replay.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "core/files.h"
#include "replay/checks.h"
#include "replay/sampler.h"
#include "replay/store.h"
#include "replay/writer.h"

namespace py = pybind11;

namespace twohot {
namespace {

using FieldTuple = std::tuple<std::string, std::string, std::vector<std::int64_t>, bool, std::string>;

Schema make_schema(const std::vector<FieldTuple>& observation, const FieldTuple& action,
                   const std::vector<FieldTuple>& step) {
  const auto make = [](const FieldTuple& field) {
    const auto& [name, dtype, shape, nan, codec] = field;
    return Field{name, dtype_named(dtype), shape, nan, codec};
  };
  Schema schema;
  for (const FieldTuple& field : observation) schema.observation.push_back(make(field));
  schema.action = make(action);
  for (const FieldTuple& field : step) schema.step.push_back(make(field));
  return schema;
}

// The choice that a name stands for.
template <typename Choice>
Choice named(const char* what, const std::string& name, std::initializer_list<std::pair<const char*, Choice>> choices) {
  std::string known;
  for (const auto& [text, choice] : choices) {
    if (name == text) return choice;
    known += (known.empty() ? "'" : ", '") + std::string(text) + "'";
  }
  throw py::value_error(std::string(what) + ": expected one of " + known + "; got '" + name + "'");
}

Law law_named(const std::string& name) {
  return named<Law>("by", name,
                    {{"trajectory", Law::trajectory},
                     {"step", Law::step},
                     {"recency", Law::recency},
                     {"priority", Law::priority},
                     {"task", Law::task}});
}

Placement placement_named(const std::string& name) {
  return named<Placement>("window", name,
                          {{"anywhere", Placement::anywhere}, {"start", Placement::start}, {"end", Placement::end}});
}

std::optional<Place> make_place(const std::optional<std::string>& directory, const std::string& access,
                                std::size_t segment_bytes, bool durable, bool keep_evicted, bool skip_damage) {
  if (!directory) return std::nullopt;
  const bool made = access == "create";
  const auto use = made ? Access::append
                        : named<Access>("mode", access,
                                        {{"read", Access::read}, {"append", Access::append}, {"write", Access::write}});
  return Place{*directory, use, segment_bytes, durable, keep_evicted, skip_damage, made};
}

// A store with its sampler, and the Python strings that its arguments are looked up by.
class ReplayStore {
 public:
  ReplayStore(const std::vector<FieldTuple>& observation, const FieldTuple& action, const std::vector<FieldTuple>& step,
              std::optional<std::int64_t> capacity_steps, std::optional<std::int64_t> capacity_bytes,
              std::optional<std::int64_t> capacity_trajectories, std::uint64_t seed, int threads,
              const std::optional<std::string>& directory, const std::string& access, std::size_t segment_bytes,
              bool durable, bool keep_evicted, bool skip_damage)
      : store(new Store(make_schema(observation, action, step),
                        Capacity{capacity_steps, capacity_bytes, capacity_trajectories}, seed,
                        make_place(directory, access, segment_bytes, durable, keep_evicted, skip_damage)),
              ProcessDelete()),
        sampler(store, threads) {
    const Layout& layout = store->layout();
    for (std::size_t c = 0; c < layout.observations(); ++c) names.emplace_back(layout.columns()[c].field.name);
    for (std::size_t c = layout.others(); c < layout.columns().size(); ++c) {
      step_names.emplace_back(layout.columns()[c].field.name);
    }
  }

  // Appends the memory of the observation arrays, each of `leading` axes, to `columns`. The arrays that it returns keep
  // that memory alive, even where the dict changes while the GIL is released.
  [[nodiscard]] std::vector<py::object> read_observation(py::handle observation,
                                                         std::initializer_list<std::int64_t> leading,
                                                         std::vector<const std::byte*>& columns) const {
    std::vector<py::object> values = values_of(observation, names, "observation");
    for (std::size_t c = 0; c < values.size(); ++c) {
      const Field& field = store->layout().columns()[c].field;
      columns.push_back(read(values[c], {"observation", &field.name, field.dtype, leading, field.shape}));
    }
    return values;
  }

  // Appends the memory of the step arrays, each of `rows` rows, in the order of the layout; returns as above.
  [[nodiscard]] std::vector<py::object> read_steps(std::initializer_list<py::handle> values, const py::object& step,
                                                   std::int64_t rows, std::vector<const std::byte*>& columns) const {
    const Column* column = &store->layout().columns()[store->layout().action()];
    const auto append = [&](py::handle value, const char* kind) {
      const Field& field = (column++)->field;
      columns.push_back(read(value, {kind == nullptr ? field.name.c_str() : kind,
                                     kind == nullptr ? nullptr : &field.name,
                                     field.dtype,
                                     {rows},
                                     field.shape}));
    };
    for (const py::handle value : values) append(value, nullptr);
    if (step.is_none() && step_names.empty()) return {};
    std::vector<py::object> others = values_of(step, step_names, "step");
    for (const py::object& other : others) append(other, "step");
    return others;
  }

  std::shared_ptr<Store> store;
  Sampler sampler;
  std::vector<py::str> names;
  std::vector<py::str> step_names;
};

class ReplayWriter {
 public:
  ReplayWriter(std::shared_ptr<ReplayStore> store, std::int64_t environments, std::int64_t piece_steps,
               std::int64_t overlap_steps)
      : store_(std::move(store)), writer_(new Writer(store_->store, environments, {piece_steps, overlap_steps})) {}

  void begin(const py::object& observation, const py::object& mask, const py::object& task) {
    std::vector<const std::byte*> columns;
    const auto held = store_->read_observation(observation, {writer_->environments()}, columns);
    const std::uint8_t* active = read_mask(mask);
    const std::int32_t* labels = nullptr;
    if (!task.is_none()) {
      labels = reinterpret_cast<const std::int32_t*>(
          read(task, {"task", nullptr, DType::int32, {writer_->environments()}, {}}));
    }
    const py::gil_scoped_release release;
    writer_->begin(columns, active, labels);
  }

  void append(const py::object& action, const py::object& reward, const py::object& terminated,
              const py::object& truncated, const py::object& observation, const py::object& step,
              const py::object& mask) {
    std::vector<const std::byte*> columns;
    columns.reserve(store_->store->layout().columns().size());
    const auto held = store_->read_observation(observation, {writer_->environments()}, columns);
    const auto others =
        store_->read_steps({action, reward, terminated, truncated}, step, writer_->environments(), columns);
    const std::uint8_t* active = read_mask(mask);
    const py::gil_scoped_release release;
    writer_->append(columns, active);
  }

  void cut() { writer_->cut(); }
  void discard(const py::object& mask) {
    const std::uint8_t* active = read_mask(mask);
    const py::gil_scoped_release release;
    writer_->discard(active);
  }

 private:
  const std::uint8_t* read_mask(const py::object& mask) const {
    if (mask.is_none()) return nullptr;
    return reinterpret_cast<const std::uint8_t*>(
        read(mask, {"mask", nullptr, DType::boolean, {writer_->environments()}, {}}));
  }

  std::shared_ptr<ReplayStore> store_;
  std::unique_ptr<Writer, ProcessDelete> writer_;
};

std::int64_t insert(const ReplayStore& self, const py::object& observation, const py::object& action,
                    const py::object& reward, const py::object& terminated, const py::object& truncated,
                    const py::object& step, std::int32_t task, bool kept, std::int64_t origin,
                    std::optional<std::int64_t> id) {
  if (!py::isinstance<py::array>(action)) {
    throw py::type_error(std::string("action: expected an array, got ") + Py_TYPE(action.ptr())->tp_name);
  }
  const auto rows = py::reinterpret_borrow<py::array>(action);
  if (rows.ndim() == 0) throw py::value_error("action: expected one row for each step, got an array without axes");
  const std::int64_t steps = rows.shape(0);
  std::vector<const std::byte*> columns;
  const auto held = self.read_observation(observation, {steps + 1}, columns);
  const auto others = self.read_steps({action, reward, terminated, truncated}, step, steps, columns);
  const py::gil_scoped_release release;
  return self.store->insert(columns, steps, {task, kept, origin, id});
}

// The memory of a batch, given as a dict of arrays that `held` keeps alive.
BatchMemory read_batch(const ReplayStore& self, const Request& request, bool pad_left, const py::dict& out,
                       std::vector<py::object>& held) {
  const Layout& layout = self.store->layout();
  const std::int64_t windows = request.count;
  const std::int64_t steps = request.length + request.ahead;
  const auto get = [&](const char* name) {
    held.push_back(find(out, py::str(name)));
    if (!held.back()) throw py::value_error(std::string("out: '") + name + "' is missing");
    return py::handle(held.back());
  };
  const auto array = [&](const char* name, DType dtype, std::initializer_list<std::int64_t> leading) {
    return write(get(name), {name, nullptr, dtype, leading, {}});
  };
  BatchMemory batch{};
  batch.batch_size = windows;
  batch.length = request.length;
  batch.ahead = request.ahead;
  batch.pad_left = pad_left;
  const auto fields = [&](const char* kind, const std::vector<py::str>& names, std::size_t column, std::int64_t rows,
                          std::vector<std::byte*>& targets) {
    for (py::object& value : values_of(get(kind), names, (std::string("out ") + kind).c_str())) {
      const Field& field = layout.columns()[column++].field;
      targets.push_back(write(value, {kind, &field.name, field.dtype, {windows, rows}, field.shape}));
      held.push_back(std::move(value));
    }
  };
  fields("observation", self.names, 0, steps + 1, batch.observation);
  fields("step", self.step_names, layout.others(), steps, batch.other);
  const Field& action = layout.columns()[layout.action()].field;
  batch.previous_action =
      write(get("previous_action"), {"previous_action", nullptr, action.dtype, {windows, steps + 1}, action.shape});
  batch.previous_reward = array("previous_reward", DType::float32, {windows, steps + 1});
  batch.time = reinterpret_cast<std::int32_t*>(array("time", DType::int32, {windows, steps + 1}));
  batch.action = write(get("action"), {"action", nullptr, action.dtype, {windows, steps}, action.shape});
  batch.reward = array("reward", DType::float32, {windows, steps});
  batch.terminated = array("terminated", DType::boolean, {windows, steps});
  batch.truncated = array("truncated", DType::boolean, {windows, steps});
  batch.mask = array("mask", DType::boolean, {windows, steps});
  batch.task = reinterpret_cast<std::int32_t*>(array("task", DType::int32, {windows}));
  batch.trajectory = reinterpret_cast<std::int64_t*>(array("trajectory", DType::int64, {windows}));
  batch.start = reinterpret_cast<std::int64_t*>(array("start", DType::int64, {windows}));
  batch.probability = reinterpret_cast<double*>(array("probability", DType::float64, {windows}));
  return batch;
}

Request make_request(std::int64_t batch_size, std::int64_t length, std::int64_t ahead, const std::string& by,
                     const std::string& window, std::optional<double> half_life) {
  return {batch_size, length, ahead, law_named(by), placement_named(window), half_life};
}

void sample(ReplayStore& self, std::int64_t batch_size, std::int64_t length, std::int64_t ahead, const std::string& by,
            const std::string& window, std::optional<double> half_life, bool pad_left, const py::dict& out) {
  const Request request = make_request(batch_size, length, ahead, by, window, half_life);
  std::vector<py::object> held;
  const BatchMemory batch = read_batch(self, request, pad_left, out, held);
  const py::gil_scoped_release release;
  self.sampler.sample(request, batch);
}

// One array for each column of `trajectories`, one behind the other, as a dict that insert() takes.
template <typename Trajectories>
py::dict copy_columns(const Layout& layout, const Trajectories& trajectories) {
  std::int64_t steps = 0;
  for (const auto& trajectory : trajectories) steps += trajectory->length;
  py::dict observation;
  py::dict step;
  py::dict result;
  std::vector<std::byte*> targets;
  for (const Column& column : layout.columns()) {
    const std::int64_t rows = steps + column.extra_rows * static_cast<std::int64_t>(trajectories.size());
    py::array array = make_array(column.field.dtype, {&rows, 1}, column.field.shape);
    const py::dict& home = targets.size() < layout.observations() ? observation
                           : targets.size() < layout.others()     ? result
                                                                  : step;
    targets.push_back(static_cast<std::byte*>(array.mutable_data()));
    home[py::str(column.field.name)] = array;
  }
  result["observation"] = observation;
  if (!step.empty()) result["step"] = step;
  const py::gil_scoped_release release;
  for (std::size_t c = 0; c < targets.size(); ++c) {
    const Column& column = layout.columns()[c];
    for (const auto& trajectory : trajectories) {
      const std::int64_t rows = trajectory->length + column.extra_rows;
      if (!trajectory->rows.read(layout, c, 0, rows, targets[c])) {
        throw DamageError("the trajectory with id " + std::to_string(trajectory->id) + " cannot be decompressed");
      }
      targets[c] += static_cast<std::size_t>(rows) * column.row_bytes;
    }
  }
  return result;
}

// The actions of all stored trajectories, one behind the other.
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
    trajectory->rows.read(layout, layout.action(), 0, trajectory->length, target);
    target += static_cast<std::size_t>(trajectory->length) * column.row_bytes;
  }
  return array;
}

template <typename Value, typename Values, typename Get>
py::array_t<Value> each(const Values& values, Get get) {
  py::array_t<Value> result(static_cast<py::ssize_t>(values.size()));
  Value* at = result.mutable_data();
  for (const auto& value : values) *at++ = get(*value);
  return result;
}

// What is known of each trajectory beside its columns.
template <typename Trajectories>
void describe(const Trajectories& trajectories, py::dict& result) {
  result["id"] = each<std::int64_t>(trajectories, [](const Trajectory& trajectory) { return trajectory.id; });
  result["task"] = each<std::int32_t>(trajectories, [](const Trajectory& trajectory) { return trajectory.task; });
  result["length"] = each<std::int64_t>(trajectories, [](const Trajectory& trajectory) { return trajectory.length; });
  result["return"] = each<double>(trajectories, [](const Trajectory& trajectory) { return trajectory.total_reward; });
  result["origin"] = each<std::int64_t>(trajectories, [](const Trajectory& trajectory) { return trajectory.origin; });
  result["protected"] = each<bool>(trajectories, [](const Trajectory& trajectory) { return trajectory.kept; });
}

py::dict table(const ReplayStore& self) {
  const Snapshot snapshot = self.store->snapshot();
  py::dict result;
  describe(snapshot.trajectories, result);
  result["priority"] =
      snapshot.priorities.empty() ? py::array_t<double>() : py::array_t<double>(py::cast(snapshot.priorities));
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

// Drawn windows, and copies of the whole trajectories that they come from, for pack().
py::dict draw(const ReplayStore& self, std::int64_t batch_size, std::int64_t length, std::int64_t ahead,
              const std::string& by, const std::string& window, std::optional<double> half_life) {
  const Request request = make_request(batch_size, length, ahead, by, window, half_life);
  std::vector<Window> windows;
  {
    const py::gil_scoped_release release;
    windows = self.store->draw(request);
  }
  std::vector<std::shared_ptr<const Trajectory>> trajectories;
  std::vector<const Window*> pointers;
  for (const Window& each : windows) {
    trajectories.push_back(each.trajectory);
    pointers.push_back(&each);
  }
  py::dict result = copy_columns(self.store->layout(), trajectories);
  describe(trajectories, result);
  result["start"] = each<std::int64_t>(pointers, [](const Window& drawn) { return drawn.start; });
  result["probability"] = each<double>(pointers, [](const Window& drawn) { return drawn.probability; });
  return result;
}

// Packs windows of trajectories that draw() gave and somebody changed.
void pack(ReplayStore& self, const py::dict& drawn, std::int64_t length, std::int64_t ahead, bool pad_left,
          const py::dict& out) {
  const Layout& layout = self.store->layout();
  std::vector<py::object> held;
  const auto get = [&](const char* name) {
    held.push_back(find(drawn, py::str(name)));
    if (!held.back()) throw py::value_error(std::string("'") + name + "' is missing");
    return held.back();
  };
  const py::array lengths = py::cast<py::array>(get("length"));
  const auto count = static_cast<std::int64_t>(lengths.size());
  const auto column = [&]<typename Value>(const char* name, DType dtype) {
    return reinterpret_cast<const Value*>(read(get(name), {name, nullptr, dtype, {count}, {}}));
  };
  const auto* length_of = column.template operator()<std::int64_t>("length", DType::int64);
  const auto* start_of = column.template operator()<std::int64_t>("start", DType::int64);
  const auto* id_of = column.template operator()<std::int64_t>("id", DType::int64);
  const auto* origin_of = column.template operator()<std::int64_t>("origin", DType::int64);
  const auto* task_of = column.template operator()<std::int32_t>("task", DType::int32);
  const auto* probability_of = column.template operator()<double>("probability", DType::float64);
  std::int64_t steps = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    if (length_of[i] < 1 || start_of[i] < 0 || start_of[i] >= length_of[i]) {
      throw py::value_error("expected windows that start inside of their trajectories");
    }
    steps += length_of[i];
  }
  std::vector<const std::byte*> columns;
  const auto observation = self.read_observation(get("observation"), {steps + count}, columns);
  const py::object step = self.step_names.empty() ? py::none() : get("step");
  const auto others =
      self.read_steps({get("action"), get("reward"), get("terminated"), get("truncated")}, step, steps, columns);
  const Request request{count, length, ahead};
  const BatchMemory batch = read_batch(self, request, pad_left, out, held);
  const py::gil_scoped_release release;
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const Column& changed = layout.columns()[c];
    const std::int64_t rows = steps + changed.extra_rows * count;
    if (c == layout.reward() && first_not_finite(columns[c], rows, nullptr) >= 0) {
      throw std::invalid_argument("relabel: expected finite rewards, got one that is not");
    }
    if (first_nan(changed, columns[c], rows, nullptr) >= 0) {
      throw std::invalid_argument("relabel: '" + changed.field.name + "' is NaN, which its field does not allow");
    }
  }
  std::vector<Window> windows;
  for (std::int64_t i = 0; i < count; ++i) {
    auto trajectory = std::make_shared<Trajectory>(Rows(layout, length_of[i]), task_of[i]);
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const Column& target = layout.columns()[c];
      const std::size_t bytes = static_cast<std::size_t>(length_of[i] + target.extra_rows) * target.row_bytes;
      std::memcpy(trajectory->rows.owned_column(layout, c), columns[c], bytes);
      columns[c] += bytes;
    }
    trajectory->id = id_of[i];
    trajectory->origin = origin_of[i];
    const std::int64_t counted = std::min(length, length_of[i] - start_of[i]);
    const std::int64_t further = std::min(ahead, length_of[i] - start_of[i] - counted);
    windows.push_back({std::move(trajectory), start_of[i], counted, further, probability_of[i]});
  }
  self.sampler.pack(windows, batch);
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
  result["protected_trajectories"] = stats.kept_trajectories;
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

py::list pairs(const std::vector<Problem>& problems) {
  py::list result;
  for (const Problem& problem : problems) result.append(py::make_tuple(decoded(problem.file), decoded(problem.what)));
  return result;
}

// Errors of the system as Python's own, and damage as the package's error for it.
void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const FileError& error) {
    const py::object value = py::reinterpret_borrow<py::object>(PyExc_OSError)(
        error.code(), std::strerror(error.code()), decoded(error.path()));
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(value.ptr())), value.ptr());
  } catch (const DamageError& error) {
    const py::object type = py::module_::import("twohot.errors").attr("DamagedReplayError");
    PyErr_SetObject(type.ptr(), decoded(error.what()).ptr());
  } catch (const py::builtin_exception&) {
    throw;
  } catch (const std::runtime_error& error) {  // whose text may name a path
    PyErr_SetObject(PyExc_RuntimeError, decoded(error.what()).ptr());
  }
}

}  // namespace

void bind_replay(py::module_& module) {
  using namespace py::literals;
  using Released = py::call_guard<py::gil_scoped_release>;
  py::register_local_exception_translator(&translate);
  py::class_<ReplayStore, std::shared_ptr<ReplayStore>>(module, "ReplayStore")
      .def(
          py::init<const std::vector<FieldTuple>&, const FieldTuple&, const std::vector<FieldTuple>&,
                   std::optional<std::int64_t>, std::optional<std::int64_t>, std::optional<std::int64_t>, std::uint64_t,
                   int, const std::optional<std::string>&, const std::string&, std::size_t, bool, bool, bool>(),
          "observation"_a, "action"_a, "step"_a, py::kw_only(), "capacity_steps"_a, "capacity_bytes"_a,
          "capacity_trajectories"_a, "seed"_a, "threads"_a, "directory"_a, "mode"_a, "segment_bytes"_a, "durable"_a,
          "keep_evicted"_a, "skip_damage"_a)
      .def("insert", &insert, "observation"_a, "action"_a, "reward"_a, "terminated"_a, "truncated"_a, "step"_a,
           "task"_a, "protect"_a, "origin"_a, "id"_a)
      .def("sample", &sample, "batch_size"_a, "length"_a, "lookahead"_a, "by"_a, "window"_a, "half_life"_a,
           "pad_left"_a, "out"_a)
      .def("draw", &draw, "batch_size"_a, "length"_a, "lookahead"_a, "by"_a, "window"_a, "half_life"_a)
      .def("pack", &pack, "drawn"_a, "length"_a, "lookahead"_a, "pad_left"_a, "out"_a)
      .def("table", &table)
      .def("actions", &actions)
      .def("get", &get, "id"_a)
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
      .def("extents", [](const ReplayStore& self) { return self.store->extents(); })
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
  py::class_<ReplayWriter>(module, "ReplayWriter")
      .def(py::init<std::shared_ptr<ReplayStore>, std::int64_t, std::int64_t, std::int64_t>(), "store"_a,
           "environments"_a, "piece_steps"_a, "overlap_steps"_a)
      .def("begin", &ReplayWriter::begin, "observation"_a, "mask"_a, "task"_a)
      .def("append", &ReplayWriter::append, "action"_a, "reward"_a, "terminated"_a, "truncated"_a, "observation"_a,
           "step"_a, "mask"_a)
      .def("cut", &ReplayWriter::cut, Released())
      .def("discard", &ReplayWriter::discard, "mask"_a);
  module.def("roll_back", &roll_back, "directory"_a, "extents"_a, "kept"_a, Released());
  module.def(
      "repair",
      [](const std::string& directory, const std::vector<FieldTuple>& observation, const FieldTuple& action,
         const std::vector<FieldTuple>& step) {
        const Layout layout(make_schema(observation, action, step));
        return pairs(repair(directory, layout));
      },
      "directory"_a, "observation"_a, "action"_a, "step"_a);
}

}  // namespace twohot
