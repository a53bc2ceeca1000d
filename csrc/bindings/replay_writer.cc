#include "replay/writer.h"

#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/replay_store.h"

namespace py = pybind11;

namespace twohot {
namespace {

class ReplayWriter {
 public:
  ReplayWriter(std::shared_ptr<ReplayStore> store, std::int64_t environments, std::int64_t chunk_length,
               std::int64_t overlap)
      : store_(std::move(store)), writer_(new Writer(store_->store, environments, {chunk_length, overlap})) {}

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
              const py::object& truncated, const py::object& observation, const py::object& mask,
              const py::object& step) {
    std::vector<const std::byte*> columns;
    columns.reserve(store_->store->layout().columns().size());
    const auto held = store_->read_observation(observation, {writer_->environments()}, columns);
    const auto step_arrays =
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

}  // namespace

void bind_replay_writer(py::module_& module) {
  using namespace py::literals;
  using Released = py::call_guard<py::gil_scoped_release>;
  py::class_<ReplayWriter>(module, "ReplayWriter")
      .def(py::init<std::shared_ptr<ReplayStore>, std::int64_t, std::int64_t, std::int64_t>(), "store"_a,
           "environments"_a, "chunk_length"_a, "overlap"_a)
      .def("begin", &ReplayWriter::begin, "observation"_a, "mask"_a, "task"_a)
      .def("append", &ReplayWriter::append, "action"_a, "reward"_a, "terminated"_a, "truncated"_a, "observation"_a,
           "mask"_a, "step"_a)
      .def("cut", &ReplayWriter::cut, Released())
      .def("discard", &ReplayWriter::discard, "mask"_a);
}

}  // namespace twohot
