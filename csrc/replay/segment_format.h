// The bytes of a segment's files: headers, records and their checksums. For those that read and write them.
#pragma once

#include <cstdint>
#include <string>

#include "core/files.h"
#include "replay/listing.h"
#include "replay/trajectory.h"

namespace twohot {

// As it lies in the files.
struct Record {
  static constexpr std::uint64_t marked = 0x31647263746f6874u;  // "thotcrd1"
  enum Flag : std::uint32_t { is_protected = 1 };

  std::uint64_t mark;
  std::int64_t id;
  std::int64_t offset;  // of the block in the data file
  std::int64_t bytes;   // of the block
  std::int64_t length;
  std::int64_t origin;
  std::int64_t time;  // nanoseconds since 1970
  double total_reward;
  std::int32_t task;
  std::uint32_t flags;
  std::uint64_t block_checksum;
  std::uint64_t reserved[5];
  std::uint64_t checksum;  // of all before it, seeded by the segment's name
};
static_assert(sizeof(Record) == 128);

// Where records begin, in either file.
constexpr std::int64_t data_begin = 128;

struct Header {
  char mark[16];
  std::uint32_t version;  // 1 where the writer counted, 2 where it was drawn
  std::uint32_t journal;  // 1 in a journal
  std::uint64_t schema;
  std::uint32_t writer;  // its lower half
  std::uint32_t number;
  std::uint64_t max_bytes;
  std::uint64_t rebuilt;  // 0, or a number that tells this journal from the one that it replaced
  std::uint32_t writer_high;
  std::uint32_t reserved[15];
  std::uint64_t checksum;
};
static_assert(sizeof(Header) == data_begin);

Header make_header(SegmentName name, const Layout& layout, std::size_t max_bytes, bool journal,
                   std::uint64_t rebuilt = 0);

// Throws std::runtime_error where the file has no header of this segment and schema, and FileError.
Header read_header(const File& file, SegmentName name, const Layout& layout, bool journal);

std::uint64_t record_checksum(const Record& record, SegmentName name);

// Of a packed block, else of the used bytes of every column, in order. O(bytes).
std::uint64_t block_checksum(const Trajectory& trajectory, const Layout& layout);

// Whether the record is whole and of this segment.
bool whole(const Record& record, SegmentName name);

// What is wrong with a record of a data file of `data_bytes`, as the predicate of a sentence, or "".
std::string fault_of(const Record& record, SegmentName name, const Layout& layout, std::int64_t data_bytes);

// The size of the block where it is packed, else 0.
std::size_t packed_bytes(const Record& record, const Layout& layout);

}  // namespace twohot
