#include "replay/recovery.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <utility>

namespace twohot {
namespace {

constexpr auto record_bytes = static_cast<std::int64_t>(sizeof(Record));

void require_no_writer(const std::string& directory, const Listing& listing) {
  for (const auto& [name, files] : listing) {
    if (!files.journal) continue;
    bool locked = false;
    const std::string path = journal_path(directory, name);
    try {
      locked = File(path, File::Use::read).locked();
    } catch (const FileError& error) {  // what cannot be opened is a matter of repair
      if (error.exhausted()) throw;
    }
    if (locked) throw std::runtime_error("'" + path + "' has a writer: close it first");
  }
}

// What the first `records` records of a segment make up, or nothing where it has no more than those.
std::optional<Cut> cut_after(const std::string& directory, SegmentName name, const SegmentFiles& files,
                             std::int64_t records) {
  const File journal(journal_path(directory, name), File::Use::read);
  const Cut before = files.cut.value_or(Cut{});
  if (records > before.records || records > (journal.size() - data_begin) / record_bytes) {
    throw std::runtime_error("'" + journal.path() + "' holds less than it did then");
  }
  const std::int64_t bytes = data_begin + records * record_bytes;
  Record last;
  journal.read(&last, sizeof last, bytes - record_bytes);
  if (!whole(last, name)) {
    throw std::runtime_error("record " + std::to_string(records - 1) + " of '" + journal.path() + "' is corrupt");
  }
  const Cut cut{records, last.offset + last.bytes};
  const bool more = journal.size() > bytes || File(data_path(directory, name), File::Use::read).size() > cut.data_bytes;
  return more && cut.data_bytes < before.data_bytes ? std::optional(cut) : std::nullopt;
}

// The records of a journal that hold, by the offset of their blocks; none where it cannot be read.
std::map<std::int64_t, Record> journaled(const std::string& path, SegmentName name, const Layout& layout,
                                         std::int64_t data_bytes) {
  std::map<std::int64_t, Record> found;
  std::optional<File> journal;
  try {
    journal.emplace(path, File::Use::read);
  } catch (const FileError& error) {
    if (error.exhausted()) throw;
    return found;
  }
  Record record;
  for (std::int64_t at = data_begin; journal->read(&record, sizeof record, at) == sizeof record; at += sizeof record) {
    if (fault_of(record, name, layout, data_bytes).empty()) found.emplace(record.offset, record);
  }
  return found;
}

// The records of a data file whose blocks are intact, where it or the journal has them. What was left out is appended
// to `problems`.
std::vector<Record> intact_records(const File& data, SegmentName name, const Layout& layout, std::int64_t bytes,
                                   const std::map<std::int64_t, Record>& known, std::vector<Problem>& problems) {
  const auto mapping = std::make_shared<const Mapping>(data, static_cast<std::size_t>(bytes));
  std::vector<Record> result;
  std::int64_t lost_from = -1;
  const auto lose = [&](std::int64_t until) {
    if (lost_from >= 0) {
      problems.push_back(
          {data.path(), "nothing usable in bytes " + std::to_string(lost_from) + " to " + std::to_string(until)});
    }
    lost_from = -1;
  };
  std::int64_t at = data_begin;
  while (at + record_bytes <= bytes) {
    Record record;
    std::memcpy(&record, mapping->data() + at, sizeof record);
    const auto holding = [&] {
      return record.offset == at + record_bytes && fault_of(record, name, layout, bytes).empty();
    };
    bool holds = holding();
    if (const auto copy = known.find(at + record_bytes); !holds && copy != known.end()) {
      record = copy->second;
      holds = holding();
    }
    if (!holds) {
      if (lost_from < 0) lost_from = at;
      at += static_cast<std::int64_t>(Layout::alignment);
      continue;
    }
    lose(at);
    const Trajectory trajectory(
        TrajectoryData(record.length, mapping->data() + record.offset, packed_bytes(record, layout), mapping),
        record.task);
    if (block_checksum(trajectory, layout) == record.block_checksum) {
      result.push_back(record);
    } else {
      problems.push_back({data.path(), "a trajectory of " + std::to_string(record.length) + " steps at byte " +
                                           std::to_string(at) + " does not have its checksum"});
    }
    at = record.offset + record.bytes;
  }
  if (lost_from < 0 && at < bytes) lost_from = at;
  lose(bytes);
  return result;
}

// Whether a journal has a header of its segment, and of all that counts these records and no other.
bool says(const std::string& path, SegmentName name, const Layout& layout, const std::vector<Record>& records,
          const Cut& cut) {
  try {
    const File journal(path, File::Use::read);
    read_header(journal, name, layout, true);
    const auto bytes = static_cast<std::int64_t>(records.size()) * record_bytes;
    std::vector<Record> held(records.size());
    const auto end = data_begin + bytes;
    const bool last = static_cast<std::int64_t>(records.size()) == cut.records || journal.size() == end;
    return last &&
           journal.read(held.data(), static_cast<std::size_t>(bytes), data_begin) == static_cast<std::size_t>(bytes) &&
           (bytes == 0 || std::memcmp(held.data(), records.data(), static_cast<std::size_t>(bytes)) == 0);
  } catch (const FileError& error) {
    if (error.exhausted()) throw;
    return false;
  } catch (const std::runtime_error&) {
    return false;
  }
}

// Moves a file, or whatever has its name, to the folder `damaged`.
void set_aside(const std::string& directory, const std::string& path) {
  if (absent(path)) return;
  const std::string folder = directory + "/damaged";
  if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST) throw FileError(errno, folder);
  const std::string plain = folder + "/" + std::filesystem::path(path).filename().string();
  std::string target = plain;
  struct stat status{};
  for (int count = 1; ::lstat(target.c_str(), &status) == 0; ++count) target = plain + "." + std::to_string(count);
  if (std::rename(path.c_str(), target.c_str()) != 0) throw FileError(errno, target);
}

void rebuild_journal(const std::string& directory, SegmentName name, const Layout& layout, const Cut& cut,
                     std::vector<Problem>& problems) {
  const std::string path = journal_path(directory, name);
  const std::string partial = path + ".partial";
  for (const std::string& file : {path, partial}) {
    if (absent(file) || file_bytes(file)) continue;
    set_aside(directory, file);
    problems.push_back({file, "is no regular file; moved to 'damaged'"});
  }
  std::vector<Record> records;
  std::size_t max_bytes = 0;
  try {
    const File data(data_path(directory, name), File::Use::read);
    max_bytes = read_header(data, name, layout, false).max_bytes;
    const std::int64_t bytes = std::max(data_begin, std::min(data.size(), cut.data_bytes));
    records = intact_records(data, name, layout, bytes, journaled(path, name, layout, bytes), problems);
  } catch (const std::runtime_error& error) {
    const auto* failed = dynamic_cast<const FileError*>(&error);
    if (failed != nullptr && failed->exhausted()) throw;
    problems.push_back({data_path(directory, name), std::string(error.what()) + "; moved to 'damaged'"});
    set_aside(directory, path);
    set_aside(directory, data_path(directory, name));
    return;
  }
  if (says(path, name, layout, records, cut)) return;
  remove_file(partial);
  const File journal(partial, File::Use::create);
  const Header header = make_header(name, layout, max_bytes, true, draw_writer());
  journal.write(&header, sizeof header, 0);
  journal.write(records.data(), records.size() * sizeof(Record), data_begin);
  journal.sync();
  if (std::rename(partial.c_str(), path.c_str()) != 0) throw FileError(errno, path);
}

}  // namespace

void roll_back(const std::string& directory, const Position& position, const std::set<std::string>& evicted) {
  const Listing listing = list(directory);
  require_no_writer(directory, listing);
  std::set<std::string> missing;
  for (const auto& [name, records] : position) {
    if (records < 0) throw std::runtime_error("segment " + name + " cannot have held " + std::to_string(records));
    if (records > 0) missing.insert(name);
  }
  std::vector<std::pair<SegmentName, Cut>> cuts;
  std::vector<SegmentName> later;
  for (const auto& [name, files] : listing) {
    if (evicted.contains(name.text())) continue;
    const auto then = position.find(name.text());
    if (then == position.end() || then->second == 0) {
      if (!files.journal || file_bytes(journal_path(directory, name))) later.push_back(name);
    } else if (files.journal) {
      if (const auto cut = cut_after(directory, name, files, then->second)) cuts.emplace_back(name, *cut);
      missing.erase(name.text());
    }
  }
  if (!missing.empty()) throw std::runtime_error("segment " + *missing.begin() + " of '" + directory + "' is gone");
  for (const auto& [name, cut] : cuts) make_cut(directory, name, cut);
  for (const SegmentName name : later) {
    if (!blank(directory, name)) remove_segment(directory, name);
  }
  remove_leftovers(directory);
  File(directory, File::Use::folder).sync();
}

std::vector<Problem> repair(const std::string& directory, const Layout& layout) {
  require_no_writer(directory, list(directory));
  remove_leftovers(directory);
  std::vector<Problem> problems;
  for (const auto& [name, files] : list(directory)) {
    if (files.journal || files.data) rebuild_journal(directory, name, layout, files.cut.value_or(Cut{}), problems);
  }
  File(directory, File::Use::folder).sync();
  return problems;
}

}  // namespace twohot
