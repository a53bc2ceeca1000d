// What the files that bind the replay share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "replay/sampler.h"
#include "replay/store.h"

namespace twohot {

using FieldTuple = std::tuple<std::string, std::string, std::vector<std::int64_t>, bool, std::string>;
using Trajectories = std::span<const std::shared_ptr<const Trajectory>>;

Schema make_schema(const std::vector<FieldTuple>& observation, const FieldTuple& action,
                   const std::vector<FieldTuple>& step);

// A store with its sampler, and the Python strings that its arguments are looked up by.
struct ReplayStore {
  ReplayStore(const std::vector<FieldTuple>& observation, const FieldTuple& action, const std::vector<FieldTuple>& step,
              Capacity capacity, std::uint64_t seed, int threads, std::optional<DirectoryOptions> options);

  // Appends the memory of the observation arrays, each of `leading` axes, to `columns`. The arrays that it returns keep
  // that memory alive, even where the dict changes while the GIL is released.
  [[nodiscard]] std::vector<pybind11::object> read_observation(pybind11::handle observation,
                                                               std::initializer_list<std::int64_t> leading,
                                                               std::vector<const std::byte*>& columns) const;

  // Appends the memory of the step arrays, each of `rows` rows, in the order of the layout; returns as above.
  [[nodiscard]] std::vector<pybind11::object> read_steps(std::initializer_list<pybind11::handle> values,
                                                         const pybind11::object& step, std::int64_t rows,
                                                         std::vector<const std::byte*>& columns) const;

  std::shared_ptr<Store> store;
  Sampler sampler;
  std::vector<pybind11::str> names;
  std::vector<pybind11::str> step_names;
};

// One array for each column of `trajectories`, one after the other, in a dict as add() takes it.
struct ColumnArrays {
  // Their content is undefined until fill(), which is given the same trajectories and needs no GIL, and throws
  // CorruptionError.
  ColumnArrays(const Layout& layout, Trajectories trajectories);
  void fill(const Layout& layout, Trajectories trajectories);

  pybind11::dict values;
  std::vector<std::byte*> memory;  // of each column
};

// The dict of those arrays, filled.
pybind11::dict copy_columns(const Layout& layout, Trajectories trajectories);

// Adds to `result` what extend() takes of each trajectory beside its columns.
void describe(Trajectories trajectories, pybind11::dict& result);

pybind11::array_t<std::int64_t> ids(Trajectories trajectories);

template <typename Value, typename Values, typename Get>
pybind11::array_t<Value> each(const Values& values, Get get) {
  pybind11::array_t<Value> result(static_cast<pybind11::ssize_t>(values.size()));
  Value* at = result.mutable_data();
  for (const auto& value : values) *at++ = get(*value);
  return result;
}

// What is wrong with files, as (file, words) each.
pybind11::list pairs(const std::vector<Problem>& problems);

using ReplayStoreClass = pybind11::class_<ReplayStore, std::shared_ptr<ReplayStore>>;

void bind_replay_store(pybind11::module_& module);
void bind_replay_sampling(ReplayStoreClass& store);
void bind_replay_writer(pybind11::module_& module);

}  // namespace twohot
