// What the tests of CPU kernels share: checks that say what was looked at, and every form that this machine runs.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "ops/simd/dispatch.h"

namespace twohot::ops::tests {

inline int passed = 0;
inline int failed = 0;
inline std::string at;  // what is being checked

inline void check(bool holds, const char* text, int line) {
  ++(holds ? passed : failed);
  static std::map<int, int> shown;
  if (!holds && ++shown[line] <= 3) std::printf("line %d: %s (%s)\n", line, text, at.c_str());
}

#define CHECK(...) ::twohot::ops::tests::check((__VA_ARGS__), #__VA_ARGS__, __LINE__)

// Prints the score; the exit status of the test.
inline int report() {
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

// The kernels of every instruction set that this machine has.
template <class Table>
std::vector<const Table*> forms() {
  std::vector<const Table*> found;
  for (const Capability capability : capabilities) {
    if (supported(capability)) found.push_back(&kernels<Table>(capability));
  }
  return found;
}

// run(name) in each form that this machine has, in a process of its own, for a form is chosen once in a process. The
// exit status of a test, which has no threads yet.
template <class Run>
int in_each_form(const Run& run) {
  int failures = 0;
  for (const Capability capability : capabilities) {
    if (!supported(capability)) continue;
    const char* name = name_of(capability);
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      setenv("TWOHOT_CPU_CAPABILITY", name, 1);
      CHECK(chosen().capability == capability);
      run(name);
      std::printf("%s: ", name);
      const int status = report();
      std::fflush(stdout);
      _exit(status);
    }
    int status = 0;
    waitpid(child, &status, 0);
    failures += status != 0;
  }
  return failures;
}

}  // namespace twohot::ops::tests
