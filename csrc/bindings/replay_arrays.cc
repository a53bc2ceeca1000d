#include "bindings/replay_store.h"

#include "bindings/arrays.h"

namespace py = pybind11;

namespace twohot {

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

ReplayStore::ReplayStore(const std::vector<FieldTuple>& observation, const FieldTuple& action,
                         const std::vector<FieldTuple>& step, Capacity capacity, std::uint64_t seed, int threads,
                         std::optional<DirectoryOptions> options)
    : store(new Store(make_schema(observation, action, step), capacity, seed, std::move(options)), ProcessDelete()),
      sampler(store, threads) {
  const Layout& layout = store->layout();
  for (std::size_t c = 0; c < layout.observations(); ++c) names.emplace_back(layout.columns()[c].field.name);
  for (std::size_t c = layout.step_fields(); c < layout.columns().size(); ++c) {
    step_names.emplace_back(layout.columns()[c].field.name);
  }
}

std::vector<py::object> ReplayStore::read_observation(py::handle observation,
                                                      std::initializer_list<std::int64_t> leading,
                                                      std::vector<const std::byte*>& columns) const {
  std::vector<py::object> values = values_of(observation, names, "observation");
  for (std::size_t c = 0; c < values.size(); ++c) {
    const Field& field = store->layout().columns()[c].field;
    columns.push_back(read(values[c], {"observation", &field.name, field.dtype, leading, field.shape}));
  }
  return values;
}

std::vector<py::object> ReplayStore::read_steps(std::initializer_list<py::handle> values, const py::object& step,
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
  std::vector<py::object> step_arrays = values_of(step, step_names, "step");
  for (const py::object& array : step_arrays) append(array, "step");
  return step_arrays;
}

ColumnArrays::ColumnArrays(const Layout& layout, Trajectories trajectories) {
  std::int64_t steps = 0;
  for (const auto& trajectory : trajectories) steps += trajectory->length;
  py::dict observation;
  py::dict step;
  for (const Column& column : layout.columns()) {
    const std::int64_t rows = steps + column.extra_rows * static_cast<std::int64_t>(trajectories.size());
    py::array array = make_array(column.field.dtype, {&rows, 1}, column.field.shape);
    const py::dict& home = memory.size() < layout.observations()  ? observation
                           : memory.size() < layout.step_fields() ? values
                                                                  : step;
    memory.push_back(static_cast<std::byte*>(array.mutable_data()));
    home[py::str(column.field.name)] = array;
  }
  values["observation"] = observation;
  if (!step.empty()) values["step"] = step;
}

void ColumnArrays::fill(const Layout& layout, Trajectories trajectories) {
  for (std::size_t c = 0; c < memory.size(); ++c) {
    const Column& column = layout.columns()[c];
    std::byte* target = memory[c];
    for (const auto& trajectory : trajectories) {
      const std::int64_t rows = trajectory->length + column.extra_rows;
      if (!trajectory->data.read(layout, c, 0, rows, target)) {
        throw CorruptionError("the trajectory with id " + std::to_string(trajectory->id) + " cannot be decompressed");
      }
      target += static_cast<std::size_t>(rows) * column.row_bytes;
    }
  }
}

py::dict copy_columns(const Layout& layout, Trajectories trajectories) {
  ColumnArrays result(layout, trajectories);
  {
    const py::gil_scoped_release release;
    result.fill(layout, trajectories);
  }
  return result.values;
}

void describe(Trajectories trajectories, py::dict& result) {
  result["task"] = each<std::int32_t>(trajectories, [](const Trajectory& trajectory) { return trajectory.task; });
  result["length"] = each<std::int64_t>(trajectories, [](const Trajectory& trajectory) { return trajectory.length; });
  result["origin"] = each<std::int64_t>(trajectories, [](const Trajectory& trajectory) { return trajectory.origin; });
  result["protected"] = each<bool>(trajectories, [](const Trajectory& trajectory) { return trajectory.is_protected; });
}

py::array_t<std::int64_t> ids(Trajectories trajectories) {
  return each<std::int64_t>(trajectories, [](const Trajectory& trajectory) { return trajectory.id; });
}

}  // namespace twohot
