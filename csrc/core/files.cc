#include "core/files.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace twohot {
namespace {

constexpr std::size_t max_iovecs = 256;

std::atomic<std::uint64_t> generation{0};

std::mutex registering;

// Never destroyed: a process may fork while it ends.
std::vector<std::mutex*>& held_while_forking() {
  static auto* const mutexes = new std::vector<std::mutex*>();
  return *mutexes;
}

void lock_held() {
  registering.lock();
  for (std::mutex* mutex : held_while_forking()) mutex->lock();
}

void unlock_held() {
  for (std::mutex* mutex : held_while_forking()) mutex->unlock();
  registering.unlock();
}

}  // namespace

FileError::FileError(int code, std::string path)
    : FileError(code, path, std::string(std::strerror(code)) + ": '" + path + "'") {}

FileError::FileError(int code, std::string path, const std::string& what)
    : std::runtime_error(what), code_(code), path_(std::move(path)) {}

bool FileError::exhausted() const noexcept {
  return code_ == EMFILE || code_ == ENFILE || code_ == ENOMEM || code_ == ENOLCK || code_ == ENOSPC || code_ == EDQUOT;
}

File::File(std::string path, Use use) : path_(std::move(path)) {
  const int flags = use == Use::create   ? O_RDWR | O_CREAT | O_EXCL
                    : use == Use::folder ? O_RDONLY | O_DIRECTORY
                                         : O_RDONLY | O_NONBLOCK | O_NOCTTY;
  descriptor_ = ::open(path_.c_str(), flags | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw FileError(errno, path_);
  if (use != Use::read) return;
  struct stat status{};
  const int failed = ::fstat(descriptor_, &status) != 0 ? errno : S_ISDIR(status.st_mode) ? EISDIR : 0;
  if (failed == 0 && S_ISREG(status.st_mode)) return;
  ::close(descriptor_);
  if (failed != 0) throw FileError(failed, path_);
  throw FileError(EINVAL, path_, "'" + path_ + "' is no regular file");
}

File::~File() { ::close(descriptor_); }

std::int64_t File::size() const {
  struct stat status{};
  if (::fstat(descriptor_, &status) != 0) throw FileError(errno, path_);
  return status.st_size;
}

bool File::named() const {
  struct stat status{};
  if (::fstat(descriptor_, &status) != 0) throw FileError(errno, path_);
  return status.st_nlink > 0;
}

std::size_t File::read(void* target, std::size_t bytes, std::int64_t offset) const {
  std::size_t done = 0;
  while (done < bytes) {
    const auto got = ::pread(descriptor_, static_cast<std::byte*>(target) + done, bytes - done,
                             offset + static_cast<std::int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw FileError(errno, path_);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

void File::write(std::vector<iovec> pieces, std::int64_t offset) const {
  std::size_t first = 0;
  while (first < pieces.size()) {
    const int count = static_cast<int>(std::min(pieces.size() - first, max_iovecs));
    const auto wrote = ::pwritev(descriptor_, pieces.data() + first, count, offset);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) throw FileError(errno, path_);
    offset += wrote;
    auto left = static_cast<std::size_t>(wrote);
    while (first < pieces.size() && left >= pieces[first].iov_len) left -= pieces[first++].iov_len;
    if (left != 0) {
      pieces[first].iov_base = static_cast<std::byte*>(pieces[first].iov_base) + left;
      pieces[first].iov_len -= left;
    }
  }
}

void File::write(const void* data, std::size_t bytes, std::int64_t offset) const {
  write({{const_cast<void*>(data), bytes}}, offset);
}

void File::truncate(std::int64_t bytes) const {
  if (::ftruncate(descriptor_, bytes) != 0) throw FileError(errno, path_);
}

void File::sync() const {
  if (::fsync(descriptor_) != 0) throw FileError(errno, path_);
}

bool File::lock() const {
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return true;
  if (errno == EWOULDBLOCK) return false;
  throw FileError(errno, path_);
}

void File::unlock() const noexcept { ::flock(descriptor_, LOCK_UN); }

bool File::locked() const {
  if (!share()) return true;
  unlock();
  return false;
}

bool File::share() const {
  if (::flock(descriptor_, LOCK_SH | LOCK_NB) == 0) return true;
  if (errno == EWOULDBLOCK) return false;
  throw FileError(errno, path_);
}

Mapping::Mapping(const File& file, std::size_t bytes) : bytes_(bytes) {
  void* data = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (data == MAP_FAILED) throw FileError(errno, file.path());
  data_ = static_cast<const std::byte*>(data);
}

Mapping::~Mapping() { ::munmap(const_cast<std::byte*>(data_), bytes_); }

void remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw FileError(errno, path);
}

bool absent(const std::string& path) noexcept {
  struct stat status{};
  return ::lstat(path.c_str(), &status) != 0 && (errno == ENOENT || errno == ESTALE);
}

std::optional<std::int64_t> file_bytes(const std::string& path) noexcept {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  return status.st_size;
}

std::uint64_t process_generation() noexcept {
  static const bool registered = [] {
    ::pthread_atfork(nullptr, nullptr, [] { generation.fetch_add(1, std::memory_order_relaxed); });
    return true;
  }();
  (void)registered;
  return generation.load(std::memory_order_relaxed);
}

void hold_while_forking(std::mutex& mutex) {
  const std::lock_guard lock(registering);
  if (held_while_forking().empty()) ::pthread_atfork(lock_held, unlock_held, unlock_held);
  held_while_forking().push_back(&mutex);
}

}  // namespace twohot
