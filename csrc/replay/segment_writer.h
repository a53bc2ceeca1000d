// The writing side of a segment.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "replay/segment.h"

namespace twohot {

// The only one that appends to its segment. Not thread-safe.
class SegmentWriter {
 public:
  ~SegmentWriter();
  // Creates the files, whose name must be fresh, for `max_bytes` of records and blocks, and holds the lock of the
  // journal, which comes first. Throws FileError, EEXIST where somebody else has the name, and leaves no file behind;
  // the name is used up all the same, as a reader may have seen it.
  SegmentWriter(const std::string& directory, SegmentName name, const Layout& layout, std::size_t max_bytes);

  // What a trajectory takes in the data file.
  static std::size_t bytes(const Trajectory& trajectory, const Layout& layout) noexcept {
    return sizeof(Record) + trajectory.data.bytes(layout);
  }

  bool fits(std::size_t more_bytes) const noexcept { return end_ + more_bytes <= max_bytes_; }

  // Writes and commits trajectories that have their ids, all or none, at a time in nanoseconds since 1970, and replaces
  // each by its form in the file. With `durable` all is on the disk when this returns. Throws FileError and
  // std::bad_alloc. O(bytes).
  void append(std::span<std::shared_ptr<Trajectory>> finished, const Layout& layout, std::int64_t time, bool durable);

  // Whether a failure left more in the files than was committed: nothing may be appended then, and only committed()
  // counts.
  bool broken() const noexcept { return broken_; }
  Cut committed() const noexcept;

  // Whether somebody has removed its files. Throws FileError.
  bool removed() const { return !journal_.named(); }

  // Everything appended is on the disk when this returns. Throws FileError.
  void sync() const;

  const std::shared_ptr<Segment>& segment() const noexcept { return segment_; }

 private:
  Record write(const Trajectory& trajectory, const Layout& layout, std::int64_t offset, std::int64_t time) const;

  const SegmentName name_;
  const File journal_;
  const std::uint64_t process_;
  std::unique_ptr<const File> data_;
  std::shared_ptr<Segment> segment_;
  const std::size_t max_bytes_;
  std::size_t end_ = data_begin;
  std::int64_t journal_end_ = data_begin;
  bool broken_ = false;
};

}  // namespace twohot
