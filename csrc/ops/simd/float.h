// The number types that the CPU kernels read and write.
#pragma once

#include <cstdint>

namespace twohot::ops {

enum class Float : std::uint8_t { float32, bfloat16, float16 };

constexpr std::int64_t bytes_of(Float dtype) noexcept { return dtype == Float::float32 ? 4 : 2; }

}  // namespace twohot::ops
