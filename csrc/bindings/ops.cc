#include "bindings/ops.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/addresses.h"
#include "bindings/attention.h"
#include "bindings/critics.h"
#include "bindings/encoder_step.h"
#include "bindings/enumerator.h"
#include "bindings/images.h"
#include "bindings/transformer_layer.h"
#include "bindings/transformer_step.h"
#include "core/buffer_pool.h"
#include "ops/simd/dispatch.h"
#include "ops/two_hot/two_hot.h"

namespace twohot {
namespace {

namespace py = pybind11;

ops::Logits logits_of(std::uintptr_t data, const std::string& dtype, std::int64_t rows, std::int64_t bins) {
  if (rows < 0 || bins < 2 || bins > ops::max_bins) {
    throw std::invalid_argument("expected rows >= 0 and 2 to " + std::to_string(ops::max_bins) + " bins, got " +
                                std::to_string(rows) + " and " + std::to_string(bins));
  }
  if (rows > 0 && data == 0) throw std::invalid_argument("expected the address of the logits, got a zero");
  return {pointer<const void>(data), float_of(dtype), rows, bins};
}

ops::Support support(double low, double high, const std::string& transform, const std::string& readout_kind) {
  if (!(low < high)) {
    throw std::invalid_argument("expected low < high, got " + std::to_string(low) + " and " + std::to_string(high));
  }
  return {low, high, enumerator<ops::Transform>("transform", {"linear", "symlog", "signed_sqrt"}, transform),
          enumerator<ops::ReadoutKind>("readout_kind", {"transformed", "raw"}, readout_kind)};
}

double cross_entropy(std::uintptr_t data, const std::string& dtype, std::int64_t rows, std::int64_t bins,
                     const ops::Support& support, std::uintptr_t target, std::int64_t targets, std::int64_t offset,
                     std::uintptr_t mask, const std::string& kind, float sigma, std::uintptr_t weight, float scale,
                     std::uintptr_t loss, std::uintptr_t readout, std::uintptr_t gradient, int threads) {
  const ops::Logits logits = logits_of(data, dtype, rows, bins);
  if (targets < 1 || offset < 0 || (rows > 0 && target == 0)) {
    throw std::invalid_argument("expected at least one target and an offset of at least 0, got " +
                                std::to_string(targets) + " and " + std::to_string(offset));
  }
  const ops::Labels labels{pointer<const float>(target),
                           pointer<const std::uint8_t>(mask),
                           targets,
                           offset,
                           label_kind_of(kind, sigma),
                           sigma};
  const ops::CrossEntropy pass{pointer<const float>(weight), scale, pointer<float>(loss), pointer<float>(readout),
                               pointer<void>(gradient)};
  const py::gil_scoped_release release;
  ops::cross_entropy(logits, support, labels, pass, threads);
  return loss == 0 ? 0.0 : ops::sum(pass.loss, rows);
}

void expectation(std::uintptr_t data, const std::string& dtype, std::int64_t rows, std::int64_t bins,
                 const ops::Support& support, std::uintptr_t grad_output, std::uintptr_t readout,
                 std::uintptr_t gradient, int threads) {
  const ops::Logits logits = logits_of(data, dtype, rows, bins);
  if (rows > 0 && gradient != 0 && grad_output == 0) throw std::invalid_argument("a gradient needs grad_output");
  const ops::Expectation pass{pointer<const float>(grad_output), pointer<float>(readout), pointer<void>(gradient)};
  const py::gil_scoped_release release;
  ops::expectation(logits, support, pass, threads);
}

// A one-dimensional array of bytes over pooled memory, which goes back when the last user of the array lets go.
py::array_t<std::uint8_t> empty_from_pool(std::int64_t bytes) {
  if (bytes < 1) throw std::invalid_argument("expected at least 1 byte, got " + std::to_string(bytes));
  auto* block = new BufferPool::Block(BufferPool::global().take(static_cast<std::size_t>(bytes)));
  const py::capsule owner(block, [](void* mine) { delete static_cast<BufferPool::Block*>(mine); });
  return py::array_t<std::uint8_t>(static_cast<py::ssize_t>(bytes), static_cast<std::uint8_t*>(block->data()), owner);
}

}  // namespace

void bind_ops(py::module_& module) {
  using namespace py::literals;
  py::class_<ops::Support>(module, "Support",
                           "Bins between `low` and `high` in transformed space, and how they are read.")
      .def(py::init(&support), "low"_a, "high"_a, "transform"_a, "readout_kind"_a);
  bind_attention(module);
  bind_critics(module);
  bind_images(module);
  bind_transformer_layer(module);
  bind_encoder_step(module);
  bind_transformer_step(module);
  module.def(
      "cross_entropy", &cross_entropy, "logits"_a, "dtype"_a, "rows"_a, "bins"_a, "support"_a, py::kw_only(),
      "target"_a, "targets"_a, "offset"_a = 0, "mask"_a = 0, "labels"_a = "two_hot", "sigma"_a = 0.0f, "weight"_a = 0,
      "scale"_a = 1.0f, "loss"_a = 0, "readout"_a = 0, "gradient"_a = 0, "threads"_a,
      "Cross-entropy of rows of logits, its gradient and their readout; returns the sum of the losses. Arrays are "
      "addresses of C-contiguous CPU memory, which the caller has checked; 0 means not wanted.");
  module.def("expectation", &expectation, "logits"_a, "dtype"_a, "rows"_a, "bins"_a, "support"_a, py::kw_only(),
             "grad_output"_a = 0, "readout"_a = 0, "gradient"_a = 0, "threads"_a,
             "The readout of rows of logits, and its gradient.");
  module.def("empty_from_pool", &empty_from_pool, "size"_a,
             "An uninitialised array of bytes whose memory is kept for the next caller when the array goes.");
  module.def(
      "release_pool", [] { BufferPool::global().release(); },
      "Give the memory that is kept for empty_from_pool() back to the system.");
  module.def(
      "pool_cached_bytes", [] { return BufferPool::global().cached_bytes(); },
      "Bytes that are kept for empty_from_pool() and that nobody uses.");
  module.def(
      "cpu_capability", [] { return ops::name_of(ops::chosen().capability); },
      "Which compiled form of the kernels this process runs.");
  module.def("cpu_capability_reason", [] { return ops::chosen().reason; }, "Why it runs that form.");
  module.def(
      "cpu_capabilities",
      [] {
        std::vector<const char*> names;
        for (const ops::Capability each : ops::capabilities) {
          if (ops::supported(each)) names.push_back(ops::name_of(each));
        }
        return names;
      },
      "The compiled forms that this processor runs, from the least to the best, then those for tests.");
}

}  // namespace twohot
