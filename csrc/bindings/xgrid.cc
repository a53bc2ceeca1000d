#include "bindings/xgrid.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/enumerator.h"
#include "core/busy.h"
#include "xgrid/encoding.h"
#include "xgrid/generator.h"
#include "xgrid/search.h"
#include "xgrid/worlds.h"

namespace twohot {
namespace {

namespace py = pybind11;
using namespace xgrid;

static_assert(sizeof(bool) == 1);

Split split_of(const std::string& split) { return enumerator<Split>("split", {"train", "test"}, split); }

GeneratorSettings generator_of(const std::array<int, 9>& generator) {
  const auto [min_depth, max_depth, branching, distractors, dead_ends, goals, rules, object_types, shared] = generator;
  const GeneratorSettings settings{
      min_depth,    max_depth,  branching, distractors, dead_ends, static_cast<Kinds>(goals), static_cast<Kinds>(rules),
      object_types, shared != 0};
  check(settings);
  return settings;
}

template <class T>
const T* in(py::handle value, const char* name, DType dtype, std::initializer_list<std::int64_t> shape) {
  return reinterpret_cast<const T*>(read(value, {name, nullptr, dtype, shape, {}}));
}

template <class T>
T* out(py::handle value, const char* name, DType dtype, std::initializer_list<std::int64_t> shape) {
  return reinterpret_cast<T*>(write(value, {name, nullptr, dtype, shape, {}}));
}

// Rows of a matrix of bytes.
std::span<const std::uint8_t> rows_of(py::handle value, const char* name, std::int64_t columns) {
  const auto array = py::isinstance<py::array>(value) ? py::reinterpret_borrow<py::array>(value) : py::array();
  const std::int64_t rows = array.ndim() == 2 ? array.shape(0) : 0;
  return {in<std::uint8_t>(value, name, DType::uint8, {rows, columns}), static_cast<std::size_t>(rows * columns)};
}

RuleSet rule_set_of(py::handle goal, py::handle rules, py::handle objects) {
  return decode({in<std::uint8_t>(goal, "goal", DType::uint8, {goal_bytes}), goal_bytes},
                rows_of(rules, "rules", rule_bytes), rows_of(objects, "objects", tile_bytes));
}

RuleSet checked_rule_set(py::handle goal, py::handle rules, py::handle objects) {
  const RuleSet set = rule_set_of(goal, rules, objects);
  check(set, max_side, max_side);
  return set;
}

void write_rule_set(const RuleSet& set, std::uint8_t* goal, std::uint8_t* rules, std::uint8_t* objects) {
  const GoalBytes bytes = encode(set.goal);
  std::memcpy(goal, bytes.data(), bytes.size());
  for (const Rule& rule : set.used_rules()) {
    const RuleBytes own = encode(rule);
    std::memcpy(rules, own.data(), own.size());
    rules += rule_bytes;
  }
  std::memcpy(objects, set.objects.data(), set.used_objects().size_bytes());
}

py::tuple arrays_of(const RuleSet& set) {
  py::array_t<std::uint8_t> goal(goal_bytes);
  py::array_t<std::uint8_t> rules({static_cast<py::ssize_t>(set.num_rules), static_cast<py::ssize_t>(rule_bytes)});
  py::array_t<std::uint8_t> objects({static_cast<py::ssize_t>(set.num_objects), static_cast<py::ssize_t>(tile_bytes)});
  write_rule_set(set, goal.mutable_data(), rules.mutable_data(), objects.mutable_data());
  return py::make_tuple(goal, rules, objects);
}

// Calls that let other threads run say so where one of those calls the same worlds.
class XGrid {
 public:
  XGrid(std::int64_t num_envs, const std::array<int, 2>& size, int rooms, bool locked, int view, bool show_carried,
        int max_steps, int attempts, bool same_map, const std::array<int, 9>& generator, std::uint64_t seed,
        std::int64_t tasks, const std::string& split)
      : worlds_({num_envs, {size[0], size[1], rooms, locked}, view, show_carried, max_steps, attempts, same_map},
                {generator_of(generator), seed, tasks < 1 ? 0 : static_cast<std::uint64_t>(tasks), split_of(split)}),
        num_envs_(num_envs) {}

  std::array<std::int64_t, 3> observation_shape() const { return worlds_.observation_shape(); }
  int max_steps() const { return worlds_.settings().max_steps; }

  void reset(std::uint64_t seed) {
    const Busy busy = alone();
    const py::gil_scoped_release release;
    worlds_.reset(seed);
  }

  void begin(std::int64_t index, std::uint64_t seed, bool new_task) {
    const Busy busy = alone();
    worlds_.begin(index, seed, new_task);
  }

  void next_attempt(std::int64_t index) {
    const Busy busy = alone();
    worlds_.next_attempt(index);
  }

  void step(py::handle actions, py::handle observation, py::handle reward, py::handle terminated, py::handle truncated,
            py::handle last, bool autoreset, int threads) {
    const std::span given(in<std::int64_t>(actions, "actions", DType::int64, {num_envs_}),
                          static_cast<std::size_t>(num_envs_));
    const StepMemory memory{observation_of(observation, "observation"),
                            out<float>(reward, "reward", DType::float32, {num_envs_}),
                            out<bool>(terminated, "terminated", DType::boolean, {num_envs_}),
                            out<bool>(truncated, "truncated", DType::boolean, {num_envs_}),
                            autoreset ? observation_of(last, "last") : nullptr};
    const Busy busy = alone();
    const py::gil_scoped_release release;
    worlds_.step(given, autoreset, memory, threads);
  }

  void observe(py::handle observation) {
    std::uint8_t* memory = observation_of(observation, "observation");
    const Busy busy = alone();
    const py::gil_scoped_release release;
    worlds_.observe(memory);
  }

  void progress(py::handle task, py::handle attempt) const {
    auto* tasks = out<std::int64_t>(task, "task", DType::int64, {num_envs_});
    auto* attempts = out<std::int32_t>(attempt, "attempt", DType::int32, {num_envs_});
    const Busy busy = alone();
    for (std::int64_t i = 0; i < num_envs_; ++i) {
      tasks[i] = worlds_.task(i);
      attempts[i] = worlds_.attempt(i);
    }
  }

  void directions(py::handle direction) const {
    auto* directions = out<std::uint8_t>(direction, "direction", DType::uint8, {num_envs_});
    const Busy busy = alone();
    for (std::int64_t i = 0; i < num_envs_; ++i) {
      directions[i] = static_cast<std::uint8_t>(worlds_.agent(i).direction);
    }
  }

  py::tuple rule_set(std::int64_t index) const { return arrays_of(copy(index)); }

  void set_rule_set(std::int64_t index, py::handle goal, py::handle rules, py::handle objects) {
    const RuleSet set = rule_set_of(goal, rules, objects);
    const Busy busy = alone();
    worlds_.set_rule_set(index, set);
  }

  // Of all environments: the grid, then y, x, direction and step, then the pocket.
  void state(py::handle grid, py::handle agent, py::handle pocket) const {
    auto* grids = out<std::uint8_t>(grid, "grid", DType::uint8, {num_envs_, height(), width(), tile_bytes});
    auto* agents = out<std::int32_t>(agent, "agent", DType::int32, {num_envs_, 4});
    auto* pockets = out<std::uint8_t>(pocket, "pocket", DType::uint8, {num_envs_, tile_bytes});
    std::vector<Tile> tiles(static_cast<std::size_t>(height() * width()));
    const Busy busy = alone();
    for (std::int64_t i = 0; i < num_envs_; ++i) {
      worlds_.grid(i, tiles.data());
      std::memcpy(grids, tiles.data(), tiles.size() * sizeof(Tile));
      grids += tiles.size() * sizeof(Tile);
      const AgentState state = worlds_.agent(i);
      for (const std::int32_t value : {state.y, state.x, state.direction, state.step}) *agents++ = value;
      std::memcpy(pockets + i * tile_bytes, &state.pocket, sizeof state.pocket);
    }
  }

  void set_state(std::int64_t index, py::handle grid, py::handle agent, py::handle pocket) {
    const auto* bytes = in<std::uint8_t>(grid, "grid", DType::uint8, {height(), width(), tile_bytes});
    const auto* values = in<std::int32_t>(agent, "agent", DType::int32, {4});
    const auto* held = in<std::uint8_t>(pocket, "pocket", DType::uint8, {tile_bytes});
    std::vector<Tile> tiles(static_cast<std::size_t>(height() * width()));
    std::memcpy(tiles.data(), bytes, tiles.size() * sizeof(Tile));
    AgentState state{values[0], values[1], values[2], nothing, values[3]};
    std::memcpy(&state.pocket, held, sizeof state.pocket);
    const Busy busy = alone();
    worlds_.set_state(index, tiles, state);
  }

 private:
  Busy alone() const { return {busy_, "a grid world"}; }
  RuleSet copy(std::int64_t index) const {
    const Busy busy = alone();
    return worlds_.rule_set(index);
  }
  std::int64_t height() const { return worlds_.settings().map.height; }
  std::int64_t width() const { return worlds_.settings().map.width; }
  std::uint8_t* observation_of(py::handle value, const char* name) {
    const auto [rows, columns, channels] = worlds_.observation_shape();
    return out<std::uint8_t>(value, name, DType::uint8, {num_envs_, rows, columns, channels});
  }

  Worlds worlds_;
  std::int64_t num_envs_;
  mutable std::atomic_flag busy_;
};

py::tuple make_rule_sets(const std::array<int, 9>& generator, std::uint64_t seed, std::int64_t first,
                         std::int64_t count, const std::string& split) {
  const GeneratorSettings settings = generator_of(generator);
  const Split own = split_of(split);
  if (first < 0 || count < 0) throw std::invalid_argument("expected first and count not to be negative");
  const auto rows = static_cast<py::ssize_t>(count);
  py::array_t<std::uint8_t> goals({rows, py::ssize_t{goal_bytes}});
  py::array_t<std::uint8_t> rules({rows, py::ssize_t{max_rules}, py::ssize_t{rule_bytes}});
  py::array_t<std::uint8_t> objects({rows, py::ssize_t{max_objects}, py::ssize_t{tile_bytes}});
  py::array_t<std::uint64_t> identities(rows);
  auto* const goal = goals.mutable_data();
  auto* const rule = rules.mutable_data();
  auto* const object = objects.mutable_data();
  auto* const id = identities.mutable_data();
  const py::gil_scoped_release release;
  std::memset(rule, 0, static_cast<std::size_t>(rows) * max_rules * rule_bytes);
  std::memset(object, 0, static_cast<std::size_t>(rows) * max_objects * tile_bytes);
  for (std::int64_t i = 0; i < count; ++i) {
    const RuleSet set =
        make_rule_set(settings, seed, static_cast<std::uint64_t>(first) + static_cast<std::uint64_t>(i), own);
    write_rule_set(set, goal + i * goal_bytes, rule + i * max_rules * rule_bytes,
                   object + i * max_objects * tile_bytes);
    id[i] = identity(set);
  }
  const py::gil_scoped_acquire acquire;
  return py::make_tuple(goals, rules, objects, identities);
}

}  // namespace

void bind_xgrid(py::module_& module) {
  using namespace py::literals;
  py::class_<XGrid>(module, "XGrid")
      .def(py::init<std::int64_t, const std::array<int, 2>&, int, bool, int, bool, int, int, bool,
                    const std::array<int, 9>&, std::uint64_t, std::int64_t, const std::string&>(),
           py::call_guard<py::gil_scoped_release>(), py::kw_only(), "num_envs"_a, "size"_a, "rooms"_a, "locked"_a,
           "view"_a, "show_carried"_a, "max_steps"_a, "attempts"_a, "same_map"_a, "generator"_a, "seed"_a, "tasks"_a,
           "split"_a)
      .def_property_readonly("observation_shape", &XGrid::observation_shape)
      .def_property_readonly("max_steps", &XGrid::max_steps)
      .def("reset", &XGrid::reset, "seed"_a)
      .def("begin", &XGrid::begin, "index"_a, "seed"_a, "new_task"_a)
      .def("next_attempt", &XGrid::next_attempt, "index"_a)
      .def("step", &XGrid::step, "actions"_a, py::kw_only(), "observation"_a, "reward"_a, "terminated"_a, "truncated"_a,
           "last"_a, "autoreset"_a, "threads"_a)
      .def("observe", &XGrid::observe, "observation"_a)
      .def("directions", &XGrid::directions, "direction"_a)
      .def("progress", &XGrid::progress, "task"_a, "attempt"_a)
      .def("rule_set", &XGrid::rule_set, "index"_a)
      .def("set_rule_set", &XGrid::set_rule_set, "index"_a, "goal"_a, "rules"_a, "objects"_a)
      .def("state", &XGrid::state, "grid"_a, "agent"_a, "pocket"_a)
      .def("set_state", &XGrid::set_state, "index"_a, "grid"_a, "agent"_a, "pocket"_a);
  module.def("xgrid_rule_sets", &make_rule_sets, "generator"_a, py::kw_only(), "seed"_a, "first"_a, "count"_a,
             "split"_a);
  module.def(
      "xgrid_most",
      [](const std::array<int, 9>& generator) {
        const GeneratorSettings settings = generator_of(generator);
        return py::make_tuple(most_rules(settings), most_objects(settings));
      },
      "generator"_a);
  module.def(
      "xgrid_identity",
      [](py::handle goal, py::handle rules, py::handle objects) {
        return identity(checked_rule_set(goal, rules, objects));
      },
      "goal"_a, "rules"_a, "objects"_a);
  module.def(
      "xgrid_plan",
      [](py::handle goal, py::handle rules, py::handle objects) {
        const RuleSet set = checked_rule_set(goal, rules, objects);
        const py::gil_scoped_release release;
        return plan(set);
      },
      "goal"_a, "rules"_a, "objects"_a);
}

}  // namespace twohot
