#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>

#include "bindings/arrays.h"
#include "bindings/enumerator.h"
#include "bindings/replay_store.h"
#include "replay/checks.h"

namespace py = pybind11;

namespace twohot {
namespace {

// The memory of a batch, given as a dict of arrays that `held` keeps alive.
BatchMemory read_batch(const ReplayStore& self, const Request& request, bool pad_left, const py::dict& out,
                       std::vector<py::object>& held) {
  const Layout& layout = self.store->layout();
  const std::int64_t windows = request.count;
  const std::int64_t steps = request.length + request.lookahead;
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
  batch.lookahead = request.lookahead;
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
  fields("step", self.step_names, layout.step_fields(), steps, batch.step);
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

Request make_request(std::int64_t batch_size, std::int64_t length, std::int64_t lookahead, const std::string& by,
                     const std::string& window, std::optional<double> half_life) {
  return {batch_size,
          length,
          lookahead,
          enumerator<Sampling>("by", {"trajectory", "step", "recency", "priority", "task"}, by),
          enumerator<WindowAnchor>("window", {"anywhere", "start", "end"}, window),
          half_life};
}

void sample(ReplayStore& self, std::int64_t batch_size, std::int64_t length, std::int64_t lookahead,
            const std::string& by, const std::string& window, std::optional<double> half_life, bool pad_left,
            const py::dict& out) {
  const Request request = make_request(batch_size, length, lookahead, by, window, half_life);
  std::vector<py::object> held;
  const BatchMemory batch = read_batch(self, request, pad_left, out, held);
  const py::gil_scoped_release release;
  self.sampler.sample(request, batch);
}

// Drawn windows, and copies of the whole trajectories that they come from, for pack().
py::dict draw(const ReplayStore& self, std::int64_t batch_size, std::int64_t length, std::int64_t lookahead,
              const std::string& by, const std::string& window, std::optional<double> half_life) {
  const Request request = make_request(batch_size, length, lookahead, by, window, half_life);
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
  result["id"] = ids(trajectories);
  result["start"] = each<std::int64_t>(pointers, [](const Window& drawn) { return drawn.start; });
  result["probability"] = each<double>(pointers, [](const Window& drawn) { return drawn.probability; });
  return result;
}

// Packs windows of trajectories that draw() gave and somebody changed.
void pack(ReplayStore& self, const py::dict& drawn, std::int64_t length, std::int64_t lookahead, bool pad_left,
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
  const auto step_arrays =
      self.read_steps({get("action"), get("reward"), get("terminated"), get("truncated")}, step, steps, columns);
  const Request request{count, length, lookahead};
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
    auto trajectory = std::make_shared<Trajectory>(TrajectoryData(layout, length_of[i]), task_of[i]);
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const Column& target = layout.columns()[c];
      const std::size_t bytes = static_cast<std::size_t>(length_of[i] + target.extra_rows) * target.row_bytes;
      std::memcpy(trajectory->data.owned_column(layout, c), columns[c], bytes);
      columns[c] += bytes;
    }
    trajectory->id = id_of[i];
    trajectory->origin = origin_of[i];
    const std::int64_t counted = std::min(length, length_of[i] - start_of[i]);
    const std::int64_t further = std::min(lookahead, length_of[i] - start_of[i] - counted);
    windows.push_back({std::move(trajectory), start_of[i], counted, further, probability_of[i]});
  }
  self.sampler.pack(windows, batch);
}

}  // namespace

void bind_replay_sampling(ReplayStoreClass& store) {
  using namespace py::literals;
  store
      .def("sample", &sample, "batch_size"_a, "length"_a, "lookahead"_a, "by"_a, "window"_a, "half_life"_a,
           "pad_left"_a, "out"_a)
      .def("draw", &draw, "batch_size"_a, "length"_a, "lookahead"_a, "by"_a, "window"_a, "half_life"_a)
      .def("pack", &pack, "drawn"_a, "length"_a, "lookahead"_a, "pad_left"_a, "out"_a);
}

}  // namespace twohot
