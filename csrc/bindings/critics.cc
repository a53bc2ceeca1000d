#include "bindings/critics.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "bindings/addresses.h"
#include "ops/critics/critics.h"

namespace twohot {
namespace {

namespace py = pybind11;

void require_addresses(bool all) {
  if (!all) throw std::invalid_argument("expected addresses, got a zero");
}

ops::Ensemble ensemble(std::int64_t critics, std::int64_t steps, std::int64_t entries, std::int64_t actions,
                       std::int64_t depth, std::int64_t width, std::int64_t bins, float slope, const std::string& dtype,
                       std::uintptr_t state, std::int64_t critic_stride, std::int64_t step_stride, std::uintptr_t table,
                       std::uintptr_t action_weight, std::uintptr_t weights, std::uintptr_t biases, std::uintptr_t head,
                       std::uintptr_t head_bias) {
  if (critics < 0 || steps < 0 || entries < 0 || actions < 0 || depth < 0 || width < 1 || bins < 1 ||
      bins > ops::max_bins) {
    throw std::invalid_argument("expected sizes of at least 0, a width of at least 1 and 1 to " +
                                std::to_string(ops::max_bins) + " bins, got a width of " + std::to_string(width) +
                                " and " + std::to_string(bins) + " bins");
  }
  if (!(slope >= 0 && std::isfinite(slope))) {
    throw std::invalid_argument("expected a slope of at least 0, got " + std::to_string(slope));
  }
  require_addresses(critics == 0 ||
                    (head && head_bias && (depth == 0 || (weights && biases)) && (steps == 0 || state) &&
                     (entries == 0 || table) && (actions == 0 || action_weight)));
  return {critics,
          steps,
          entries,
          actions,
          depth,
          width,
          bins,
          slope,
          product_dtype(dtype),
          pointer<const void>(state),
          critic_stride,
          step_stride,
          pointer<const float>(table),
          pointer<const void>(action_weight),
          pointer<const void>(weights),
          pointer<const float>(biases),
          pointer<const void>(head),
          pointer<const float>(head_bias)};
}

void require_indices(const char* what, std::uintptr_t address, std::int64_t rows, std::int64_t count) {
  const auto* index = pointer<const std::int64_t>(address);
  std::int64_t least = 0;
  std::int64_t most = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    least = std::min(least, index[r]);
    most = std::max(most, index[r]);
  }
  if (rows > 0 && (least < 0 || most >= count)) {
    throw std::invalid_argument(std::string(what) + ": expected indices of 0 to " + std::to_string(count - 1) +
                                ", got " + std::to_string(least < 0 ? least : most));
  }
}

ops::EnsembleRows rows_of(const ops::Ensemble& ensemble, std::int64_t rows, std::uintptr_t step, std::uintptr_t entry,
                          std::uintptr_t action) {
  if (rows < 0) throw std::invalid_argument("expected rows >= 0, got " + std::to_string(rows));
  require_addresses(rows == 0 || (step && entry && (ensemble.actions == 0 || action)));
  require_indices("step", step, rows, ensemble.steps);
  require_indices("entry", entry, rows, ensemble.entries);
  return {rows, pointer<const std::int64_t>(step), pointer<const std::int64_t>(entry), pointer<const void>(action)};
}

void require_bins(const ops::Ensemble& ensemble, bool several) {
  if ((ensemble.bins > 1) != several) {
    throw std::invalid_argument(std::string("expected critics of ") + (several ? "at least 2 bins" : "one output") +
                                ", got " + std::to_string(ensemble.bins));
  }
}

ops::EnsembleGradients gradients(std::uintptr_t state, std::int64_t critic_stride, std::int64_t step_stride,
                                 std::uintptr_t table, std::uintptr_t action_weight, std::uintptr_t weights,
                                 std::uintptr_t biases, std::uintptr_t head, std::uintptr_t head_bias) {
  return {pointer<float>(state),
          critic_stride,
          step_stride,
          pointer<float>(table),
          pointer<float>(action_weight),
          pointer<float>(weights),
          pointer<float>(biases),
          pointer<float>(head),
          pointer<float>(head_bias)};
}

// Gradients are of what the ensemble has.
void require_gradients(const ops::Ensemble& ensemble, std::int64_t rows, const ops::EnsembleGradients& to) {
  require_addresses(ensemble.critics == 0 ||
                    (to.head && to.head_bias && (ensemble.depth == 0 || (to.weights && to.biases)) &&
                     (ensemble.entries == 0 || to.table) && (ensemble.actions == 0 || to.action_weight) &&
                     (rows == 0 || to.state)));
}

void cross_entropy(const ops::Ensemble& ensemble, std::int64_t rows, std::uintptr_t step, std::uintptr_t entry,
                   std::uintptr_t action, const ops::Support& support, std::uintptr_t target, std::uintptr_t mask,
                   const std::string& kind, float sigma, float scale, std::uintptr_t loss, std::uintptr_t readout,
                   const ops::EnsembleGradients& gradients, int threads) {
  const ops::EnsembleRows all = rows_of(ensemble, rows, step, entry, action);
  require_bins(ensemble, true);
  require_addresses(ensemble.critics == 0 || rows == 0 || (target && loss && readout));
  require_gradients(ensemble, rows, gradients);
  const ops::Labels labels{pointer<const float>(target),    pointer<const std::uint8_t>(mask),
                           std::max<std::int64_t>(rows, 1), 0,
                           label_kind_of(kind, sigma),      sigma};
  const py::gil_scoped_release release;
  ops::critics_cross_entropy(ensemble, all, support, labels, scale, pointer<float>(loss), pointer<float>(readout),
                             gradients, threads);
}

void expectation(const ops::Ensemble& ensemble, std::int64_t rows, std::uintptr_t step, std::uintptr_t entry,
                 std::uintptr_t action, const ops::Support& support, std::uintptr_t readout, int threads) {
  const ops::EnsembleRows all = rows_of(ensemble, rows, step, entry, action);
  require_bins(ensemble, true);
  require_addresses(ensemble.critics == 0 || rows == 0 || readout);
  const py::gil_scoped_release release;
  ops::critics_expectation(ensemble, all, support, pointer<float>(readout), threads);
}

void squared_error(const ops::Ensemble& ensemble, std::int64_t rows, std::uintptr_t step, std::uintptr_t entry,
                   std::uintptr_t action, std::uintptr_t target, std::uintptr_t factor, std::uintptr_t offset,
                   std::uintptr_t mask, float scale, std::uintptr_t loss, std::uintptr_t value,
                   const ops::EnsembleGradients& gradients, int threads) {
  const ops::EnsembleRows all = rows_of(ensemble, rows, step, entry, action);
  require_bins(ensemble, false);
  require_addresses(ensemble.critics == 0 || rows == 0 || (target && factor && offset && loss && value));
  require_gradients(ensemble, rows, gradients);
  const ops::Regression wanted{pointer<const float>(target), pointer<const float>(factor), pointer<const float>(offset),
                               pointer<const std::uint8_t>(mask)};
  const py::gil_scoped_release release;
  ops::critics_squared_error(ensemble, all, wanted, scale, pointer<float>(loss), pointer<float>(value), gradients,
                             threads);
}

void output(const ops::Ensemble& ensemble, std::int64_t rows, std::uintptr_t step, std::uintptr_t entry,
            std::uintptr_t action, std::uintptr_t output, int threads) {
  const ops::EnsembleRows all = rows_of(ensemble, rows, step, entry, action);
  require_bins(ensemble, false);
  require_addresses(ensemble.critics == 0 || rows == 0 || output);
  const py::gil_scoped_release release;
  ops::critics_output(ensemble, all, pointer<float>(output), threads);
}

}  // namespace

void bind_critics(py::module_& module) {
  using namespace py::literals;
  py::class_<ops::Ensemble>(module, "Ensemble", "Critics as addresses of CPU memory, which the caller has checked.")
      .def(py::init(&ensemble), py::kw_only(), "critics"_a, "steps"_a, "entries"_a, "actions"_a, "depth"_a, "width"_a,
           "bins"_a, "slope"_a, "dtype"_a, "state"_a, "critic_stride"_a, "step_stride"_a, "table"_a, "action_weight"_a,
           "weights"_a, "biases"_a, "head"_a, "head_bias"_a);
  py::class_<ops::EnsembleGradients>(module, "EnsembleGradients", "Where gradients go, as addresses as of an Ensemble.")
      .def(py::init(&gradients), py::kw_only(), "state"_a, "critic_stride"_a, "step_stride"_a, "table"_a,
           "action_weight"_a, "weights"_a, "biases"_a, "head"_a, "head_bias"_a);
  module.def(
      "critics_cross_entropy", &cross_entropy, "ensemble"_a, "rows"_a, py::kw_only(), "step"_a, "entry"_a, "action"_a,
      "support"_a, "target"_a, "mask"_a, "labels"_a, "sigma"_a, "scale"_a, "loss"_a, "readout"_a, "gradients"_a,
      "threads"_a,
      "Losses and values of rows, and gradients; what reaches a step is added. Arrays are addresses of CPU memory, "
      "which the caller has checked; indices are checked here.");
  module.def("critics_expectation", &expectation, "ensemble"_a, "rows"_a, py::kw_only(), "step"_a, "entry"_a,
             "action"_a, "support"_a, "readout"_a, "threads"_a, "Values of rows.");
  module.def("critics_squared_error", &squared_error, "ensemble"_a, "rows"_a, py::kw_only(), "step"_a, "entry"_a,
             "action"_a, "target"_a, "factor"_a, "offset"_a, "mask"_a, "scale"_a, "loss"_a, "value"_a, "gradients"_a,
             "threads"_a, "As critics_cross_entropy, of the squared error of critics with one output.");
  module.def("critics_output", &output, "ensemble"_a, "rows"_a, py::kw_only(), "step"_a, "entry"_a, "action"_a,
             "output"_a, "threads"_a, "The one output of rows.");
}

}  // namespace twohot
