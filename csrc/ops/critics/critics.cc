#include "ops/critics/critics.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <vector>

#include "core/buffer_pool.h"
#include "core/thread_pool.h"
#include "ops/critics/critics_kernels.h"
#include "ops/simd/dispatch.h"
#include "ops/simd/scratch.h"

namespace twohot::ops {
namespace {

// Bytes of a tile's features: little enough that they and the weights of a layer stay in the cache of a core.
constexpr std::int64_t tile_bytes = std::int64_t{1} << 17;
// Rows of a slice, at least: each costs sums as large as the weights. The number of slices does not depend on threads,
// so that results do not.
constexpr std::int64_t slice_rows = 2048;
constexpr std::int64_t max_slices = 8;
// Tiles that a thread takes at a time where nothing is summed.
constexpr std::int64_t grain_tiles = 8;

CriticLayout layout_of(const CriticKernels& kernels, const Ensemble& e) noexcept {
  CriticLayout layout{kernels.columns,
                      round_up(e.width, kernels.columns),
                      round_up(e.bins, kernels.columns),
                      e.depth,
                      e.entries,
                      e.actions,
                      0,
                      kernels.pair_rows > 0 && e.dtype == Float::bfloat16};
  const std::int64_t fitting = tile_bytes / (layout.width * (layout.pairs ? 2 : 4));
  const std::int64_t step = layout.pairs ? kernels.pair_rows : kernels.product_rows;
  layout.rows = std::max(std::min(fitting, max_tile_rows) / step, std::int64_t{1}) * step;
  return layout;
}

// Invokes fn(i, worker) once for each i in 0 .. count - 1. No two threads are the same worker at a time.
void parallel_for(std::int64_t count, int threads, const std::function<void(std::int64_t, std::int64_t)>& fn) {
  if (threads <= 1 || count <= 1) {
    for (std::int64_t i = 0; i < count; ++i) fn(i, 0);
    return;
  }
  std::atomic<std::int64_t> next{0};
  global_thread_pool(threads)->run(std::min<std::int64_t>(threads, count), [&](std::int64_t worker) {
    for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) fn(i, worker);
  });
}

// The ends of slices, each where the step changes, so that no two of them add to the gradient of one step: one slice
// unless steps only grow.
std::vector<std::int64_t> slices_of(const EnsembleRows& rows) {
  const std::int64_t* step = rows.step;
  const std::int64_t max_count =
      std::is_sorted(step, step + rows.count) ? std::clamp<std::int64_t>(rows.count / slice_rows, 1, max_slices) : 1;
  std::vector<std::int64_t> ends{0};
  for (std::int64_t s = 1; s <= max_count; ++s) {
    std::int64_t end = std::max(rows.count * s / max_count, ends.back());
    while (end > 0 && end < rows.count && step[end] == step[end - 1]) ++end;
    ends.push_back(end);
  }
  return ends;
}

// to [inner, outer] = the sum of all slices' matrices in panels.
void gather(float* to, const float* sums, std::int64_t slices, std::int64_t next, std::int64_t columns,
            std::int64_t filled, std::int64_t inner, std::int64_t outer) noexcept {
  for (std::int64_t s = 0; s < slices; ++s) {
    for (std::int64_t first = 0; first < outer; first += columns) {
      const std::int64_t count = std::min(columns, outer - first);
      for (std::int64_t k = 0; k < inner; ++k) {
        const float* from = sums + s * next + (first / columns * filled + k) * columns;
        float* row = to + k * outer + first;
        for (std::int64_t n = 0; n < count; ++n) row[n] = s == 0 ? from[n] : row[n] + from[n];
      }
    }
  }
}

void gather_critic(const Ensemble& e, const CriticLayout& layout, std::int64_t critic, const float* sums,
                   std::int64_t slices, const EnsembleGradients& to) noexcept {
  const std::int64_t next = layout.sums();
  const auto rows = [&](float* out, std::int64_t offset, std::int64_t count, std::int64_t width, std::int64_t filled) {
    for (std::int64_t r = 0; r < count; ++r) {
      gather(out + r * width, sums + offset + r * filled, slices, next, filled, 1, 1, width);
    }
  };
  for (std::int64_t layer = 0; layer < e.depth; ++layer) {
    const std::int64_t matrix = layer * e.critics + critic;
    gather(to.weights + matrix * e.width * e.width, sums + layout.weight_sums(layer), slices, next, layout.columns,
           layout.width, e.width, e.width);
    rows(to.biases + matrix * e.width, layout.bias_sums(layer), 1, e.width, layout.width);
  }
  gather(to.head + critic * e.width * e.bins, sums + layout.weight_sums(e.depth), slices, next, layout.columns,
         layout.width, e.width, e.bins);
  rows(to.head_bias + critic * e.bins, layout.bias_sums(e.depth), 1, e.bins, layout.bins);
  rows(to.table + critic * e.entries * e.width, layout.table_sums(), e.entries, e.width, layout.width);
  if (e.actions > 0) {
    rows(to.action_weight + critic * e.actions * e.width, layout.action_sums(), e.actions, e.width, layout.width);
  }
}

// `pass` lacks what is packed.
void train(const CriticKernels& kernels, CriticPass pass, int threads) {
  const Ensemble& e = pass.ensemble;
  const CriticLayout& layout = pass.layout;
  const std::vector<std::int64_t> ends = slices_of(pass.rows);
  const auto slices = static_cast<std::int64_t>(ends.size()) - 1;
  const std::int64_t tasks = e.critics * slices;
  const std::int64_t workers = std::clamp<std::int64_t>(tasks, 1, std::max(threads, 1));
  const std::int64_t packed = e.critics * layout.packed(true);
  const std::int64_t summed = tasks * layout.sums();
  const std::int64_t words = packed + summed + workers * layout.tile(true);
  const BufferPool::Block block = BufferPool::global().borrow(static_cast<std::size_t>(words) * sizeof(float));
  auto* const memory = static_cast<std::uint32_t*>(block.data());
  float* const sums = reinterpret_cast<float*>(memory + packed);
  std::uint32_t* const scratch = memory + packed + summed;

  pass.packed = memory;
  parallel_for(e.critics, threads, [&](std::int64_t critic, std::int64_t) {
    kernels.pack(e, layout, critic, true, memory + critic * layout.packed(true));
  });
  parallel_for(tasks, threads, [&](std::int64_t task, std::int64_t worker) {
    const std::int64_t slice = task % slices;
    float* const mine = sums + task * layout.sums();
    std::fill_n(mine, layout.sums(), 0.0f);
    kernels.train(pass, task / slices, ends[slice], ends[slice + 1], mine, scratch + worker * layout.tile(true));
  });
  parallel_for(e.critics, threads, [&](std::int64_t critic, std::int64_t) {
    gather_critic(e, layout, critic, sums + critic * slices * layout.sums(), slices, *pass.gradients);
  });
}

void infer(const CriticKernels& kernels, CriticPass pass, int threads) {
  const Ensemble& e = pass.ensemble;
  const CriticLayout& layout = pass.layout;
  const std::int64_t rows = pass.rows.count;
  const std::int64_t grain_rows = layout.rows * grain_tiles;
  const std::int64_t slices = (rows + grain_rows - 1) / grain_rows;
  const std::int64_t tasks = e.critics * slices;
  const std::int64_t workers = std::clamp<std::int64_t>(tasks, 1, std::max(threads, 1));
  const std::int64_t packed = e.critics * layout.packed(false);
  const std::int64_t words = packed + workers * layout.tile(false);
  const BufferPool::Block block = BufferPool::global().borrow(static_cast<std::size_t>(words) * sizeof(float));
  auto* const memory = static_cast<std::uint32_t*>(block.data());

  pass.packed = memory;
  parallel_for(e.critics, threads, [&](std::int64_t critic, std::int64_t) {
    kernels.pack(e, layout, critic, false, memory + critic * layout.packed(false));
  });
  parallel_for(tasks, threads, [&](std::int64_t task, std::int64_t worker) {
    const std::int64_t begin = task % slices * grain_rows;
    kernels.infer(pass, task / slices, begin, std::min(rows, begin + grain_rows),
                  memory + packed + worker * layout.tile(false));
  });
}

}  // namespace

void critics_cross_entropy(const CriticKernels& kernels, const Ensemble& e, const EnsembleRows& rows,
                           const Support& support, const Labels& labels, float scale, float* loss, float* readout,
                           const EnsembleGradients& gradients, int threads) {
  const BinValues values(support, e.bins, true, labels.kind);
  train(kernels, {e, rows, layout_of(kernels, e), nullptr, &values, readout, &labels, nullptr, scale, loss, &gradients},
        threads);
}

void critics_expectation(const CriticKernels& kernels, const Ensemble& e, const EnsembleRows& rows,
                         const Support& support, float* readout, int threads) {
  const BinValues values(support, e.bins, true, LabelKind::two_hot);
  infer(kernels, {e, rows, layout_of(kernels, e), nullptr, &values, readout}, threads);
}

void critics_squared_error(const CriticKernels& kernels, const Ensemble& e, const EnsembleRows& rows,
                           const Regression& regression, float scale, float* loss, float* value,
                           const EnsembleGradients& gradients, int threads) {
  train(kernels,
        {e, rows, layout_of(kernels, e), nullptr, nullptr, value, nullptr, &regression, scale, loss, &gradients},
        threads);
}

void critics_output(const CriticKernels& kernels, const Ensemble& e, const EnsembleRows& rows, float* output,
                    int threads) {
  infer(kernels, {e, rows, layout_of(kernels, e), nullptr, nullptr, output}, threads);
}

void critics_cross_entropy(const Ensemble& ensemble, const EnsembleRows& rows, const Support& support,
                           const Labels& labels, float scale, float* loss, float* readout,
                           const EnsembleGradients& gradients, int threads) {
  critics_cross_entropy(kernels<CriticKernels>(), ensemble, rows, support, labels, scale, loss, readout, gradients,
                        threads);
}

void critics_expectation(const Ensemble& ensemble, const EnsembleRows& rows, const Support& support, float* readout,
                         int threads) {
  critics_expectation(kernels<CriticKernels>(), ensemble, rows, support, readout, threads);
}

void critics_squared_error(const Ensemble& ensemble, const EnsembleRows& rows, const Regression& regression,
                           float scale, float* loss, float* value, const EnsembleGradients& gradients, int threads) {
  critics_squared_error(kernels<CriticKernels>(), ensemble, rows, regression, scale, loss, value, gradients, threads);
}

void critics_output(const Ensemble& ensemble, const EnsembleRows& rows, float* output, int threads) {
  critics_output(kernels<CriticKernels>(), ensemble, rows, output, threads);
}

}  // namespace twohot::ops
