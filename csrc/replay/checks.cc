#include "replay/checks.h"

#include <cmath>

namespace twohot {
namespace {

template <typename Word, typename IsBad>
bool any(const std::byte* data, std::size_t count, IsBad is_bad) {
  const auto* values = reinterpret_cast<const Word*>(data);
  int found = 0;
  for (std::size_t i = 0; i < count; ++i) found |= static_cast<int>(is_bad(values[i]));
  return found != 0;
}

bool any_nan(DType dtype, const std::byte* data, std::size_t bytes) {
  const auto is_nan = [](auto value) { return value != value; };
  switch (dtype) {
    case DType::float16:
      return any<std::uint16_t>(data, bytes / 2, [](std::uint16_t bits) { return (bits & 0x7fff) > 0x7c00; });
    case DType::float32: return any<float>(data, bytes / 4, is_nan);
    case DType::float64: return any<double>(data, bytes / 8, is_nan);
    default: return false;
  }
}

}  // namespace

std::int64_t first_nan(const Column& column, const std::byte* data, std::int64_t rows, const std::uint8_t* active) {
  const DType dtype = column.field.dtype;
  if (column.field.nan || !any_nan(dtype, data, static_cast<std::size_t>(rows) * column.row_bytes)) return -1;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::byte* at = data + static_cast<std::size_t>(row) * column.row_bytes;
    if ((active == nullptr || active[row] != 0) && any_nan(dtype, at, column.row_bytes)) return row;
  }
  return -1;
}

std::int64_t first_not_finite(const std::byte* data, std::int64_t rows, const std::uint8_t* active) {
  const auto* values = reinterpret_cast<const float*>(data);
  for (std::int64_t row = 0; row < rows; ++row) {
    if ((active == nullptr || active[row] != 0) && !std::isfinite(values[row])) return row;
  }
  return -1;
}

}  // namespace twohot
