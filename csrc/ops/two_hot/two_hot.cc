#include "ops/two_hot/two_hot.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/thread_pool.h"
#include "ops/simd/dispatch.h"
#include "ops/two_hot/two_hot_kernels.h"

namespace twohot::ops {
namespace {

// Elements that a thread takes at a time: large enough to amortise scheduling, small enough to balance load.
constexpr std::int64_t grain_elements = std::int64_t{1} << 16;
// Below this many elements a second thread costs more than it brings.
constexpr std::int64_t elements_for_threads = std::int64_t{1} << 18;
// A gradient of more bytes than this exceeds the last-level cache, so that non-temporal stores pay off.
constexpr std::int64_t large_bytes = std::int64_t{1} << 24;

// Invokes fn(begin, end) for blocks of rows.
void parallel_for(const Logits& logits, int threads, const std::function<void(std::int64_t, std::int64_t)>& fn) {
  if (threads <= 1 || logits.rows * logits.bins < elements_for_threads) {
    fn(0, logits.rows);
    return;
  }
  const std::int64_t block = std::max<std::int64_t>(1, grain_elements / logits.bins);
  global_thread_pool(threads)->run((logits.rows + block - 1) / block,
                                   [&](std::int64_t i) { fn(i * block, std::min(logits.rows, (i + 1) * block)); });
}

double inverse(double x, Transform transform) noexcept {
  const double a = std::abs(x);
  double y = a;
  if (transform == Transform::symlog) y = std::expm1(a);
  if (transform == Transform::signed_sqrt) {
    const double d = 2 * a / (std::sqrt(4e-3 * a + 1.004004) + 1.002);
    y = d * (d + 2);
  }
  return std::copysign(y, x);
}

}  // namespace

BinValues::BinValues(const Support& support, std::int64_t bins, bool readout, LabelKind labels) noexcept
    : antisymmetric(support.low == -support.high),
      readout_kind(support.transform == Transform::linear ? ReadoutKind::raw : support.readout_kind),
      transform(support.transform),
      low(static_cast<float>(support.low)),
      high(static_cast<float>(support.high)),
      per_bin(static_cast<float>(static_cast<double>(bins - 1) / (support.high - support.low))) {
  if (!readout && labels != LabelKind::two_hot_raw) return;
  const double step = (support.high - support.low) / static_cast<double>(bins - 1);
  for (std::int64_t k = 0; k < bins; ++k) {
    // From both ends, so that a symmetric support has symmetric centers.
    const double up = support.low + static_cast<double>(k) * step;
    const double down = support.high - static_cast<double>(bins - 1 - k) * step;
    const double center = (up + down) / 2;
    points[k] = static_cast<float>(inverse(center, transform));
    all[k] = readout_kind == ReadoutKind::raw ? points[k] : static_cast<float>(center);
  }
  std::fill_n(all + bins, padding, 0.0f);
  const std::int64_t half = bins / 2;
  std::copy_n(all + bins - half, half, upper);
  std::fill_n(upper + half, padding, 0.0f);
}

void cross_entropy(const Logits& logits, const Support& support, const Labels& labels, const CrossEntropy& pass,
                   int threads) {
  const BinValues values(support, logits.bins, pass.readout != nullptr, labels.kind);
  const bool large = logits.rows * logits.bins * bytes_of(logits.dtype) >= large_bytes;
  parallel_for(logits, threads, [&](std::int64_t begin, std::int64_t end) {
    kernels<TwoHotKernels>().cross_entropy(logits, values, labels, pass, begin, end, large);
  });
}

double sum(const float* loss, std::int64_t rows) noexcept {
  double a = 0;
  double b = 0;
  double c = 0;
  double d = 0;
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    a += static_cast<double>(loss[r]);
    b += static_cast<double>(loss[r + 1]);
    c += static_cast<double>(loss[r + 2]);
    d += static_cast<double>(loss[r + 3]);
  }
  for (; r < rows; ++r) a += static_cast<double>(loss[r]);
  return (a + b) + (c + d);
}

void expectation(const Logits& logits, const Support& support, const Expectation& pass, int threads) {
  const BinValues values(support, logits.bins, true, LabelKind::two_hot);
  parallel_for(logits, threads, [&](std::int64_t begin, std::int64_t end) {
    kernels<TwoHotKernels>().expectation(logits, values, pass, begin, end);
  });
}

}  // namespace twohot::ops
