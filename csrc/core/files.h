// Files of the replay: descriptors, mappings and errors that name the path.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace twohot {

// A call of the system that failed: its errno and the path.
class FileError : public std::runtime_error {
 public:
  FileError(int code, std::string path);
  FileError(int code, std::string path, const std::string& what);

  int code() const noexcept { return code_; }
  const std::string& path() const noexcept { return path_; }

  // Whether the process or the system ran short of something, so that the file itself may be well.
  bool exhausted() const noexcept;

 private:
  int code_;
  std::string path_;
};

// Owns a descriptor, closed on exec. Every call throws FileError unless it says otherwise.
class File {
 public:
  enum class Use { read, create, folder };  // create: must not exist yet

  // Waits for nobody, as opening a FIFO would; `read` refuses all but regular files, themselves or behind symbolic
  // links.
  File(std::string path, Use use);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const noexcept { return path_; }
  int descriptor() const noexcept { return descriptor_; }
  std::int64_t size() const;

  // Whether the file still has a name.
  bool named() const;

  // Reads up to `bytes` from `offset`; returns fewer at the end of the file.
  std::size_t read(void* target, std::size_t bytes, std::int64_t offset) const;

  // Writes all of the pieces one after another from `offset` on. What a failure wrote stays.
  void write(std::vector<iovec> pieces, std::int64_t offset) const;
  void write(const void* data, std::size_t bytes, std::int64_t offset) const;

  void truncate(std::int64_t bytes) const;
  void sync() const;

  // Takes the exclusive lock of the file without waiting; false where another descriptor holds it.
  bool lock() const;

  // Gives it back, for every process that shares the descriptor. Never fails.
  void unlock() const noexcept;

  // Whether another descriptor holds the exclusive lock.
  bool locked() const;

  // Keeps others from the exclusive lock until the file is closed; false where one holds it.
  bool share() const;

 private:
  std::string path_;
  int descriptor_;
};

// The first `bytes` of a file, mapped for reading; pages past the end of the file may not be touched.
class Mapping {
 public:
  Mapping(const File& file, std::size_t bytes);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  const std::byte* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  const std::byte* data_;
  std::size_t bytes_;
};

// Removes a file; one that is gone already is no error.
void remove_file(const std::string& path);

// Whether nothing has this name, not even a symbolic link that leads nowhere.
bool absent(const std::string& path) noexcept;

// The size of a regular file, itself or behind symbolic links; nothing for anything else.
std::optional<std::int64_t> file_bytes(const std::string& path) noexcept;

// How often this process has been forked into being: a number that differs between a parent and its children.
std::uint64_t process_generation() noexcept;

// Deletes in the process that it was made in. In a forked child the copy stays until the child ends: a thread that only
// the parent has may wait for something in it, or hold a mutex of it.
struct ProcessDelete {
  std::uint64_t process = process_generation();

  template <typename Value>
  void operator()(Value* value) const {
    if (process == process_generation()) delete value;
  }
};

// Holds a mutex that lives until the process ends while the process forks, so that a child finds it free.
void hold_while_forking(std::mutex& mutex);

}  // namespace twohot
