// A pair of append-only files that one writer fills with finished trajectories.
//
// NAME.data: a header of 128 bytes, then for each trajectory a record of 128 bytes and the block of its columns (see
// Layout), at offsets that are multiples of 64. NAME.journal: such a header, then a copy of each record; a trajectory
// is committed once its copy stands there, which is after its data. Every header and record carries its own checksum
// and the checksum of its block. All numbers are little-endian. What was committed stays as it is: neither file becomes
// shorter after it, and what does not count any more is marked by the name of another file (see listing.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/files.h"
#include "replay/listing.h"
#include "replay/segment_format.h"
#include "replay/trajectory.h"

namespace twohot {

// What is wrong with a file, in words.
struct Problem {
  std::string file;
  std::string what;
};

// A record with its trajectory.
struct Committed {
  std::shared_ptr<Trajectory> trajectory;
  std::int64_t time;
};

// A segment as its readers see it. Thread-safe where it says so; held by shared_ptr, and by every trajectory in it. Its
// data stay mapped as long as more may be read from it, and as long as there are trajectories of it.
class Segment : public std::enable_shared_from_this<Segment> {
 public:
  // Opens the two files. Throws FileError, and std::runtime_error where a header is not that of this segment.
  Segment(const std::string& directory, SegmentName name, const Layout& layout, Cut cut = {});

  SegmentName name() const noexcept { return name_; }
  const std::string& data_path() const noexcept { return data_path_; }
  const std::string& journal_path() const noexcept { return journal_path_; }

  // The trajectories committed since the last call; all of them where the journal was rebuilt since. A record that
  // does not hold is left out and described in `problems`; one that is not whole yet is left for later. Throws
  // FileError, and std::runtime_error as the constructor. O(new records).
  std::vector<Committed> read(const Layout& layout, std::vector<Problem>& problems);

  // The trajectory of a record whose data stand in the file. For the writer, and not after end().
  std::shared_ptr<Trajectory> adopt(const Record& record, const Layout& layout);

  // The writer has committed `records` more, which need not be read.
  void count(std::int64_t records) noexcept;

  // Nothing more is to be read.
  void end() noexcept;

  // Nothing more can be read, though there may be more: a repair may find it.
  void spoil();

  // Only what the cut leaves counts from now on.
  void cut(Cut cut);
  const Cut& cut() const noexcept { return cut_; }

  // Whether this trajectory of the segment counts.
  bool counts(const Trajectory& trajectory) const noexcept { return trajectory.offset < cut_.data_bytes; }

  // Whether all that it holds was read and let go, and no writer will add to it. What is corrupt may still be repaired,
  // and is not gone. Throws FileError. O(1).
  bool gone(const Layout& layout) const;

  // Whether the block of this trajectory has the checksum of its record. Thread-safe. O(bytes).
  bool intact(const Trajectory& trajectory, const Layout& layout) const;

  // Records that count and were read.
  std::int64_t records() const noexcept { return records_; }

  // A trajectory that read() gave or count() counted is of no more use. Thread-safe.
  void let_go() noexcept { --stored_; }

 private:
  const SegmentName name_;
  const std::string data_path_;
  const std::string journal_path_;
  std::shared_ptr<const Mapping> mapping_;  // its file is closed: there may be more segments than descriptors
  std::uint64_t journal_checksum_ = 0;      // of its header
  Cut cut_;
  bool ended_ = false;  // its writer has, and everything was read
  std::int64_t records_ = 0;
  std::vector<std::int64_t> corrupt_records_;  // their indices
  std::atomic<std::int64_t> stored_{0};
};

}  // namespace twohot
