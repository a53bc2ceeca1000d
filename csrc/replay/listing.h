// The names of a replay's files in its directory.
//
// A segment is NAME.journal and NAME.data (see segment.h). NAME.K-X.cut, an empty file, says that its records from
// index K on, whose blocks lie at X or after it, do not count any more. NAME.removed says that what is left of it can
// go. A name is never given twice: its first part is drawn at random by each writer for itself, which no clock, process
// number or host has a part in, and its second part counts the segments of that writer.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace twohot {

// Which segment of a directory. Writers of the format before, which counted, are below `first_drawn`.
struct SegmentName {
  static constexpr std::uint64_t first_drawn = std::uint64_t{1} << 32;

  std::uint64_t writer;
  std::uint32_t number;

  auto operator<=>(const SegmentName&) const = default;
  bool drawn() const noexcept { return writer >= first_drawn; }
  std::string text() const;  // "9f3c01d2ab45e677-00000000"

  // The name with this text, or nothing.
  static std::optional<SegmentName> of(std::string_view text);
};

// A writer that nobody has been, nor will be. Throws std::runtime_error where the system gives no random bits.
std::uint64_t draw_writer();

// What counts of a segment: records with an index below `records` with blocks that begin before `data_bytes`.
struct Cut {
  std::int64_t records = std::numeric_limits<std::int64_t>::max();
  std::int64_t data_bytes = std::numeric_limits<std::int64_t>::max();

  bool operator==(const Cut&) const = default;
};

// Which files of a segment there are. `cut` is the shortest of its cuts.
struct SegmentFiles {
  bool journal = false;
  bool data = false;
  bool removed = false;
  std::optional<Cut> cut = {};
};

using Listing = std::map<SegmentName, SegmentFiles>;

// Every segment of which there is any file; other names are passed over. Throws FileError. O(files).
Listing list(const std::string& directory);

std::string journal_path(const std::string& directory, SegmentName name);
std::string data_path(const std::string& directory, SegmentName name);

// Whether nothing was committed to the segment: neither file reaches beyond its header, nor is anything but a file.
bool blank(const std::string& directory, SegmentName name);

// Whether a segment with this listing has lost its journal, as opposed to being removed or begun. Looks again.
bool lost_journal(const std::string& directory, SegmentName name, const SegmentFiles& files);

// Says that only `cut` counts of a segment, for good. Throws FileError.
void make_cut(const std::string& directory, SegmentName name, Cut cut);

// Removes the files of a segment that has no writer, in an order that leaves its trajectories either as they were or
// gone, whenever the process dies; remove_leftovers() then does the rest. Returns the bytes given back. Throws
// FileError.
std::int64_t remove_segment(const std::string& directory, SegmentName name);

// Removes what nobody needs: the rest of segments whose removal was begun, and what writers left that died before their
// first trajectory; what cannot be removed stays. Returns the bytes given back. Throws FileError. O(files).
std::int64_t remove_leftovers(const std::string& directory);

}  // namespace twohot
