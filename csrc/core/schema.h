// What one trajectory holds: named observation fields, an action, and the fixed step fields.
// Values of these classes are immutable after construction and may be read from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace twohot {

enum class DType : std::uint8_t { boolean, uint8, int8, int16, int32, int64, uint16, float16, float32, float64 };

// `name` and `kind` ('b', 'u', 'i' or 'f') are numpy's; `size` is in bytes.
struct DTypeInfo {
  std::string_view name;
  char kind;
  std::size_t size;
};

const DTypeInfo& info(DType dtype) noexcept;

// Throws std::invalid_argument, listing the supported names, for any other name.
DType dtype_named(std::string_view name);

struct Field {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
};

struct Schema {
  std::vector<Field> observation;
  Field action;
};

// One column of a trajectory of T steps: T + extra_rows rows, where extra_rows is 1 for observations and else 0.
struct Column {
  Field field;
  std::int64_t extra_rows;
  std::size_t row_bytes;
};

// The columns of a schema in their fixed order (the observation fields, action, reward, terminated, truncated) and
// where each lies in the one block of memory that holds a trajectory.
class Layout {
 public:
  static constexpr std::size_t alignment = 64;

  // Throws std::invalid_argument when there is no observation field, a name is empty or comes twice, an extent is below
  // 1, or a row exceeds 2^32 bytes.
  explicit Layout(Schema schema);

  std::span<const Column> columns() const noexcept { return columns_; }
  std::size_t observations() const noexcept { return observations_; }
  std::size_t action() const noexcept { return observations_; }
  std::size_t reward() const noexcept { return observations_ + 1; }
  std::size_t terminated() const noexcept { return observations_ + 2; }
  std::size_t truncated() const noexcept { return observations_ + 3; }

  // Bytes of the block of a trajectory of `steps` steps: every column starts on a multiple of `alignment`.
  std::size_t bytes(std::int64_t steps) const noexcept;

  // Bytes that `column` takes in such a block, its alignment included.
  static std::size_t bytes(const Column& column, std::int64_t steps) noexcept;

 private:
  std::vector<Column> columns_;
  std::size_t observations_;
};

}  // namespace twohot
