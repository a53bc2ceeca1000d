#include "replay/segment.h"

#include <algorithm>
#include <cerrno>

namespace twohot {
namespace {

// The whole records of a journal of `bytes`.
std::int64_t records_in(std::int64_t bytes) noexcept {
  return std::max<std::int64_t>(0, bytes - data_begin) / static_cast<std::int64_t>(sizeof(Record));
}

}  // namespace

Segment::Segment(const std::string& directory, SegmentName name, const Layout& layout, Cut cut)
    : name_(name),
      data_path_(twohot::data_path(directory, name)),
      journal_path_(twohot::journal_path(directory, name)),
      cut_(cut) {
  const File data(data_path_, File::Use::read);
  journal_checksum_ = read_header(File(journal_path_, File::Use::read), name, layout, true).checksum;
  mapping_ = std::make_shared<const Mapping>(data, read_header(data, name, layout, false).max_bytes);
}

std::shared_ptr<Trajectory> Segment::adopt(const Record& record, const Layout& layout) {
  const auto trajectory = std::make_shared<Trajectory>(
      TrajectoryData(record.length, mapping_->data() + record.offset, packed_bytes(record, layout), mapping_),
      record.task);
  trajectory->id = record.id;
  trajectory->is_protected = (record.flags & Record::is_protected) != 0;
  trajectory->origin = record.origin;
  trajectory->total_reward = record.total_reward;
  trajectory->checksum = record.block_checksum;
  trajectory->offset = record.offset;
  trajectory->segment = shared_from_this();
  return trajectory;
}

std::vector<Committed> Segment::read(const Layout& layout, std::vector<Problem>& problems) {
  std::vector<Committed> result;
  if (ended_) return result;
  const File journal(journal_path_, File::Use::read);
  const bool alive = journal.locked();  // before the end is looked at, which is the last one where it is not
  const std::uint64_t checksum = read_header(journal, name_, layout, true).checksum;
  if (checksum != journal_checksum_) {
    records_ = 0;
    corrupt_records_.clear();
    journal_checksum_ = checksum;
  }
  const std::int64_t known = records_;
  const std::int64_t whole = std::min(records_in(journal.size()), cut_.records);
  if (whole > known) {
    const auto data_bytes =
        std::min(File(data_path_, File::Use::read).size(), static_cast<std::int64_t>(mapping_->bytes()));
    std::vector<Record> records(static_cast<std::size_t>(whole - known));
    const std::int64_t offset = data_begin + known * static_cast<std::int64_t>(sizeof(Record));
    records.resize(journal.read(records.data(), records.size() * sizeof(Record), offset) / sizeof(Record));
    result.reserve(records.size());
    std::int64_t index = known;
    for (const Record& record : records) {
      const std::string fault = fault_of(record, name_, layout, data_bytes);
      if (fault.empty()) {
        result.push_back({adopt(record, layout), record.time});
      } else {
        corrupt_records_.push_back(index);
        problems.push_back({journal_path_, "record " + std::to_string(index) + " " + fault});
      }
      ++index;
    }
    records_ = index;
    stored_ += static_cast<std::int64_t>(result.size());
  }
  if (!alive) end();
  return result;
}

void Segment::count(std::int64_t records) noexcept {
  records_ += records;
  stored_ += records;
}

void Segment::end() noexcept {
  ended_ = true;
  mapping_.reset();
}

void Segment::spoil() {
  corrupt_records_.push_back(records_);
  end();
}

void Segment::cut(Cut cut) {
  cut_ = cut;
  records_ = std::min(records_, cut.records);
  std::erase_if(corrupt_records_, [&](std::int64_t index) { return index >= cut.records; });
}

bool Segment::gone(const Layout& layout) const {
  if (stored_ != 0 || !corrupt_records_.empty()) return false;
  if (ended_) return true;
  try {
    const File journal(journal_path_, File::Use::read);
    // A writer that has ended since the last read may have left more, so that its end is looked at first.
    return !journal.locked() && std::min(records_in(journal.size()), cut_.records) <= records_ &&
           read_header(journal, name_, layout, true).checksum == journal_checksum_;
  } catch (const FileError& error) {
    if (error.code() == ENOENT) return true;  // another process has removed it
    throw;
  } catch (const std::runtime_error&) {  // its journal was corrupted meanwhile
    return false;
  }
}

bool Segment::intact(const Trajectory& trajectory, const Layout& layout) const {
  return block_checksum(trajectory, layout) == trajectory.checksum;
}

}  // namespace twohot
