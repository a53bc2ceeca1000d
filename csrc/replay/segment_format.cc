#include "replay/segment_format.h"

#include <bit>
#include <cstddef>
#include <cstring>
#include <stdexcept>

#include "core/hash.h"

namespace twohot {
namespace {

constexpr std::int64_t max_steps = std::int64_t{1} << 40;

}  // namespace

Header make_header(SegmentName name, const Layout& layout, std::size_t max_bytes, bool journal, std::uint64_t rebuilt) {
  Header header{};
  std::memcpy(header.mark, "twohot segment\n", 16);
  header.version = name.drawn() ? 2 : 1;
  header.journal = journal ? 1 : 0;
  header.schema = layout.fingerprint();
  header.writer = static_cast<std::uint32_t>(name.writer);
  header.writer_high = static_cast<std::uint32_t>(name.writer >> 32);
  header.number = name.number;
  header.max_bytes = max_bytes;
  header.rebuilt = rebuilt;
  header.checksum = hash64(&header, offsetof(Header, checksum));
  return header;
}

Header read_header(const File& file, SegmentName name, const Layout& layout, bool journal) {
  Header header{};
  const auto refuse = [&](const std::string& what) { throw std::runtime_error("'" + file.path() + "' " + what); };
  if (file.read(&header, sizeof header, 0) < sizeof header) refuse("is too short to be a segment of a replay");
  const Header expected = make_header(name, layout, header.max_bytes, journal, header.rebuilt);
  if (std::memcmp(header.mark, expected.mark, sizeof header.mark) != 0) refuse("is no segment of a replay");
  if (header.checksum != hash64(&header, offsetof(Header, checksum))) refuse("has a corrupt header");
  if (header.version < 1 || header.version > 2) {
    refuse("is of version " + std::to_string(header.version) + ", this program reads versions 1 and 2");
  }
  if (header.schema != expected.schema) refuse("was written for another schema");
  if (header.checksum != expected.checksum) refuse("is not the file that its name says: it was renamed");
  return header;
}

std::uint64_t record_checksum(const Record& record, SegmentName name) {
  return hash64(&record, offsetof(Record, checksum), std::rotl(name.writer, 32) ^ name.number);
}

std::uint64_t block_checksum(const Trajectory& trajectory, const Layout& layout) {
  const TrajectoryData& data = trajectory.data;
  if (data.packed_block() != nullptr) return hash64(data.packed_block(), data.bytes(layout));
  Hash64 hash;
  for (std::size_t c = 0; c < layout.columns().size(); ++c) {
    const Column& column = layout.columns()[c];
    data.visit(layout, c, 0, trajectory.length + column.extra_rows, [&](const std::byte* source, std::int64_t count) {
      hash.add(source, static_cast<std::size_t>(count) * column.row_bytes);
    });
  }
  return hash.value();
}

bool whole(const Record& record, SegmentName name) {
  return record.mark == Record::marked && record.checksum == record_checksum(record, name);
}

std::string fault_of(const Record& record, SegmentName name, const Layout& layout, std::int64_t data_bytes) {
  if (!whole(record, name)) return "is corrupt";
  const bool sized = record.length >= 1 && record.length <= max_steps && record.bytes > 0 &&
                     static_cast<std::uint64_t>(record.length) <= (std::uint64_t{1} << 62) / layout.row_bytes() &&
                     (layout.compresses() ? record.bytes % static_cast<std::int64_t>(Layout::alignment) == 0
                                          : record.bytes == static_cast<std::int64_t>(layout.bytes(record.length)));
  if (!sized || record.offset < data_begin || record.offset % static_cast<std::int64_t>(Layout::alignment) != 0) {
    return "does not fit the schema";
  }
  if (record.offset > data_bytes || record.bytes > data_bytes - record.offset) {
    return "has a trajectory of " + std::to_string(record.length) + " steps past the end of its data";
  }
  return "";
}

std::size_t packed_bytes(const Record& record, const Layout& layout) {
  return layout.compresses() ? static_cast<std::size_t>(record.bytes) : 0;
}

}  // namespace twohot
