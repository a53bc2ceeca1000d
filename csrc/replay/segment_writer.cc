#include "replay/segment_writer.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <utility>
#include <vector>

namespace twohot {
namespace {

constexpr std::array<std::byte, Layout::alignment> padding{};

}  // namespace

// Who removes the leftovers of dead writers takes the lock, or the name, of a journal that is not locked yet.
SegmentWriter::SegmentWriter(const std::string& directory, SegmentName name, const Layout& layout,
                             std::size_t max_bytes)
    : name_(name),
      journal_(journal_path(directory, name), File::Use::create),
      process_(process_generation()),
      max_bytes_(max_bytes) {
  try {
    if (!journal_.lock() || !journal_.named()) {
      throw FileError(EEXIST, journal_.path());
    }
    const Header journal = make_header(name, layout, max_bytes, true);
    journal_.write(&journal, sizeof journal, 0);
    data_ = std::make_unique<const File>(data_path(directory, name), File::Use::create);
    const Header data = make_header(name, layout, max_bytes, false);
    data_->write(&data, sizeof data, 0);
    segment_ = std::make_shared<Segment>(directory, name, layout);
  } catch (...) {
    if (data_ != nullptr) remove_file(data_->path());
    remove_file(journal_.path());
    throw;
  }
}

// A forked child shares the lock, which would last as long as the child; its own end must not take it from the parent.
SegmentWriter::~SegmentWriter() {
  if (process_ == process_generation()) journal_.unlock();
}

Cut SegmentWriter::committed() const noexcept {
  const std::int64_t records = (journal_end_ - data_begin) / static_cast<std::int64_t>(sizeof(Record));
  return {records, static_cast<std::int64_t>(end_)};
}

Record SegmentWriter::write(const Trajectory& trajectory, const Layout& layout, std::int64_t offset,
                            std::int64_t time) const {
  Record record{};
  record.mark = Record::marked;
  record.id = trajectory.id;
  record.offset = offset + static_cast<std::int64_t>(sizeof(Record));
  record.bytes = static_cast<std::int64_t>(trajectory.data.bytes(layout));
  record.length = trajectory.length;
  record.origin = trajectory.origin;
  record.time = time;
  record.total_reward = trajectory.total_reward;
  record.task = trajectory.task;
  if (trajectory.is_protected) record.flags = Record::is_protected;
  record.block_checksum = block_checksum(trajectory, layout);
  record.checksum = record_checksum(record, name_);
  std::vector<iovec> buffers{{&record, sizeof record}};
  const std::byte* packed = trajectory.data.packed_block();
  if (packed != nullptr) buffers.push_back({const_cast<std::byte*>(packed), trajectory.data.bytes(layout)});
  for (std::size_t c = 0; packed == nullptr && c < layout.columns().size(); ++c) {
    const Column& column = layout.columns()[c];
    std::size_t used = 0;
    trajectory.data.visit(layout, c, 0, trajectory.length + column.extra_rows,
                          [&](const std::byte* source, std::int64_t rows) {
                            const std::size_t bytes = static_cast<std::size_t>(rows) * column.row_bytes;
                            buffers.push_back({const_cast<std::byte*>(source), bytes});
                            used += bytes;
                          });
    const std::size_t whole = Layout::bytes(column, {trajectory.length, trajectory.length + 1});
    if (whole != used) buffers.push_back({const_cast<std::byte*>(padding.data()), whole - used});
  }
  data_->write(std::move(buffers), offset);
  return record;
}

void SegmentWriter::append(std::span<std::shared_ptr<Trajectory>> finished, const Layout& layout, std::int64_t time,
                           bool durable) {
  std::vector<Record> records;
  records.reserve(finished.size());
  std::size_t end = end_;
  const std::int64_t journal_bytes = static_cast<std::int64_t>(finished.size() * sizeof(Record));
  std::vector<std::shared_ptr<Trajectory>> adopted;
  adopted.reserve(finished.size());
  try {
    for (const auto& trajectory : finished) {
      records.push_back(write(*trajectory, layout, static_cast<std::int64_t>(end), time));
      adopted.push_back(segment_->adopt(records.back(), layout));
      end += bytes(*trajectory, layout);
    }
    if (durable) data_->sync();
  } catch (...) {
    data_->truncate(static_cast<std::int64_t>(end_));
    throw;
  }
  try {
    journal_.write(records.data(), records.size() * sizeof(Record), journal_end_);
    if (durable) journal_.sync();
  } catch (...) {
    broken_ = true;  // a reader may have taken what stood in the journal for a moment
    try {
      journal_.truncate(journal_end_);
    } catch (const FileError&) {  // its cut says the same
    }
    throw;
  }
  segment_->count(static_cast<std::int64_t>(records.size()));
  end_ = end;
  journal_end_ += journal_bytes;
  std::move(adopted.begin(), adopted.end(), finished.begin());
}

void SegmentWriter::sync() const {
  data_->sync();
  journal_.sync();
}

}  // namespace twohot
