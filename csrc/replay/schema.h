// What one trajectory holds: named observation fields, an action, the fixed step fields, and named step fields.
// Values of these classes are immutable after construction and may be read from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace twohot {

enum class DType : std::uint8_t {
  boolean,
  uint8,
  int8,
  int16,
  int32,
  int64,
  uint16,
  float16,
  float32,
  float64,
  uint32,
  uint64
};

// `name` and `kind` ('b', 'u', 'i' or 'f') are numpy's; `size` is in bytes.
struct DTypeInfo {
  std::string_view name;
  char kind;
  std::size_t size;
};

const DTypeInfo& info(DType dtype) noexcept;

// Throws std::invalid_argument, listing the supported names, for any other name.
DType dtype_named(std::string_view name);

// `nan`: whether a floating column may hold NaN. `codec`: how it is compressed ("lz4", "zstd"), or "".
struct Field {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  bool nan = false;
  std::string codec = {};
};

struct Schema {
  std::vector<Field> observation;
  Field action;
  std::vector<Field> step = {};
};

// Numbers of rows in a block: of the step columns and of the observation columns.
struct RowCounts {
  std::int64_t steps;
  std::int64_t observations;
};

class Codec;

// One column of a trajectory of T steps: T + extra_rows rows, where extra_rows is 1 for observations and else 0.
struct Column {
  Field field;
  std::int64_t extra_rows;
  std::size_t row_bytes;
  const Codec* codec = nullptr;
};

// The columns of a schema in their fixed order (the observation fields, action, reward, terminated, truncated, the
// step fields) and where each lies in a block of memory that holds some rows of all of them.
class Layout {
 public:
  static constexpr std::size_t alignment = 64;

  // Throws std::invalid_argument when there is no observation field, a name is empty or comes twice, a step field is
  // named as one of the fixed columns, an extent is below 1, a row exceeds 2^32 bytes (2^28 where it is compressed), or
  // a fixed column is to be compressed; and what Codec::named throws.
  explicit Layout(Schema schema);

  std::span<const Column> columns() const noexcept { return columns_; }
  std::size_t observations() const noexcept { return observations_; }
  std::size_t action() const noexcept { return observations_; }
  std::size_t reward() const noexcept { return observations_ + 1; }
  std::size_t terminated() const noexcept { return observations_ + 2; }
  std::size_t truncated() const noexcept { return observations_ + 3; }

  // The first of the schema's step fields; they are the last columns.
  std::size_t step_fields() const noexcept { return observations_ + 4; }

  // Bytes of one row of every column.
  std::size_t row_bytes() const noexcept { return row_bytes_; }

  // Whether any column is compressed where it is stored.
  bool compresses() const noexcept { return compresses_; }

  // A number that two layouts share when their columns agree in name, dtype, shape and codec.
  std::uint64_t fingerprint() const noexcept { return fingerprint_; }

  static std::int64_t rows(const Column& column, RowCounts counts) noexcept {
    return column.extra_rows != 0 ? counts.observations : counts.steps;
  }

  // Bytes of the block of a trajectory of `steps` steps: every column starts on a multiple of `alignment`. O(columns).
  std::size_t bytes(std::int64_t steps) const noexcept { return bytes(RowCounts{steps, steps + 1}); }
  std::size_t bytes(RowCounts counts) const noexcept { return offset(columns_.size(), counts); }

  // Where a column starts in a block of `counts` rows. O(columns).
  std::size_t offset(std::size_t column, RowCounts counts) const noexcept {
    std::size_t total = 0;
    for (std::size_t c = 0; c < column; ++c) total += bytes(columns_[c], counts);
    return total;
  }

  // Bytes that `column` takes in that block, its alignment included.
  static std::size_t bytes(const Column& column, RowCounts counts) noexcept {
    const std::size_t used = static_cast<std::size_t>(rows(column, counts)) * column.row_bytes;
    return (used + alignment - 1) / alignment * alignment;
  }

 private:
  std::vector<Column> columns_;
  std::size_t observations_;
  std::size_t row_bytes_ = 0;
  std::uint64_t fingerprint_ = 0;
  bool compresses_ = false;
};

}  // namespace twohot
