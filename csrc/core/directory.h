// The segments of a replay in one directory: those of other writers, and the one that this process appends to.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/segment.h"

namespace twohot {

// Files of a replay that do not hold, in words that name the first.
class DamageError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// How many trajectories each segment held at a moment.
using Extents = std::map<std::string, std::int64_t>;

// Not thread-safe: its owner locks. Any number of processes may append to a directory, each to segments of its own, and
// read it. The directory must exist.
class Directory {
 public:
  // A segment ends before it exceeds `segment_bytes`, unless one call's trajectories alone do.
  Directory(std::string path, std::size_t segment_bytes, bool durable);

  const std::string& path() const noexcept { return path_; }

  // What was committed since the last call, oldest first; the order is the same whenever the directory is opened. A
  // segment or record that does not hold is left out and described in problems(). Throws FileError. O(segments + new
  // trajectories).
  std::vector<std::shared_ptr<Trajectory>> scan(const Layout& layout);

  // Gives the trajectories their ids, writes and commits them, all or none, and replaces each by its form in the file.
  // Throws FileError and std::bad_alloc. O(bytes).
  void append(std::span<std::shared_ptr<Trajectory>> finished, const Layout& layout);

  // The names of segments without a writer all of whose trajectories are gone. Throws FileError. O(segments).
  std::vector<std::string> gone() const;

  // Removes the files of these of them; returns the bytes that they had. Trajectories that are still in use elsewhere in
  // this process stay readable. Throws FileError. O(segments).
  std::int64_t reclaim(const std::vector<std::string>& names);

  // Throws FileError.
  void sync() const;

  // Records of each segment that were read or written so far, but of those that are gone.
  Extents extents() const;

  // Everything found wrong so far.
  const std::vector<Problem>& problems() const noexcept { return problems_; }

 private:
  bool gone(const Segment& segment) const;
  void start_segment(const Layout& layout, std::size_t bytes);

  const std::string path_;
  const std::size_t segment_bytes_;
  const bool durable_;
  std::map<SegmentName, std::shared_ptr<Segment>> segments_;
  std::set<SegmentName> refused_;  // damaged ones, not to be tried again
  std::optional<SegmentWriter> writer_;
  std::uint32_t writer_number_ = 0;
  std::uint32_t next_segment_ = 0;
  std::int64_t next_id_ = 0;
  std::vector<Problem> problems_;
};

// Takes back what was committed after `extents` were taken, as if it had never been written: no segment may have a
// writer. Throws std::runtime_error where one has, or where a segment holds less than it did then, and FileError.
void roll_back(const std::string& directory, const Extents& extents);

// Rebuilds every journal, lost ones too, from intact data, moves what no trajectory can be read from to
// `directory`/damaged, and removes segments without a byte behind their headers. No segment may have a writer. Returns what was lost. Throws as roll_back.
std::vector<Problem> repair(const std::string& directory, const Layout& layout);

}  // namespace twohot
