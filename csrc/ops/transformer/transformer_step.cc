#include "ops/transformer/transformer_step.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "core/buffer_pool.h"
#include "core/thread_pool.h"
#include "ops/simd/dispatch.h"
#include "ops/transformer/transformer_step_kernels.h"

namespace twohot::ops {
namespace {

// Invokes fn(begin, end, scratch) for blocks of `count` rows, with `floats` of scratch for each thread.
template <class Function>
void parallel_for(std::int64_t count, std::int64_t floats, int threads, Function fn) {
  const std::int64_t workers = std::clamp<std::int64_t>(threads, 1, std::max<std::int64_t>(count, 1));
  const std::int64_t share = (count + workers - 1) / workers;
  const std::int64_t rows = std::clamp<std::int64_t>((share + 7) / 8 * 8, 8, max_step_rows);
  const BufferPool::Block block =
      BufferPool::global().borrow(static_cast<std::size_t>(workers * floats) * sizeof(float));
  std::atomic<std::int64_t> next{0};
  const auto some = [&](std::int64_t worker) {
    float* scratch = static_cast<float*>(block.data()) + worker * floats;
    for (std::int64_t row; (row = next.fetch_add(rows, std::memory_order_relaxed)) < count;) {
      fn(row, std::min(row + rows, count), scratch);
    }
  };
  if (count <= rows) return some(0);
  global_thread_pool(threads)->run(workers, some);
}

void fill_inputs(const StepInputs& inputs, std::int64_t begin, std::int64_t end, float* output) noexcept {
  for (std::int64_t r = begin; r < end; ++r, output += inputs.columns + inputs.actions) {
    float* to = output;
    for (const StepNumbers& part : inputs.observation) to = std::copy_n(part.data + r * part.size, part.size, to);
    if (inputs.reward != nullptr) *to = std::copysign(std::log1p(std::fabs(inputs.reward[r])), inputs.reward[r]);
    for (std::int64_t i = 0; inputs.mean != nullptr && i < inputs.columns; ++i) {
      const float x = (output[i] - inputs.mean[i]) / inputs.deviation[i];
      const float bound = inputs.bound[i];
      output[i] = x < -bound ? -bound : x > bound ? bound : x;  // keeps NaN
    }
    float* const action = output + inputs.columns;
    if (inputs.action != nullptr && inputs.time[r] > 0) {
      std::copy_n(inputs.action + r * inputs.actions, inputs.actions, action);
      continue;
    }
    std::fill_n(action, inputs.actions, 0.0f);
    if (inputs.choice != nullptr && inputs.time[r] > 0) action[inputs.choice[r]] = 1;
  }
}

// The choice of a row of logits, which become clipped probabilities.
std::int64_t choose(float* x, std::int64_t count, float floor, float ceiling, const float* uniform) noexcept {
  const float largest = *std::max_element(x, x + count);
  float total = 0;
  for (std::int64_t i = 0; i < count; ++i) total += x[i] = std::exp(x[i] - largest);
  for (std::int64_t i = 0; i < count; ++i) x[i] = std::clamp(x[i] / total, floor, ceiling);
  if (uniform == nullptr) return std::max_element(x, x + count) - x;
  for (std::int64_t i = 1; i < count; ++i) x[i] += x[i - 1];
  const float drawn = *uniform * x[count - 1];
  std::int64_t choice = 0;
  while (choice + 1 < count && drawn >= x[choice]) ++choice;
  return choice;
}

}  // namespace

void step_inputs(const StepInputs& inputs, float* output) noexcept { fill_inputs(inputs, 0, inputs.rows, output); }

void policy_step(const PolicyStep& step, std::span<const StepLinear> encoder, std::span<const StepLayer> layers,
                 std::span<const StepLinear> actor, int threads) {
  const TransformerStepKernels& own = kernels<TransformerStepKernels>();
  const std::int64_t rows = step.inputs.rows;
  const std::int64_t inputs = step.inputs.columns + step.inputs.actions;
  const std::int64_t width = step.transformer.width;
  const bool acts = step.x != nullptr || step.action != nullptr;
  const std::int64_t outputs = acts ? actor.back().outputs : 0;
  const BufferPool::Block block =
      BufferPool::global().take(static_cast<std::size_t>(rows * (inputs + 2 * width + outputs) + 1) * sizeof(float));
  float* const seen = static_cast<float*>(block.data());
  float* const embedded = seen + rows * inputs;
  float* const h = step.h != nullptr ? step.h : embedded + rows * width;
  float* const x = step.x != nullptr ? step.x : embedded + 2 * rows * width;
  MlpStep first = step.encoder;
  first.input = seen;
  first.output = embedded;
  TransformerStep second = step.transformer;
  second.input = embedded;
  second.output = h;
  MlpStep third = step.actor;
  third.input = h;
  third.output = x;
  const std::int64_t floats =
      std::max({mlp_scratch_floats(encoder), step_scratch_floats(second), acts ? mlp_scratch_floats(actor) : 0});
  parallel_for(rows, floats, threads, [&](std::int64_t begin, std::int64_t end, float* scratch) {
    fill_inputs(step.inputs, begin, end, seen + begin * inputs);
    own.mlp(first, encoder, begin, end, scratch);
    for (std::int64_t r = begin; step.positions != nullptr && r < end; ++r) {
      const float* position = step.positions + (step.times > 0 ? step.inputs.time[r] : r) * width;
      for (std::int64_t i = 0; i < width; ++i) embedded[r * width + i] += position[i];
    }
    own.transformer(second, layers, begin, end, scratch);
    if (!acts) return;
    own.mlp(third, actor, begin, end, scratch);
    for (std::int64_t r = begin; step.action != nullptr && r < end; ++r) {
      step.action[r] = choose(x + r * outputs, outputs, step.floor, step.ceiling,
                              step.uniform == nullptr ? nullptr : step.uniform + r);
    }
  });
}

void transformer_step(const TransformerStep& step, std::span<const StepLayer> layers, int threads) {
  parallel_for(step.environments, step_scratch_floats(step), threads,
               [&](std::int64_t begin, std::int64_t end, float* scratch) {
                 kernels<TransformerStepKernels>().transformer(step, layers, begin, end, scratch);
               });
}

void mlp_step(const MlpStep& step, std::span<const StepLinear> layers, int threads) {
  parallel_for(step.rows, mlp_scratch_floats(layers), threads,
               [&](std::int64_t begin, std::int64_t end, float* scratch) {
                 kernels<TransformerStepKernels>().mlp(step, layers, begin, end, scratch);
               });
}

}  // namespace twohot::ops
