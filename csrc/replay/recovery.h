// Going back to an earlier state of a directory, and making the best of a corrupt one.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "replay/schema.h"
#include "replay/segment.h"

namespace twohot {

// A moment of a directory to return to: how many trajectories each segment held.
using Position = std::map<std::string, std::int64_t>;

// Takes back what was committed after `position` was taken, as if it had never been written: no segment may have a
// writer. No file becomes shorter, so that a process that has it mapped goes on, and learns at its next scan what does
// not count any more; the space comes back with the rest of the segment. Throws std::runtime_error where a segment has
// a writer, or is gone, or holds less than it did then, and FileError. What it did until then stays; the same call does
// the rest. Segments of `evicted` stay as they are, if they are there. O(files).
void roll_back(const std::string& directory, const Position& position, const std::set<std::string>& evicted = {});

// Rebuilds journals that are lost or do not hold from intact data, moves what no trajectory can be read from, and what
// is no file at all, to `directory`/damaged, and removes leftovers. No segment may have a writer. Returns what
// was lost. Throws as roll_back. O(bytes).
std::vector<Problem> repair(const std::string& directory, const Layout& layout);

}  // namespace twohot
