// What serves one thread at a time says so to a second one.
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>

namespace twohot {

// Holds the flag while it lives. Throws std::runtime_error if it is held already.
class Busy {
 public:
  Busy(std::atomic_flag& flag, const char* what) : flag_(flag) {
    if (flag_.test_and_set(std::memory_order_acquire)) {
      throw std::runtime_error(std::string(what) + " serves one thread at a time: another call is in progress");
    }
  }
  ~Busy() { flag_.clear(std::memory_order_release); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  std::atomic_flag& flag_;
};

}  // namespace twohot
