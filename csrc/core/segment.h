// A pair of append-only files that one writer fills with finished trajectories.
//
// NAME.data: a header of 128 bytes, then for each trajectory a record of 128 bytes and the block of its columns (see
// Layout), at offsets that are multiples of 64. NAME.journal: such a header, then a copy of each record; a trajectory is
// committed once its copy stands there, which is after its data. Every header and record carries its own checksum and
// the checksum of its block. All numbers are little-endian.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/trajectory.h"

namespace twohot {

// What is wrong with a file, in words.
struct Problem {
  std::string file;
  std::string what;
};

// Which segment of a directory: writers count from 0, and each numbers its segments from 0.
struct SegmentName {
  std::uint32_t writer;
  std::uint32_t number;

  auto operator<=>(const SegmentName&) const = default;
  std::string text() const;  // "00000002-00000000"

  // The name of a journal, or nothing for any other file.
  static std::optional<SegmentName> of_journal(const std::string& file);
};

// As it lies in the files.
struct Record {
  static constexpr std::uint64_t marked = 0x31647263746f6874u;  // "thotcrd1"
  enum Flag : std::uint32_t { kept = 1 };

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

// A record with its trajectory.
struct Committed {
  std::shared_ptr<Trajectory> trajectory;
  std::int64_t time;
};

// A segment as its readers see it. Thread-safe where it says so; held by shared_ptr, and by every trajectory in it.
class Segment : public std::enable_shared_from_this<Segment> {
 public:
  // Opens the two files. Throws FileError, and std::runtime_error where a header is not that of this segment.
  Segment(const std::string& directory, SegmentName name, const Layout& layout);

  SegmentName name() const noexcept { return name_; }
  const std::string& data_path() const noexcept { return data_path_; }
  const std::string& journal_path() const noexcept { return journal_path_; }

  // The trajectories committed since the last call. A record that does not hold is left out and described in
  // `problems`; one that is not whole yet is left for later. Throws FileError. O(new records).
  std::vector<Committed> read(const Layout& layout, std::vector<Problem>& problems);

  // The trajectory of a record whose data stand in the file. For the writer.
  std::shared_ptr<Trajectory> adopt(const Record& record, const Layout& layout);

  // The writer has committed so many more, which need not be read.
  void count(std::int64_t records) noexcept { records_ += records; }

  // Whether its writer may still append. Throws FileError.
  bool live() const;

  // Whether the journal holds records that were not read. Throws FileError.
  bool unread() const { return whole_records() > records_; }

  // Whether the block of this trajectory has the checksum of its record. Thread-safe. O(bytes).
  bool intact(const Trajectory& trajectory, const Layout& layout) const;

  // Records read, and those whose trajectories are of no more use; a damaged one may still be repaired. Thread-safe.
  std::int64_t records() const noexcept { return records_; }
  std::int64_t gone() const noexcept { return gone_; }
  void let_go() noexcept { ++gone_; }

 private:
  std::int64_t whole_records() const;

  const SegmentName name_;
  const std::string data_path_;
  const std::string journal_path_;
  std::optional<Mapping> mapping_;  // its file is closed: there may be more segments than descriptors
  std::atomic<bool> ended_{false};  // its writer has, and everything was read
  std::atomic<std::int64_t> records_{0};
  std::atomic<std::int64_t> gone_{0};
};

// The only one that appends to its segment. Not thread-safe.
class SegmentWriter {
 public:
  ~SegmentWriter();
  // Creates the files, which must not exist, for `most_bytes` of records and blocks, and locks the journal. Throws
  // FileError, and leaves no file behind; EEXIST means that another writer has the name.
  SegmentWriter(const std::string& directory, SegmentName name, const Layout& layout, std::size_t most_bytes);

  // What a trajectory takes in the data file.
  static std::size_t bytes(const Trajectory& trajectory, const Layout& layout) noexcept {
    return sizeof(Record) + trajectory.rows.bytes(layout);
  }

  bool fits(std::size_t more_bytes) const noexcept { return end_ + more_bytes <= most_bytes_; }

  // Writes and commits trajectories that have their ids, all or none, and replaces each by its form in the file. With
  // `durable` all is on the disk when this returns. Throws FileError and std::bad_alloc. O(bytes).
  void append(std::span<std::shared_ptr<Trajectory>> finished, const Layout& layout, bool durable);

  // Everything appended is on the disk when this returns. Throws FileError.
  void sync() const;

  const std::shared_ptr<Segment>& segment() const noexcept { return segment_; }

 private:
  Record write(const Trajectory& trajectory, const Layout& layout, std::int64_t offset) const;

  const SegmentName name_;
  const File data_;
  const File journal_;
  std::shared_ptr<Segment> segment_;
  const std::size_t most_bytes_;
  const std::uint64_t process_;
  std::size_t end_;
  std::int64_t journal_end_;
};

// How many bytes of the data file the first `records` records of a journal make up. Throws FileError, and
// std::runtime_error where the journal has fewer, or where the last of them does not hold.
std::int64_t data_extent(const std::string& directory, SegmentName name, std::int64_t records);

// Makes the journal of a segment anew from all records, in its data file or its journal, whose blocks are intact; the
// segment must have no writer. Appends what was left out to `problems` and returns the number of trajectories that
// it holds now. Throws FileError, and std::runtime_error where the data file has no header of this segment. O(bytes).
std::int64_t rebuild_journal(const std::string& directory, SegmentName name, const Layout& layout,
                             std::vector<Problem>& problems);

}  // namespace twohot
