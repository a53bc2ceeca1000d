#include "core/directory.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>
#include <tuple>

namespace twohot {
namespace {

namespace fs = std::filesystem;

constexpr int id_bits = 40;  // trajectories of one writer
constexpr std::uint32_t most_writers = std::uint32_t{1} << (62 - id_bits);

std::vector<SegmentName> list(const std::string& directory) {
  std::vector<SegmentName> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    if (const auto name = SegmentName::of_journal(it->path().filename().string())) names.push_back(*name);
  }
  if (error) throw FileError(error.value(), directory);
  std::sort(names.begin(), names.end());
  return names;
}

// Those of `list` and those whose journal is missing.
std::vector<SegmentName> list_with_lost_journals(const std::string& directory) {
  std::vector<SegmentName> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const fs::path path = it->path();
    if (path.extension() != ".journal" && path.extension() != ".data") continue;
    if (const auto name = SegmentName::of_journal(path.stem().string() + ".journal")) names.push_back(*name);
  }
  if (error) throw FileError(error.value(), directory);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

std::string file(const std::string& directory, SegmentName name, const char* suffix) {
  return directory + "/" + name.text() + suffix;
}

// Whether neither file reaches beyond its header: all that a writer leaves which dies before its first trajectory.
bool empty(const std::string& directory, SegmentName name) {
  const auto small = [&](const char* suffix) {
    std::error_code error;
    const auto bytes = fs::file_size(file(directory, name, suffix), error);
    return error || bytes <= sizeof(Record);
  };
  return small(".journal") && small(".data");
}

// Whether a segment was reclaimed a moment ago, or its writer has not come to its first trajectory.
bool absent_or_new(const std::string& directory, SegmentName name) {
  std::error_code error;
  const auto journal = fs::file_size(file(directory, name, ".journal"), error);
  if (error) return true;
  const auto data = fs::file_size(file(directory, name, ".data"), error);
  return !error && journal <= sizeof(Record) && data <= sizeof(Record);
}

void require_no_writer(const std::string& directory, const std::vector<SegmentName>& names) {
  for (const SegmentName name : names) {
    const File journal(file(directory, name, ".journal"), File::Use::read);
    if (journal.locked()) throw std::runtime_error("'" + journal.path() + "' has a writer: close it first");
  }
}

void shorten(const std::string& path, std::int64_t bytes) {
  std::error_code error;
  fs::resize_file(path, static_cast<std::uintmax_t>(bytes), error);
  if (error) throw FileError(error.value(), path);
}

}  // namespace

Directory::Directory(std::string path, std::size_t segment_bytes, bool durable)
    : path_(std::move(path)), segment_bytes_(segment_bytes), durable_(durable) {}

std::vector<std::shared_ptr<Trajectory>> Directory::scan(const Layout& layout) {
  for (const SegmentName name : list(path_)) {
    if (segments_.contains(name) || refused_.contains(name)) continue;
    for (const bool again : {false, true}) {
      try {
        segments_.emplace(name, std::make_shared<Segment>(path_, name, layout));
        break;
      } catch (const std::runtime_error& error) {
        const auto* failed = dynamic_cast<const FileError*>(&error);
        if (failed != nullptr && failed->code() != ENOENT) throw;
        if (absent_or_new(path_, name)) break;
        if (!again) continue;  // it may have been new when it was opened, and is not any more
        refused_.insert(name);
        problems_.push_back({file(path_, name, ".journal"), error.what()});
      }
    }
  }
  // Times may run backwards where a clock was set; the order of one writer never does.
  std::vector<std::tuple<std::int64_t, std::uint32_t, std::shared_ptr<Trajectory>>> found;
  std::optional<std::uint32_t> writer;
  std::int64_t latest = 0;
  for (const auto& [name, segment] : segments_) {
    if (writer != name.writer) latest = 0;
    writer = name.writer;
    for (Committed& committed : segment->read(layout, problems_)) {
      latest = std::max(latest, committed.time);
      found.emplace_back(latest, name.writer, std::move(committed.trajectory));
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& left, const auto& right) {
    return std::tie(std::get<0>(left), std::get<1>(left)) < std::tie(std::get<0>(right), std::get<1>(right));
  });
  std::vector<std::shared_ptr<Trajectory>> result;
  result.reserve(found.size());
  for (auto& each : found) result.push_back(std::move(std::get<2>(each)));
  return result;
}

void Directory::start_segment(const Layout& layout, std::size_t bytes) {
  const std::size_t most_bytes = std::max(segment_bytes_, bytes + sizeof(Record));
  if (writer_) writer_->sync();
  writer_.reset();
  if (next_segment_ == 0) {
    for (const SegmentName name : list(path_)) {
      if (name.writer < most_writers) writer_number_ = std::max(writer_number_, name.writer + 1);
    }
  }
  while (true) {
    const SegmentName name{writer_number_, next_segment_};
    try {
      writer_.emplace(path_, name, layout, most_bytes);
      if (durable_) File(path_, File::Use::read).sync();
      segments_.emplace(name, writer_->segment());
      ++next_segment_;
      return;
    } catch (const FileError& error) {
      if (error.code() != EEXIST || next_segment_ != 0) throw;
      ++writer_number_;  // another process was faster
    }
  }
}

void Directory::append(std::span<std::shared_ptr<Trajectory>> finished, const Layout& layout) {
  if (finished.empty()) return;
  std::size_t bytes = 0;
  for (const auto& trajectory : finished) bytes += SegmentWriter::bytes(*trajectory, layout);
  if (!writer_ || !writer_->fits(bytes)) start_segment(layout, bytes);
  std::int64_t id = (static_cast<std::int64_t>(writer_number_) << id_bits) + next_id_;
  for (const auto& trajectory : finished) trajectory->id = id++;
  writer_->append(finished, layout, durable_);
  next_id_ += static_cast<std::int64_t>(finished.size());
}

bool Directory::gone(const Segment& segment) const {
  const bool writing = writer_ && writer_->segment().get() == &segment;
  // A writer that has ended since the last scan may have left more, so that its end is looked at first.
  return !writing && segment.gone() >= segment.records() && !segment.live() && !segment.unread();
}

std::vector<std::string> Directory::gone() const {
  std::vector<std::string> names;
  for (const auto& [name, segment] : segments_) {
    if (gone(*segment)) names.push_back(name.text());
  }
  return names;
}

std::int64_t Directory::reclaim(const std::vector<std::string>& names) {
  std::int64_t bytes = 0;
  for (auto it = segments_.begin(); it != segments_.end();) {
    const auto& [name, segment] = *it;
    if (std::find(names.begin(), names.end(), name.text()) == names.end() || !gone(*segment)) {
      ++it;
      continue;
    }
    for (const std::string& path : {segment->journal_path(), segment->data_path()}) {
      std::error_code error;
      const auto size = fs::file_size(path, error);
      if (!error) bytes += static_cast<std::int64_t>(size);
      remove_file(path);
    }
    it = segments_.erase(it);
  }
  return bytes;
}

void Directory::sync() const {
  if (!writer_) return;
  writer_->sync();
  File(path_, File::Use::read).sync();  // the names of its files
}

Extents Directory::extents() const {
  Extents result;
  for (const auto& [name, segment] : segments_) {
    if (!gone(*segment)) result.emplace(name.text(), segment->records());
  }
  return result;
}

void roll_back(const std::string& directory, const Extents& extents) {
  const std::vector<SegmentName> names = list(directory);
  require_no_writer(directory, names);
  std::set<std::string> missing;
  for (const auto& [name, records] : extents) missing.insert(name);
  using Shorter = std::pair<std::string, std::int64_t>;
  std::vector<std::pair<Shorter, Shorter>> shorter;  // of the journal, of the data
  for (const SegmentName name : names) {
    const auto then = extents.find(name.text());
    if (then == extents.end()) continue;
    const std::int64_t bytes = static_cast<std::int64_t>(sizeof(Record)) * (then->second + 1);
    const std::int64_t data_bytes = data_extent(directory, name, then->second);
    shorter.push_back({{file(directory, name, ".journal"), bytes}, {file(directory, name, ".data"), data_bytes}});
    missing.erase(name.text());
  }
  if (!missing.empty()) throw std::runtime_error("segment " + *missing.begin() + " of '" + directory + "' is gone");
  for (const auto& [journal, data] : shorter) {
    shorten(journal.first, journal.second);
    shorten(data.first, data.second);
  }
  for (const SegmentName name : names) {
    if (extents.contains(name.text())) continue;
    remove_file(file(directory, name, ".journal"));
    remove_file(file(directory, name, ".data"));
  }
}

std::vector<Problem> repair(const std::string& directory, const Layout& layout) {
  require_no_writer(directory, list(directory));
  const std::vector<SegmentName> names = list_with_lost_journals(directory);
  std::vector<Problem> problems;
  for (const SegmentName name : names) {
    if (empty(directory, name)) {
      remove_file(file(directory, name, ".journal"));
      remove_file(file(directory, name, ".data"));
      continue;
    }
    try {
      rebuild_journal(directory, name, layout, problems);
      continue;
    } catch (const std::runtime_error& error) {
      const auto* failed = dynamic_cast<const FileError*>(&error);
      if (failed != nullptr && failed->code() != ENOENT) throw;
      problems.push_back({file(directory, name, ".data"), std::string(error.what()) + "; moved to 'damaged'"});
    }
    fs::create_directory(directory + "/damaged");
    for (const char* suffix : {".journal", ".data"}) {
      std::error_code error;
      fs::rename(file(directory, name, suffix), file(directory + "/damaged", name, suffix), error);
      if (error && error != std::errc::no_such_file_or_directory) {
        throw FileError(error.value(), file(directory, name, suffix));
      }
    }
  }
  return problems;
}

}  // namespace twohot
