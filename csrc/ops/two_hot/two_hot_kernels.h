// What the dispatcher of two_hot.h hands to the loops of each instruction set.
#pragma once

#include <cstdint>

#include "ops/two_hot/two_hot.h"

namespace twohot::ops {

constexpr float signed_sqrt_slope = 1e-3f;  // of the linear part of the signed square root

// A support as the loops read it, filled up with zeros to whole vectors.
struct BinValues {
  static constexpr std::int64_t padding = 16;

  float all[max_bins + padding];        // what each bin adds to the readout
  float upper[max_bins / 2 + padding];  // its upper half
  float points[max_bins];               // f^-1 of the centers
  bool antisymmetric;                   // all[k] == -all[bins - 1 - k]
  ReadoutKind readout_kind;             // raw for linear bins, which are their own values
  Transform transform;
  float low;
  float high;
  float per_bin;  // bins in one unit of transformed space

  // Fills `all` and `upper` for a readout, `points` for two_hot_raw labels.
  BinValues(const Support& support, std::int64_t bins, bool readout, LabelKind labels) noexcept;
};

// Rows begin .. end - 1. `large`: the gradient is larger than the caches.
struct TwoHotKernels {
  const char* name;
  void (*cross_entropy)(const Logits&, const BinValues&, const Labels&, const CrossEntropy&, std::int64_t begin,
                        std::int64_t end, bool large) noexcept;
  void (*expectation)(const Logits&, const BinValues&, const Expectation&, std::int64_t begin,
                      std::int64_t end) noexcept;
};

}  // namespace twohot::ops
