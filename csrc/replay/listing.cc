#include "replay/listing.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <random>
#include <system_error>
#include <vector>

#include "core/files.h"

namespace twohot {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t header_bytes = 128;

// Exactly `digits` lower-case hexadecimal ones at the front of `text`, which loses them.
std::optional<std::uint64_t> take_number(std::string_view& text, std::size_t digits) {
  std::uint64_t number = 0;
  if (text.size() < digits) return std::nullopt;
  const char* end = text.data() + digits;
  const auto [stop, error] = std::from_chars(text.data(), end, number, 16);
  const bool upper = std::any_of(text.data(), end, [](char digit) { return digit >= 'A' && digit <= 'F'; });
  if (error != std::errc{} || stop != end || upper) return std::nullopt;
  text.remove_prefix(digits);
  return number;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

std::optional<Cut> cut_of(std::string_view text) {
  const auto records = take_number(text, 16);
  if (!records || !take(text, "-")) return std::nullopt;
  const auto bytes = take_number(text, 16);
  if (!bytes || text != ".cut") return std::nullopt;
  return Cut{static_cast<std::int64_t>(*records), static_cast<std::int64_t>(*bytes)};
}

std::string path_of(const std::string& directory, SegmentName name, const std::string& suffix) {
  return directory + "/" + name.text() + suffix;
}

std::string cut_path(const std::string& directory, SegmentName name, Cut cut) {
  char text[39];
  std::snprintf(text, sizeof text, ".%016llx-%016llx.cut", static_cast<unsigned long long>(cut.records),
                static_cast<unsigned long long>(cut.data_bytes));
  return path_of(directory, name, text);
}

// Calls visit(name, the rest of the file's name) for every file of a segment.
template <typename Visit>
void visit_files(const std::string& directory, Visit visit) {
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string file = it->path().filename().string();
    const std::size_t dot = file.find('.');
    if (dot == std::string::npos) continue;
    if (const auto name = SegmentName::of(file.substr(0, dot))) visit(*name, std::string_view(file).substr(dot));
  }
  if (error) throw FileError(error.value(), directory);
}

// Removes those cuts of a segment that leave more than `data_bytes` of it.
void remove_cuts(const std::string& directory, SegmentName name, std::int64_t data_bytes) {
  std::vector<Cut> cuts;
  visit_files(directory, [&](SegmentName found, std::string_view rest) {
    if (found != name || !take(rest, ".")) return;
    if (const auto cut = cut_of(rest); cut && cut->data_bytes > data_bytes) cuts.push_back(*cut);
  });
  for (const Cut cut : cuts) remove_file(cut_path(directory, name, cut));
}

std::int64_t remove_counted(const std::string& path) {
  const std::int64_t bytes = file_bytes(path).value_or(0);
  remove_file(path);
  return bytes;
}

// Removes a blank segment unless somebody is beginning it: who holds its lock, or finds that its name is gone, knows.
std::int64_t remove_blank(const std::string& directory, SegmentName name) {
  std::optional<File> journal;
  try {
    journal.emplace(journal_path(directory, name), File::Use::read);
  } catch (const FileError& error) {
    if (error.code() != ENOENT) throw;
  }
  if (journal && !journal->share()) return 0;
  if (!blank(directory, name)) return 0;
  const std::int64_t bytes = remove_counted(data_path(directory, name));
  return bytes + remove_counted(journal_path(directory, name));
}

}  // namespace

std::string SegmentName::text() const {
  char text[26];
  std::snprintf(text, sizeof text, drawn() ? "%016llx-%08x" : "%08llx-%08x", static_cast<unsigned long long>(writer),
                number);
  return text;
}

std::optional<SegmentName> SegmentName::of(std::string_view text) {
  const std::string_view whole = text;
  const auto writer = take_number(text, whole.size() == 25 ? 16 : 8);
  if (!writer || !take(text, "-")) return std::nullopt;
  const auto number = take_number(text, 8);
  if (!number || !text.empty()) return std::nullopt;
  const SegmentName name{*writer, static_cast<std::uint32_t>(*number)};
  return name.text() == whole ? std::optional(name) : std::nullopt;
}

std::uint64_t draw_writer() {
  std::random_device device;
  std::uniform_int_distribution<std::uint64_t> drawn(SegmentName::first_drawn);
  return drawn(device);
}

Listing list(const std::string& directory) {
  Listing listing;
  visit_files(directory, [&](SegmentName name, std::string_view rest) {
    std::optional<Cut> cut;
    if (rest != ".journal" && rest != ".data" && rest != ".removed" && !(cut = cut_of(rest.substr(1)))) return;
    SegmentFiles& files = listing[name];
    files.journal = files.journal || rest == ".journal";
    files.data = files.data || rest == ".data";
    files.removed = files.removed || rest == ".removed";
    if (cut && (!files.cut || cut->data_bytes < files.cut->data_bytes)) files.cut = cut;
  });
  return listing;
}

std::string journal_path(const std::string& directory, SegmentName name) {
  return path_of(directory, name, ".journal");
}

std::string data_path(const std::string& directory, SegmentName name) { return path_of(directory, name, ".data"); }

bool blank(const std::string& directory, SegmentName name) {
  const auto small = [](const std::string& path) {
    const auto bytes = file_bytes(path);
    return bytes ? *bytes <= header_bytes : absent(path);
  };
  return small(journal_path(directory, name)) && small(data_path(directory, name));
}

// In this order: a segment that is begun has its journal first, and one that is removed loses it first.
bool lost_journal(const std::string& directory, SegmentName name, const SegmentFiles& files) {
  return files.data && !files.journal && absent(journal_path(directory, name)) &&
         absent(path_of(directory, name, ".removed")) && !absent(data_path(directory, name)) && !blank(directory, name);
}

void make_cut(const std::string& directory, SegmentName name, Cut cut) {
  try {
    File(cut_path(directory, name, cut), File::Use::create);
  } catch (const FileError& error) {
    if (error.code() != EEXIST) throw;
  }
  remove_cuts(directory, name, cut.data_bytes);
}

std::int64_t remove_segment(const std::string& directory, SegmentName name) {
  const std::string journal = journal_path(directory, name);
  const std::string removed = path_of(directory, name, ".removed");
  if (std::rename(journal.c_str(), removed.c_str()) != 0 && errno != ENOENT) throw FileError(errno, journal);
  const std::int64_t bytes = remove_counted(data_path(directory, name));
  remove_cuts(directory, name, -1);
  return bytes + remove_counted(removed);
}

std::int64_t remove_leftovers(const std::string& directory) {
  std::int64_t bytes = 0;
  for (const auto& [name, files] : list(directory)) {
    const bool only_cuts = !files.journal && !files.data && absent(journal_path(directory, name));
    try {
      if ((files.removed && !files.journal) || only_cuts) {
        bytes += remove_segment(directory, name);
      } else if (blank(directory, name)) {
        bytes += remove_blank(directory, name);
      }
    } catch (const FileError&) {  // it is of no use, and in nobody's way
    }
  }
  return bytes;
}

}  // namespace twohot
