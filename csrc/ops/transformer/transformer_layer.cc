#include "ops/transformer/transformer_layer.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <initializer_list>

#include "core/buffer_pool.h"
#include "core/thread_pool.h"
#include "ops/simd/dispatch.h"
#include "ops/transformer/transformer_layer_kernels.h"

namespace twohot::ops {
namespace {

constexpr std::int64_t blocks_of(std::int64_t rows) noexcept { return (rows + layer_block - 1) / layer_block; }

BufferPool::Block floats(std::int64_t count) {
  return BufferPool::global().borrow(static_cast<std::size_t>(count) * sizeof(float));
}

float* begin_of(const BufferPool::Block& block) noexcept { return static_cast<float*>(block.data()); }

float* part(float*& rest, std::int64_t count) noexcept {
  float* const taken = rest;
  rest += (count + 15) / 16 * 16;  // whole cache lines
  return taken;
}

// Threads that share out blocks, each with its own scratch.
class Workers {
 public:
  Workers(const LayerShape& shape, int threads)
      : threads_(std::clamp<std::int64_t>(blocks_of(shape.rows), 1, threads)),
        floats_(layer_scratch_floats(shape)),
        scratch_(floats(threads_ * floats_)),
        pool_(threads_ > 1 ? global_thread_pool(threads) : nullptr) {}

  // Invokes fn(i, scratch) for each i in 0 .. count - 1.
  template <class Fn>
  void parallel_for(std::int64_t count, const Fn& fn) const {
    std::atomic<std::int64_t> next{0};
    const auto some = [&](std::int64_t worker) {
      float* scratch = begin_of(scratch_) + worker * floats_;
      for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) fn(i, scratch);
    };
    if (pool_ == nullptr) return some(0);
    pool_->run(threads_, some);
  }

 private:
  std::int64_t threads_;
  std::int64_t floats_;
  BufferPool::Block scratch_;
  std::shared_ptr<ThreadPool> pool_;
};

// Rows of a slice: as many in each, in whole blocks.
std::int64_t slice_rows(std::int64_t rows) noexcept {
  const std::int64_t slices = std::max<std::int64_t>((rows + layer_slice - 1) / layer_slice, 1);
  return std::max<std::int64_t>(blocks_of((rows + slices - 1) / slices), 1) * layer_block;
}

// Where sums over rows go, in the order of the parts of `sums`.
struct Sum {
  float* to;
  std::int64_t size;
};

void zero(std::initializer_list<Sum> sums) noexcept {
  for (const Sum& sum : sums) std::fill_n(sum.to, sum.size, 0.0f);
}

void add_blocks(const float* sums, std::int64_t blocks, std::initializer_list<Sum> to) noexcept {
  for (std::int64_t block = 0; block < blocks; ++block) {
    for (const Sum& sum : to) {
      for (std::int64_t i = 0; i < sum.size; ++i) sum.to[i] += sums[i];
      sums += sum.size;
    }
  }
}

// The products of weights for a slice.
void add_weights(const Workers& workers, std::initializer_list<const WeightGradient*> gradients, Float dtype,
                 std::int64_t rows, bool add) {
  std::int64_t tiles = 0;
  for (const WeightGradient* g : gradients) tiles += panels_of(g->left.columns) * panels_of(g->right.columns);
  workers.parallel_for(tiles, [&](std::int64_t i, float*) {
    for (const WeightGradient* g : gradients) {
      const std::int64_t own = panels_of(g->left.columns) * panels_of(g->right.columns);
      if (i < own) return kernels<TransformerLayerKernels>().weight(*g, dtype, rows, add, i);
      i -= own;
    }
  });
}

}  // namespace

void pack_weight(const float* weight, std::int64_t outputs, std::int64_t inputs, bool backward, Float dtype,
                 float* packed, int threads) {
  const auto panel = [&](std::int64_t i) {
    kernels<TransformerLayerKernels>().pack(weight, outputs, inputs, backward, dtype, packed, i);
  };
  const std::int64_t panels = panels_of(backward ? inputs : outputs);
  if (threads > 1 && panels > 1) return global_thread_pool(threads)->run(panels, panel);
  for (std::int64_t i = 0; i < panels; ++i) panel(i);
}

void before_attention(const BeforeAttention& layer, int threads) {
  Workers(layer.shape, threads).parallel_for(blocks_of(layer.shape.rows), [&](std::int64_t block, float* scratch) {
    kernels<TransformerLayerKernels>().before(layer, block, scratch);
  });
}

void after_attention(const AfterAttention& layer, int threads) {
  Workers(layer.shape, threads).parallel_for(blocks_of(layer.shape.rows), [&](std::int64_t block, float* scratch) {
    kernels<TransformerLayerKernels>().after(layer, block, scratch);
  });
}

void before_attention_backward(const BeforeAttention& layer, const BeforeAttentionGradient& gradient, int threads) {
  const LayerShape& shape = layer.shape;
  const Workers workers(shape, threads);
  const std::int64_t rows = slice_rows(shape.rows);
  const BufferPool::Block block = floats(rows * (shape.width + shape.hidden) + blocks_of(rows) * 2 * shape.width + 64);
  float* rest = begin_of(block);
  const WeightGradient linear{
      {part(rest, rows * shape.hidden), shape.hidden}, {part(rest, rows * shape.width), shape.width}, gradient.linear};
  float* const sums = part(rest, blocks_of(rows) * 2 * shape.width);
  const auto parts = {Sum{gradient.norm.weight, shape.width}, Sum{gradient.norm.bias, shape.width}};
  zero(parts);
  if (shape.rows == 0) zero({{gradient.linear, shape.width * shape.hidden}});
  for (std::int64_t begin = 0; begin < shape.rows; begin += rows) {
    const BeforeSlice slice{begin, std::min(rows, shape.rows - begin), linear, sums};
    workers.parallel_for(blocks_of(slice.rows), [&](std::int64_t i, float* scratch) {
      kernels<TransformerLayerKernels>().before_backward(layer, gradient, slice, i, scratch);
    });
    add_blocks(sums, blocks_of(slice.rows), parts);
    add_weights(workers, {&linear}, shape.dtype, slice.rows, begin > 0);
  }
}

void after_attention_backward(const AfterAttention& layer, const AfterAttentionGradient& gradient, int threads) {
  const LayerShape& shape = layer.shape;
  const std::int64_t width = shape.width;
  const std::int64_t hidden = shape.hidden;
  const Workers workers(shape, threads);
  const std::int64_t rows = slice_rows(shape.rows);
  const BufferPool::Block block = floats(rows * (4 * width + 2 * hidden) + blocks_of(rows) * after_sums(shape) + 128);
  float* rest = begin_of(block);
  const auto summands = [&](std::int64_t columns) { return Summands{part(rest, rows * columns), columns}; };
  const WeightGradient out{summands(width), summands(width), gradient.out};
  const WeightGradient up{summands(hidden), summands(width), gradient.up};
  const WeightGradient down{summands(width), summands(hidden), gradient.down};
  float* const sums = part(rest, blocks_of(rows) * after_sums(shape));
  const auto parts = {Sum{gradient.hidden_norm.weight, hidden},
                      Sum{gradient.hidden_norm.bias, hidden},
                      Sum{gradient.up_bias, hidden},
                      Sum{gradient.feed_forward_norm.weight, width},
                      Sum{gradient.feed_forward_norm.bias, width},
                      Sum{gradient.attended_norm.weight, width},
                      Sum{gradient.attended_norm.bias, width},
                      Sum{gradient.out_bias, width},
                      Sum{gradient.down_bias, width}};
  zero(parts);
  if (shape.rows == 0) {
    zero({{gradient.out, width * width}, {gradient.up, hidden * width}, {gradient.down, width * hidden}});
  }
  for (std::int64_t begin = 0; begin < shape.rows; begin += rows) {
    const AfterSlice slice{begin, std::min(rows, shape.rows - begin), out, up, down, sums};
    workers.parallel_for(blocks_of(slice.rows), [&](std::int64_t i, float* scratch) {
      kernels<TransformerLayerKernels>().after_backward(layer, gradient, slice, i, scratch);
    });
    add_blocks(sums, blocks_of(slice.rows), parts);
    add_weights(workers, {&up, &down, &out}, shape.dtype, slice.rows, begin > 0);
  }
}

void dropout(float* to, const float* from, std::int64_t count, std::uint64_t seed, std::uint32_t dropped, float scale,
             int threads) {
  constexpr std::int64_t grain = std::int64_t{1} << 16;
  const auto some = [&](std::int64_t i) {
    kernels<TransformerLayerKernels>().dropout(to, from, i * grain, std::min(count, (i + 1) * grain), seed, dropped,
                                               scale);
  };
  const std::int64_t grains = (count + grain - 1) / grain;
  if (threads > 1 && grains > 1) return global_thread_pool(threads)->run(grains, some);
  for (std::int64_t i = 0; i < grains; ++i) some(i);
}

}  // namespace twohot::ops
