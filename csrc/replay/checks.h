// Checks of the values that enter a replay. Free functions, safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "replay/schema.h"

namespace twohot {

// The first of `rows` rows at `data` that holds a NaN and is active (`active` null, or active[row] != 0), or -1.
// Integer columns, and columns that may hold NaN, have none. O(rows x elements), one vectorised pass where there is no
// NaN.
std::int64_t first_nan(const Column& column, const std::byte* data, std::int64_t rows, const std::uint8_t* active);

// The first active row whose float32 value is NaN or infinite, or -1. O(rows).
std::int64_t first_not_finite(const std::byte* data, std::int64_t rows, const std::uint8_t* active);

}  // namespace twohot
