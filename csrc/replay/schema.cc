#include "replay/schema.h"

#include <array>
#include <set>
#include <stdexcept>

#include "core/hash.h"
#include "replay/codec.h"

namespace twohot {
namespace {

constexpr std::array<DTypeInfo, 12> dtypes{{{"bool", 'b', 1},
                                            {"uint8", 'u', 1},
                                            {"int8", 'i', 1},
                                            {"int16", 'i', 2},
                                            {"int32", 'i', 4},
                                            {"int64", 'i', 8},
                                            {"uint16", 'u', 2},
                                            {"float16", 'f', 2},
                                            {"float32", 'f', 4},
                                            {"float64", 'f', 8},
                                            {"uint32", 'u', 4},
                                            {"uint64", 'u', 8}}};

constexpr std::size_t max_row_bytes = std::size_t{1} << 32;
constexpr std::size_t max_packed_row_bytes = std::size_t{1} << 28;

std::size_t bytes_of_row(const Field& field) {
  std::size_t bytes = info(field.dtype).size;
  for (const std::int64_t extent : field.shape) {
    if (extent < 1) {
      throw std::invalid_argument("field '" + field.name + "': expected extents of at least 1, got " +
                                  std::to_string(extent));
    }
    if (static_cast<std::size_t>(extent) > max_row_bytes / bytes) {
      throw std::invalid_argument("field '" + field.name + "': one row exceeds 2^32 bytes");
    }
    bytes *= static_cast<std::size_t>(extent);
  }
  return bytes;
}

}  // namespace

const DTypeInfo& info(DType dtype) noexcept { return dtypes[static_cast<std::size_t>(dtype)]; }

DType dtype_named(std::string_view name) {
  std::string known;
  for (std::size_t i = 0; i < dtypes.size(); ++i) {
    if (dtypes[i].name == name) return static_cast<DType>(i);
    known += (i == 0 ? "" : ", ") + std::string(dtypes[i].name);
  }
  throw std::invalid_argument("expected a dtype among " + known + "; got '" + std::string(name) + "'");
}

Layout::Layout(Schema schema) : observations_(schema.observation.size()) {
  if (schema.observation.empty()) throw std::invalid_argument("expected at least one observation field, got none");
  std::set<std::string> names;
  for (const Field& field : schema.observation) {
    if (field.name.empty()) throw std::invalid_argument("expected a name for each observation field, got ''");
    if (!names.insert(field.name).second) {
      throw std::invalid_argument("observation field '" + field.name + "' comes twice");
    }
  }
  schema.action.name = "action";
  if (!schema.action.codec.empty()) throw std::invalid_argument("an action cannot be compressed");
  std::vector<Field> steps{std::move(schema.action),
                           {"reward", DType::float32, {}},
                           {"terminated", DType::boolean, {}},
                           {"truncated", DType::boolean, {}}};
  names.clear();
  for (const Field& field : steps) names.insert(field.name);
  for (Field& field : schema.step) {
    if (field.name.empty()) throw std::invalid_argument("expected a name for each step field, got ''");
    if (!names.insert(field.name).second) {
      throw std::invalid_argument("step field '" + field.name + "' comes twice, or is one that every trajectory has");
    }
    steps.push_back(std::move(field));
  }
  std::string text;
  const auto add = [&](Field& field, std::int64_t extra_rows) {
    const std::size_t bytes = bytes_of_row(field);
    text += field.name + ":" + std::string(info(field.dtype).name);
    for (const std::int64_t extent : field.shape) text.append(",").append(std::to_string(extent));
    const Codec* codec = nullptr;
    if (!field.codec.empty()) {
      codec = &Codec::named(field.codec);
      compresses_ = true;
      text.append("/").append(field.codec);
      if (bytes > max_packed_row_bytes) {
        throw std::invalid_argument("field '" + field.name + "': one row exceeds 2^28 bytes, the most to compress");
      }
    }
    text += extra_rows != 0 ? ";" : "|";
    columns_.push_back({std::move(field), extra_rows, bytes, codec});
    row_bytes_ += bytes;
  };
  for (Field& field : schema.observation) add(field, 1);
  for (Field& field : steps) add(field, 0);
  fingerprint_ = hash64(text.data(), text.size());
}

}  // namespace twohot
