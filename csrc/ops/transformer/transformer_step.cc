#include "ops/transformer/transformer_step.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <iterator>

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
  const std::int64_t size = inputs.size();
  for (std::int64_t r = begin; r < end; ++r, output += size) {
    float* to = output;
    for (const StepNumbers& part : inputs.observation) to = std::copy_n(part.data + r * part.size, part.size, to);
    if (inputs.reward != nullptr) *to = std::copysign(std::log1p(std::fabs(inputs.reward[r])), inputs.reward[r]);
    for (std::int64_t i = 0; inputs.mean != nullptr && i < inputs.columns; ++i) {
      const float x = (output[i] - inputs.mean[i]) / inputs.deviation[i];
      const float bound = inputs.bound[i];
      output[i] = x < -bound ? -bound : x > bound ? bound : x;  // keeps NaN
    }
    float* const action = output + inputs.columns;
    to = action + inputs.actions;
    for (const StepNumbers& part : inputs.features) to = std::copy_n(part.data + r * part.size, part.size, to);
    if (inputs.action != nullptr && inputs.time[r] > 0) {
      std::copy_n(inputs.action + r * inputs.actions, inputs.actions, action);
      continue;
    }
    std::fill_n(action, inputs.actions, 0.0f);
    if (inputs.choice == nullptr || inputs.time[r] == 0) continue;
    const std::int64_t* choice = inputs.choice + r * std::ssize(inputs.counts);
    to = action;
    for (std::size_t i = 0; i < inputs.counts.size(); to += inputs.counts[i++]) to[choice[i]] = 1;
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

// The action of row r from its outputs, which are lost.
void draw_action(const PolicyPart& part, float* x, std::int64_t outputs, std::int64_t r) noexcept {
  const StepDraw& draw = part.draw;
  const std::int64_t size = draw.size(outputs);
  const auto random = [&](std::int64_t i) { return part.random == nullptr ? nullptr : part.random + r * size + i; };
  if (draw.actions == StepActions::numbers) {
    float* const action = static_cast<float*>(part.action) + r * size;
    for (std::int64_t i = 0; i < size; ++i) {
      const float log_deviation = draw.low + (draw.high - draw.low) * (std::tanh(x[size + i]) + 1) / 2;
      action[i] = std::tanh(part.random == nullptr ? x[i] : x[i] + std::exp(log_deviation) * *random(i));
    }
    return;
  }
  std::int64_t* const action = static_cast<std::int64_t*>(part.action) + r * size;
  for (std::int64_t i = 0; i < size; ++i) {
    if (draw.actions == StepActions::buttons) {
      float button[]{0, x[i]};
      action[i] = choose(button, 2, draw.low, draw.high, random(i));
    } else {
      action[i] = choose(x, draw.counts[i], draw.low, draw.high, random(i));
      x += draw.counts[i];
    }
  }
}

}  // namespace

std::int64_t StepInputs::size() const noexcept {
  std::int64_t all = columns + actions;
  for (const StepNumbers& part : features) all += part.size;
  return all;
}

std::int64_t StepDraw::size(std::int64_t outputs) const noexcept {
  if (actions == StepActions::choices) return std::ssize(counts);
  return actions == StepActions::buttons ? outputs : outputs / 2;
}

void step_inputs(const StepInputs& inputs, float* output) noexcept { fill_inputs(inputs, 0, inputs.rows, output); }

void policy_step(const PolicyStep& step, std::span<const StepLayer> layers, int threads) {
  const TransformerStepKernels& own = kernels<TransformerStepKernels>();
  const std::int64_t width = step.transformer.width;
  const std::int64_t rows = step.transformer.environments;
  std::int64_t numbers = 2 * rows * width + 1;
  std::int64_t floats = step_scratch_floats(step.transformer);
  for (const PolicyPart& part : step.parts) {
    numbers += part.inputs.rows * (part.inputs.size() + part.actor_layers.back().outputs);
    floats = std::max({floats, mlp_scratch_floats(part.encoder_layers), mlp_scratch_floats(part.actor_layers)});
  }
  const BufferPool::Block block = BufferPool::global().take(static_cast<std::size_t>(numbers) * sizeof(float));
  float* const embedded = static_cast<float*>(block.data());
  float* const h = step.h != nullptr ? step.h : embedded + rows * width;
  float* const rest = embedded + 2 * rows * width;
  TransformerStep memory = step.transformer;
  memory.input = embedded;
  memory.output = h;
  // Invokes fn(part, its first row, first and last of its rows in the block, what it has of `rest`).
  const auto each = [&](std::int64_t begin, std::int64_t end, auto fn) {
    std::int64_t first = 0;
    float* own_rest = rest;
    for (const PolicyPart& part : step.parts) {
      const std::int64_t from = std::max(begin - first, std::int64_t{0});
      const std::int64_t to = std::min(end - first, part.inputs.rows);
      if (from < to) fn(part, first, from, to, own_rest);
      first += part.inputs.rows;
      own_rest += part.inputs.rows * (part.inputs.size() + part.actor_layers.back().outputs);
    }
  };
  parallel_for(rows, floats, threads, [&](std::int64_t begin, std::int64_t end, float* scratch) {
    each(begin, end, [&](const PolicyPart& part, std::int64_t first, std::int64_t from, std::int64_t to, float* seen) {
      MlpStep encoder = part.encoder;
      encoder.input = seen;
      encoder.output = embedded + first * width;
      fill_inputs(part.inputs, from, to, seen + from * part.inputs.size());
      own.mlp(encoder, part.encoder_layers, from, to, scratch);
      for (std::int64_t r = from; step.positions != nullptr && r < to; ++r) {
        const float* position = step.positions + (step.times > 0 ? part.inputs.time[r] : first + r) * width;
        for (std::int64_t i = 0; i < width; ++i) encoder.output[r * width + i] += position[i];
      }
    });
    own.transformer(memory, layers, begin, end, scratch);
    each(begin, end, [&](const PolicyPart& part, std::int64_t first, std::int64_t from, std::int64_t to, float* seen) {
      if (part.x == nullptr && part.action == nullptr) return;
      MlpStep actor = part.actor;
      actor.input = h + first * width;
      actor.output = part.x != nullptr ? part.x : seen + part.inputs.rows * part.inputs.size();
      own.mlp(actor, part.actor_layers, from, to, scratch);
      const std::int64_t outputs = part.actor_layers.back().outputs;
      for (std::int64_t r = from; part.action != nullptr && r < to; ++r) {
        draw_action(part, actor.output + r * outputs, outputs, r);
      }
    });
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
