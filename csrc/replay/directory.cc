#include "replay/directory.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <limits>
#include <utility>

namespace twohot {
namespace {

// Where the ids of a process begin that did not make the directory: above those of who did, and of the format before.
std::int64_t draw_first_id() {
  constexpr std::uint64_t least = std::uint64_t{1} << 62;
  return static_cast<std::int64_t>(least + draw_writer() % (least / 2));
}

constexpr int max_attempts = 8;

std::int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Directory::Directory(std::string path, std::size_t segment_bytes, bool durable, bool made)
    : path_(std::move(path)), segment_bytes_(segment_bytes), durable_(durable), next_id_(made ? 0 : draw_first_id()) {}

bool Directory::look(const Layout& layout) {
  const Listing listing = list(path_);
  bool complete = !forget_removed(listing);
  for (const auto& [name, files] : listing) {
    const auto known = segments_.find(name);
    if (known != segments_.end()) {
      if (!files.cut || files.cut->data_bytes >= known->second->cut().data_bytes) continue;
      known->second->cut(*files.cut);
      shrunk_ = true;
    } else if (!refused_.contains(name)) {
      if (files.journal) complete = open_segment(name, files, layout) && complete;
      if (lost_journal(path_, name, files)) refuse(name, data_path(path_, name), "its journal is missing");
    }
  }
  // Times may run backwards where a clock was set; the order of one writer never does.
  std::optional<std::uint64_t> writer;
  std::int64_t latest = 0;
  for (const auto& [name, segment] : segments_) {
    if (writer != name.writer) latest = 0;
    writer = name.writer;
    if (writer_ && writer_->segment() == segment) continue;  // what it holds is known
    try {
      for (Committed& committed : segment->read(layout, problems_)) {
        latest = std::max(latest, committed.time);
        found_.emplace_back(latest, name.writer, std::move(committed.trajectory));
      }
    } catch (const std::runtime_error& error) {
      const auto* failed = dynamic_cast<const FileError*>(&error);
      if (failed != nullptr && failed->exhausted()) throw;
      if (absent(segment->journal_path())) {
        complete = false;
        continue;
      }
      segment->spoil();
      problems_.push_back({segment->journal_path(), error.what()});
    }
    latest_ = std::max(latest_, latest);
  }
  return complete;
}

std::vector<std::shared_ptr<Trajectory>> Directory::scan(const Layout& layout) {
  // A listing may lack files that were begun, when it was made, before others were removed that it lacks as well.
  for (int attempt = 1; !look(layout) && attempt < max_attempts; ++attempt) {
  }
  std::stable_sort(found_.begin(), found_.end(), [](const Found& left, const Found& right) {
    return std::tie(std::get<0>(left), std::get<1>(left)) < std::tie(std::get<0>(right), std::get<1>(right));
  });
  std::vector<std::shared_ptr<Trajectory>> result;
  result.reserve(found_.size());
  for (Found& each : found_) {
    std::shared_ptr<Trajectory>& trajectory = std::get<2>(each);
    if (trajectory->segment->counts(*trajectory)) {
      result.push_back(std::move(trajectory));
    } else {
      trajectory->segment->let_go();
    }
  }
  found_.clear();
  return result;
}

bool Directory::forget_removed(const Listing& listing) {
  std::erase_if(refused_, [&](SegmentName name) { return !listing.contains(name); });
  const auto forgotten = std::erase_if(segments_, [&](const auto& each) {
    const auto& [name, segment] = each;
    const auto files = listing.find(name);
    const bool listed = files != listing.end() && files->second.journal;
    if (listed || !absent(segment->journal_path())) return false;
    segment->cut({0, 0});
    shrunk_ = true;
    if (writer_ && writer_->segment() == segment) writer_.reset();
    return true;
  });
  return forgotten > 0;
}

bool Directory::open_segment(SegmentName name, const SegmentFiles& files, const Layout& layout) {
  for (const bool again : {false, true}) {
    try {
      segments_.emplace(name, std::make_shared<Segment>(path_, name, layout, files.cut.value_or(Cut{})));
      return true;
    } catch (const std::runtime_error& error) {
      const auto* failed = dynamic_cast<const FileError*>(&error);
      if (failed != nullptr && failed->exhausted()) throw;
      // It may have been begun or removed when it was opened, and not be so any more.
      if (absent(journal_path(path_, name))) return false;
      if (blank(path_, name)) return true;
      if (again) refuse(name, journal_path(path_, name), error.what());
    }
  }
  return true;
}

void Directory::refuse(SegmentName name, const std::string& path, const std::string& what) {
  refused_.insert(name);
  problems_.push_back({path, what});
}

void Directory::end_segment() {
  if (!writer_) return;
  const std::shared_ptr<Segment> segment = writer_->segment();
  if (writer_->broken()) {
    make_cut(path_, segment->name(), writer_->committed());
    segment->cut(writer_->committed());
  } else {
    writer_->sync();
  }
  segment->end();
  writer_.reset();
}

void Directory::start_segment(const Layout& layout, std::size_t bytes) {
  const std::size_t max_bytes = std::max(segment_bytes_, bytes + sizeof(Record));
  end_segment();
  forget_removed(list(path_));
  for (int attempt = 1; !writer_; ++attempt) {
    if (next_.writer == 0) next_ = {draw_writer(), 0};
    const SegmentName name = next_;
    ++next_.number;
    try {
      writer_.emplace(path_, name, layout, max_bytes);
      segments_.emplace(name, writer_->segment());
    } catch (const FileError& error) {
      if (error.code() != EEXIST || attempt == max_attempts) throw;
      next_.writer = 0;
    }
  }
  if (durable_) File(path_, File::Use::folder).sync();
}

void Directory::append(std::span<std::shared_ptr<Trajectory>> finished, const Layout& layout) {
  if (finished.empty()) return;
  std::size_t bytes = 0;
  for (const auto& trajectory : finished) bytes += SegmentWriter::bytes(*trajectory, layout);
  if (!writer_ || writer_->broken() || writer_->removed() || !writer_->fits(bytes)) start_segment(layout, bytes);
  for (const auto& trajectory : finished) trajectory->id = next_id_++;
  // Behind all that is known, so that the order of what one process reads and then writes outlasts a clock that is set.
  const std::int64_t time = std::max(now(), std::min(latest_, std::numeric_limits<std::int64_t>::max() - 1) + 1);
  try {
    writer_->append(finished, layout, time, durable_);
  } catch (...) {
    try {
      if (writer_->broken()) end_segment();
    } catch (const FileError&) {  // start_segment() tries again
    }
    throw;
  }
  latest_ = time;
}

bool Directory::gone(const Segment& segment, const Layout& layout) const {
  const bool writing = writer_ && writer_->segment().get() == &segment;
  return !writing && segment.gone(layout);
}

std::vector<std::string> Directory::gone(const Layout& layout) const {
  std::vector<std::string> names;
  for (const auto& [name, segment] : segments_) {
    if (gone(*segment, layout)) names.push_back(name.text());
  }
  return names;
}

std::int64_t Directory::reclaim(const std::vector<std::string>& names, const Layout& layout) {
  std::int64_t bytes = 0;
  for (const std::string& text : names) {
    const auto name = SegmentName::of(text);
    const auto found = name ? segments_.find(*name) : segments_.end();
    if (found == segments_.end() || !gone(*found->second, layout)) continue;
    bytes += remove_segment(path_, *name);
    segments_.erase(found);
  }
  return bytes + remove_leftovers(path_);
}

void Directory::sync() const {
  if (!writer_) return;
  writer_->sync();
  File(path_, File::Use::folder).sync();  // the names of its files
}

Position Directory::position(const Layout& layout) const {
  Position result;
  for (const auto& [name, segment] : segments_) {
    if (segment->records() > 0 && !gone(*segment, layout)) result.emplace(name.text(), segment->records());
  }
  return result;
}

}  // namespace twohot
