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
#include <tuple>
#include <utility>
#include <vector>

#include "replay/recovery.h"
#include "replay/segment_writer.h"

namespace twohot {

// Files of a replay that are corrupt, in words that name the first.
class CorruptionError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Not thread-safe: its owner locks. Any number of processes on any number of hosts may append to a directory, each to
// segments of its own, and read it, as long as flock holds among all of them. The directory must exist.
class Directory {
 public:
  // A segment ends before it exceeds `segment_bytes`, unless one call's trajectories alone do. Ids count from 0 where
  // the directory was made for this, once in its life, and else from a random number far above.
  Directory(std::string path, std::size_t segment_bytes, bool durable, bool made);

  const std::string& path() const noexcept { return path_; }

  // What was committed since the last call, oldest first; the order is the same whenever the directory is opened. A
  // segment or record that does not hold is left out and described in problems(). Lets go of segments that were
  // removed; shrunk() says whether there were any. Throws FileError; what was found until then comes with the next
  // call. O(files + new trajectories).
  std::vector<std::shared_ptr<Trajectory>> scan(const Layout& layout);

  // Whether trajectories of earlier scans or appends have ceased to count, because their segments were removed or cut,
  // since the last call of this.
  bool shrunk() noexcept { return std::exchange(shrunk_, false); }

  // Gives the trajectories their ids, writes and commits them, all or none, and replaces each by its form in the file.
  // An id is never given twice, whatever is removed or rolled back. Throws FileError and std::bad_alloc. O(bytes).
  void append(std::span<std::shared_ptr<Trajectory>> finished, const Layout& layout);

  // The names of segments without a writer all of whose trajectories are gone. Throws FileError. O(segments).
  std::vector<std::string> gone(const Layout& layout) const;

  // Removes the files of these of them; returns the bytes that they had. Trajectories that are still in use, here or in
  // other processes, stay readable there. Throws FileError. O(segments).
  std::int64_t reclaim(const std::vector<std::string>& names, const Layout& layout);

  // Throws FileError.
  void sync() const;

  // Records of each segment that were read or written so far, but of those that are gone or have none.
  Position position(const Layout& layout) const;

  // Everything found wrong so far.
  const std::vector<Problem>& problems() const noexcept { return problems_; }

 private:
  using Found = std::tuple<std::int64_t, std::uint64_t, std::shared_ptr<Trajectory>>;  // after its time and its writer

  bool gone(const Segment& segment, const Layout& layout) const;
  bool look(const Layout& layout);              // whether nothing was removed meanwhile
  bool forget_removed(const Listing& listing);  // whether anything was
  bool open_segment(SegmentName name, const SegmentFiles& files, const Layout& layout);  // false where it was removed
  void refuse(SegmentName name, const std::string& path, const std::string& what);
  void start_segment(const Layout& layout, std::size_t bytes);
  void end_segment();

  const std::string path_;
  const std::size_t segment_bytes_;
  const bool durable_;
  std::map<SegmentName, std::shared_ptr<Segment>> segments_;
  std::set<SegmentName> refused_;  // corrupt ones, not to be tried again
  std::vector<Found> found_;       // read, and not returned yet
  bool shrunk_ = false;
  std::int64_t latest_ = 0;  // time of all that was read or written
  std::optional<SegmentWriter> writer_;
  SegmentName next_{0, 0};  // none yet where its writer is 0
  std::int64_t next_id_;
  std::vector<Problem> problems_;
};

}  // namespace twohot
