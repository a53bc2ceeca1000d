#include "core/segment.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <map>

#include "core/hash.h"

namespace twohot {
namespace {

constexpr std::int64_t data_begin = 128;
constexpr std::int64_t most_steps = std::int64_t{1} << 40;
constexpr std::array<std::byte, Layout::alignment> padding{};
constexpr std::string_view data_suffix = ".data";
constexpr std::string_view journal_suffix = ".journal";

struct Header {
  char mark[16];
  std::uint32_t version;
  std::uint32_t journal;  // 1 in a journal
  std::uint64_t schema;
  std::uint32_t writer;
  std::uint32_t number;
  std::uint64_t most_bytes;
  std::uint64_t reserved[9];
  std::uint64_t checksum;
};
static_assert(sizeof(Header) == data_begin);

Header make_header(SegmentName name, const Layout& layout, std::size_t most_bytes, bool journal) {
  Header header{};
  std::memcpy(header.mark, "twohot segment\n", 16);
  header.version = 1;
  header.journal = journal ? 1 : 0;
  header.schema = layout.fingerprint();
  header.writer = name.writer;
  header.number = name.number;
  header.most_bytes = most_bytes;
  header.checksum = hash64(&header, offsetof(Header, checksum));
  return header;
}

Header read_header(const File& file, SegmentName name, const Layout& layout, bool journal) {
  Header header{};
  const auto refuse = [&](const std::string& what) { throw std::runtime_error("'" + file.path() + "' " + what); };
  if (file.read(&header, sizeof header, 0) < sizeof header) refuse("is too short to be a segment of a replay");
  const Header expected = make_header(name, layout, header.most_bytes, journal);
  if (std::memcmp(header.mark, expected.mark, sizeof header.mark) != 0) refuse("is no segment of a replay");
  if (header.checksum != hash64(&header, offsetof(Header, checksum))) refuse("has a damaged header");
  if (header.version != expected.version) {
    refuse("is of version " + std::to_string(header.version) + ", this program reads version 1");
  }
  if (header.schema != expected.schema) refuse("was written for another schema");
  if (header.checksum != expected.checksum) refuse("is not the file that its name says: it was renamed");
  return header;
}

std::string path_of(const std::string& directory, SegmentName name, std::string_view suffix) {
  return directory + "/" + name.text() + std::string(suffix);
}

std::uint64_t record_checksum(const Record& record, SegmentName name) {
  const std::uint64_t seed = (std::uint64_t{name.writer} << 32) | name.number;
  return hash64(&record, offsetof(Record, checksum), seed);
}

// Of a packed block, else of the used bytes of every column, in order.
std::uint64_t block_checksum(const Trajectory& trajectory, const Layout& layout) {
  const Rows& rows = trajectory.rows;
  if (rows.packed_block() != nullptr) return hash64(rows.packed_block(), rows.bytes(layout));
  Hash64 hash;
  for (std::size_t c = 0; c < layout.columns().size(); ++c) {
    const Column& column = layout.columns()[c];
    rows.visit(layout, c, 0, trajectory.length + column.extra_rows, [&](const std::byte* source, std::int64_t count) {
      hash.add(source, static_cast<std::size_t>(count) * column.row_bytes);
    });
  }
  return hash.value();
}

// What does not hold of a record that lies `offset` bytes into its data file, or "".
std::string fault_of(const Record& record, SegmentName name, const Layout& layout, std::int64_t data_bytes) {
  if (record.mark != Record::marked || record.checksum != record_checksum(record, name)) return "a damaged record";
  const bool sized = record.length >= 1 && record.length <= most_steps && record.bytes > 0 &&
                     static_cast<std::uint64_t>(record.length) <= (std::uint64_t{1} << 62) / layout.row_bytes() &&
                     (layout.compresses() ? record.bytes % static_cast<std::int64_t>(Layout::alignment) == 0
                                          : record.bytes == static_cast<std::int64_t>(layout.bytes(record.length)));
  if (!sized || record.offset < data_begin || record.offset % static_cast<std::int64_t>(Layout::alignment) != 0) {
    return "a record that does not fit the schema";
  }
  if (record.offset > data_bytes || record.bytes > data_bytes - record.offset) {
    return "a trajectory of " + std::to_string(record.length) + " steps behind the end of its data";
  }
  return "";
}

// The size of the block where it is packed, else 0.
std::size_t packed_bytes(const Record& record, const Layout& layout) {
  return layout.compresses() ? static_cast<std::size_t>(record.bytes) : 0;
}

// The records of a journal that hold, by the offset of their blocks; none where there is no journal.
std::map<std::int64_t, Record> journaled(const std::string& path, SegmentName name, const Layout& layout,
                                         std::int64_t data_bytes) {
  std::map<std::int64_t, Record> found;
  std::optional<File> journal;
  try {
    journal.emplace(path, File::Use::read);
  } catch (const FileError& error) {
    if (error.code() != ENOENT) throw;
    return found;
  }
  Record record;
  for (std::int64_t at = data_begin; journal->read(&record, sizeof record, at) == sizeof record; at += sizeof record) {
    if (fault_of(record, name, layout, data_bytes).empty()) found.emplace(record.offset, record);
  }
  return found;
}

}  // namespace

std::string SegmentName::text() const {
  char text[18];
  std::snprintf(text, sizeof text, "%08x-%08x", writer, number);
  return text;
}

std::optional<SegmentName> SegmentName::of_journal(const std::string& file) {
  if (file.size() != 17 + journal_suffix.size() || !file.ends_with(journal_suffix)) return std::nullopt;
  SegmentName name{};
  const auto parse = [&](std::size_t at, std::uint32_t& number) {
    const char* end = file.data() + at + 8;
    const auto [stop, error] = std::from_chars(file.data() + at, end, number, 16);
    return error == std::errc{} && stop == end;
  };
  if (!parse(0, name.writer) || file[8] != '-' || !parse(9, name.number)) return std::nullopt;
  return name;
}

Segment::Segment(const std::string& directory, SegmentName name, const Layout& layout)
    : name_(name),
      data_path_(path_of(directory, name, data_suffix)),
      journal_path_(path_of(directory, name, journal_suffix)) {
  const File data(data_path_, File::Use::read);
  read_header(File(journal_path_, File::Use::read), name, layout, true);
  mapping_.emplace(data, read_header(data, name, layout, false).most_bytes);
}

std::shared_ptr<Trajectory> Segment::adopt(const Record& record, const Layout& layout) {
  const auto trajectory = std::make_shared<Trajectory>(
      Rows(record.length, mapping_->data() + record.offset, packed_bytes(record, layout), shared_from_this()),
      record.task);
  trajectory->id = record.id;
  trajectory->kept = (record.flags & Record::kept) != 0;
  trajectory->origin = record.origin;
  trajectory->total_reward = record.total_reward;
  trajectory->checksum = record.block_checksum;
  trajectory->segment = shared_from_this();
  return trajectory;
}

bool Segment::live() const {
  try {
    return File(journal_path_, File::Use::read).locked();
  } catch (const FileError& error) {
    if (error.code() == ENOENT) return false;  // another process has reclaimed it
    throw;
  }
}

std::int64_t Segment::whole_records() const {
  std::error_code error;
  const auto bytes = static_cast<std::int64_t>(std::filesystem::file_size(journal_path_, error));
  return error ? 0 : (bytes - data_begin) / static_cast<std::int64_t>(sizeof(Record));
}

std::vector<Committed> Segment::read(const Layout& layout, std::vector<Problem>& problems) {
  std::vector<Committed> result;
  if (ended_) return result;
  const bool alive = live();  // before the end is looked at, which is the last one where it is not
  const std::int64_t known = records_;
  const std::int64_t whole = whole_records();
  if (whole > known) {
    const auto data_bytes =
        std::min(File(data_path_, File::Use::read).size(), static_cast<std::int64_t>(mapping_->bytes()));
    std::vector<Record> records(static_cast<std::size_t>(whole - known));
    const std::int64_t offset = data_begin + known * static_cast<std::int64_t>(sizeof(Record));
    const File journal(journal_path_, File::Use::read);
    records.resize(journal.read(records.data(), records.size() * sizeof(Record), offset) / sizeof(Record));
    result.reserve(records.size());
    for (const Record& record : records) {
      const std::string fault = fault_of(record, name_, layout, data_bytes);
      if (fault.empty()) {
        result.push_back({adopt(record, layout), record.time});
      } else {
        problems.push_back({journal_path_, fault + " in place " + std::to_string(records_)});
      }
      ++records_;
    }
  }
  ended_ = !alive;
  return result;
}

bool Segment::intact(const Trajectory& trajectory, const Layout& layout) const {
  return block_checksum(trajectory, layout) == trajectory.checksum;
}

SegmentWriter::SegmentWriter(const std::string& directory, SegmentName name, const Layout& layout,
                             std::size_t most_bytes)
    : name_(name),
      data_(path_of(directory, name, data_suffix), File::Use::create),
      journal_([&]() -> File {
        try {
          return File(path_of(directory, name, journal_suffix), File::Use::create);
        } catch (...) {
          remove_file(data_.path());
          throw;
        }
      }()),
      most_bytes_(most_bytes),
      process_(process_generation()),
      end_(data_begin),
      journal_end_(data_begin) {
  try {
    if (!journal_.lock()) throw std::runtime_error("'" + journal_.path() + "' has another writer");
    const Header data = make_header(name, layout, most_bytes, false);
    data_.write(&data, sizeof data, 0);
    const Header journal = make_header(name, layout, most_bytes, true);
    journal_.write(&journal, sizeof journal, 0);
    segment_ = std::make_shared<Segment>(directory, name, layout);
  } catch (...) {
    remove_file(journal_.path());
    remove_file(data_.path());
    throw;
  }
}

// A forked child shares the lock, which would last as long as the child; its own end must not take it from the parent.
SegmentWriter::~SegmentWriter() {
  if (process_ == process_generation()) journal_.unlock();
}

Record SegmentWriter::write(const Trajectory& trajectory, const Layout& layout, std::int64_t offset) const {
  Record record{};
  record.mark = Record::marked;
  record.id = trajectory.id;
  record.offset = offset + static_cast<std::int64_t>(sizeof(Record));
  record.bytes = static_cast<std::int64_t>(trajectory.rows.bytes(layout));
  record.length = trajectory.length;
  record.origin = trajectory.origin;
  record.time = std::chrono::duration_cast<std::chrono::nanoseconds>(
                    std::chrono::system_clock::now().time_since_epoch())
                    .count();
  record.total_reward = trajectory.total_reward;
  record.task = trajectory.task;
  if (trajectory.kept) record.flags = Record::kept;
  record.block_checksum = block_checksum(trajectory, layout);
  record.checksum = record_checksum(record, name_);
  std::vector<iovec> pieces{{&record, sizeof record}};
  const std::byte* packed = trajectory.rows.packed_block();
  if (packed != nullptr) pieces.push_back({const_cast<std::byte*>(packed), trajectory.rows.bytes(layout)});
  for (std::size_t c = 0; packed == nullptr && c < layout.columns().size(); ++c) {
    const Column& column = layout.columns()[c];
    std::size_t used = 0;
    trajectory.rows.visit(layout, c, 0, trajectory.length + column.extra_rows,
                          [&](const std::byte* source, std::int64_t rows) {
                            const std::size_t bytes = static_cast<std::size_t>(rows) * column.row_bytes;
                            pieces.push_back({const_cast<std::byte*>(source), bytes});
                            used += bytes;
                          });
    const std::size_t whole = Layout::bytes(column, {trajectory.length, trajectory.length + 1});
    if (whole != used) pieces.push_back({const_cast<std::byte*>(padding.data()), whole - used});
  }
  data_.write(std::move(pieces), offset);
  return record;
}

void SegmentWriter::append(std::span<std::shared_ptr<Trajectory>> finished, const Layout& layout, bool durable) {
  std::vector<Record> records;
  records.reserve(finished.size());
  std::size_t end = end_;
  const std::int64_t journal_bytes = static_cast<std::int64_t>(finished.size() * sizeof(Record));
  std::vector<std::shared_ptr<Trajectory>> adopted;
  adopted.reserve(finished.size());
  try {
    for (const auto& trajectory : finished) {
      records.push_back(write(*trajectory, layout, static_cast<std::int64_t>(end)));
      adopted.push_back(segment_->adopt(records.back(), layout));
      end += bytes(*trajectory, layout);
    }
    if (durable) data_.sync();
  } catch (...) {
    data_.truncate(static_cast<std::int64_t>(end_));
    throw;
  }
  try {
    journal_.write(records.data(), records.size() * sizeof(Record), journal_end_);
    if (durable) journal_.sync();
  } catch (...) {
    journal_.truncate(journal_end_);
    end_ = end;  // a reader may have taken what stood in the journal for a moment, so its data stay
    throw;
  }
  segment_->count(static_cast<std::int64_t>(records.size()));
  end_ = end;
  journal_end_ += journal_bytes;
  std::move(adopted.begin(), adopted.end(), finished.begin());
}

void SegmentWriter::sync() const {
  data_.sync();
  journal_.sync();
}

std::int64_t data_extent(const std::string& directory, SegmentName name, std::int64_t records) {
  const File journal(path_of(directory, name, journal_suffix), File::Use::read);
  const std::int64_t bytes = data_begin + records * static_cast<std::int64_t>(sizeof(Record));
  if (records < 0 || journal.size() < bytes) {
    throw std::runtime_error("'" + journal.path() + "' holds less than it did then");
  }
  if (records == 0) return data_begin;
  Record last;
  journal.read(&last, sizeof last, bytes - static_cast<std::int64_t>(sizeof last));
  if (last.mark != Record::marked || last.checksum != record_checksum(last, name)) {
    throw std::runtime_error("'" + journal.path() + "' has a damaged record in place " + std::to_string(records - 1));
  }
  return last.offset + last.bytes;
}

std::int64_t rebuild_journal(const std::string& directory, SegmentName name, const Layout& layout,
                             std::vector<Problem>& problems) {
  const File data(path_of(directory, name, data_suffix), File::Use::read);
  const Header header = read_header(data, name, layout, false);
  const std::int64_t bytes = data.size();
  const std::string path = path_of(directory, name, journal_suffix);
  const std::string partial = path + ".partial";
  remove_file(partial);
  const auto known = journaled(path, name, layout, bytes);
  const File journal(partial, File::Use::create);
  const Header journal_header = make_header(name, layout, header.most_bytes, true);
  journal.write(&journal_header, sizeof journal_header, 0);
  const auto mapping = std::make_shared<const Mapping>(data, static_cast<std::size_t>(bytes));
  const auto record_bytes = static_cast<std::int64_t>(sizeof(Record));
  std::int64_t found = 0;
  std::int64_t lost_from = -1;
  const auto lose = [&](std::int64_t until) {
    if (lost_from >= 0) {
      problems.push_back({data.path(), "nothing usable in bytes " + std::to_string(lost_from) + " to " +
                                           std::to_string(until)});
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
    if (holds) {
      const Trajectory trajectory(
          Rows(record.length, mapping->data() + record.offset, packed_bytes(record, layout), mapping), record.task);
      if (block_checksum(trajectory, layout) == record.block_checksum) {
        lose(at);
        journal.write(&record, sizeof record, data_begin + found++ * record_bytes);
      } else {
        lose(at);
        problems.push_back({data.path(), "a trajectory of " + std::to_string(record.length) + " steps at byte " +
                                             std::to_string(at) + " does not have its checksum"});
      }
      at = record.offset + record.bytes;
      continue;
    }
    if (lost_from < 0) lost_from = at;
    at += static_cast<std::int64_t>(Layout::alignment);
  }
  if (lost_from < 0 && at < bytes) lost_from = at;
  lose(bytes);
  journal.sync();
  if (std::rename(partial.c_str(), path.c_str()) != 0) throw FileError(errno, path);
  return found;
}

}  // namespace twohot
