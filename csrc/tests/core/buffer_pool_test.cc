// The pool of large blocks; meant to run under the sanitizers as well.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "core/buffer_pool.h"

namespace {

using twohot::BufferPool;
using Block = BufferPool::Block;

constexpr std::size_t megabyte = std::size_t{1} << 20;

int passed = 0;
int failed = 0;

void check(bool holds, const char* text, int line) {
  ++(holds ? passed : failed);
  if (!holds) std::printf("line %d: %s\n", line, text);
}

#define CHECK(...) check((__VA_ARGS__), #__VA_ARGS__, __LINE__)

bool aligned(const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 64 == 0; }

// The address of a block that is given back at once.
void* pass_through(BufferPool& pool, std::size_t bytes) { return pool.take(bytes).data(); }

void test_memory() {
  BufferPool pool(100 * megabyte);
  for (const std::size_t bytes :
       {std::size_t{1}, std::size_t{63}, megabyte, 2 * megabyte, 2 * megabyte + 1, 5 * megabyte - 3, 16 * megabyte}) {
    // Once fresh, once used.
    for (int round = 0; round < 2; ++round) {
      const Block block = pool.take(bytes);
      CHECK(block.data() != nullptr && aligned(block.data()));
      std::memset(block.data(), 0x5a, bytes);
      CHECK(static_cast<unsigned char*>(block.data())[bytes - 1] == 0x5a);
    }
    pool.release();
  }
  pass_through(pool, 0);
  bool thrown = false;
  try {
    pool.take(std::numeric_limits<std::size_t>::max() - 5);
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  CHECK(thrown);
}

void test_reuse() {
  BufferPool pool(100 * megabyte);
  CHECK(pool.cached_bytes() == 0);
  void* first = nullptr;
  {
    const Block block = pool.take(16 * megabyte);
    first = block.data();
    CHECK(pool.cached_bytes() == 0);
  }
  CHECK(pool.cached_bytes() == 16 * megabyte);
  {
    const Block again = pool.take(16 * megabyte);
    CHECK(again.data() == first && pool.cached_bytes() == 0);
    const Block another = pool.take(16 * megabyte);
    CHECK(another.data() != first);
  }
  CHECK(pool.cached_bytes() == 32 * megabyte);
  // The newest one that fits; two that are taken are two.
  void* const newest = pass_through(pool, 16 * megabyte);
  const Block a = pool.take(16 * megabyte);
  const Block b = pool.take(16 * megabyte);
  CHECK(a.data() == newest && b.data() != a.data() && pool.cached_bytes() == 0);
}

void test_sizes() {
  BufferPool pool(1000 * megabyte);
  void* const kept = pass_through(pool, 40 * megabyte);
  // Too small, and far too large.
  {
    const Block larger = pool.take(40 * megabyte + 1);
    CHECK(larger.data() != kept && pool.cached_bytes() == 40 * megabyte);
    const Block smaller = pool.take(10 * megabyte);
    CHECK(smaller.data() != kept && pool.cached_bytes() == 40 * megabyte);
  }
  pool.release();
  void* const large = pass_through(pool, 40 * megabyte);
  // A little too large; the whole of it comes back.
  {
    const Block block = pool.take(33 * megabyte);
    CHECK(block.data() == large && pool.cached_bytes() == 0);
    std::memset(block.data(), 1, 33 * megabyte);
  }
  CHECK(pool.cached_bytes() == 40 * megabyte);
  // The one that fits is found after one that does not.
  void* const small = pass_through(pool, 8 * megabyte);
  CHECK(pass_through(pool, 36 * megabyte) == large);
  CHECK(pass_through(pool, 8 * megabyte) == small);
  CHECK(pool.cached_bytes() == 48 * megabyte);
}

void test_borrowing() {
  BufferPool pool(100 * megabyte);
  void* const lasting = pass_through(pool, 6 * megabyte);
  void* first = nullptr;
  {
    const Block small = pool.borrow(4 * megabyte);  // however much too large it is
    CHECK(small.data() == lasting);
    const Block block = pool.borrow(8 * megabyte);
    first = block.data();
    std::memset(first, 0x5a, 8 * megabyte);
    CHECK(pool.cached_bytes() == 0);
  }
  CHECK(pool.cached_bytes() == 14 * megabyte);
  {
    const Block tiny = pool.borrow(1);  // the smaller of the two
    CHECK(tiny.data() == lasting && pool.cached_bytes() == 8 * megabyte);
    CHECK(pool.borrow(1).data() == first);
  }
  void* const other = pass_through(pool, 20 * megabyte);
  {
    const Block all = pool.borrow(20 * megabyte);
    CHECK(all.data() == other);
    const Block larger = pool.borrow(10 * megabyte);  // in place of both that were borrowed
    CHECK(pool.cached_bytes() == 0 && aligned(larger.data()));
  }
  CHECK(pool.cached_bytes() == 30 * megabyte);
  pool.release();
  pass_through(pool, 2 * megabyte);  // was not borrowed: stays
  pool.borrow(4 * megabyte);
  CHECK(pool.cached_bytes() == 6 * megabyte);
  bool thrown = false;
  try {
    pool.borrow(std::numeric_limits<std::size_t>::max() - 5);
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  CHECK(thrown && pool.cached_bytes() == 2 * megabyte);
}

void test_limit() {
  BufferPool pool(20 * megabyte);
  {
    std::optional<Block> oldest = pool.take(8 * megabyte);
    std::optional<Block> middle = pool.take(8 * megabyte);
    std::optional<Block> newest = pool.take(4 * megabyte);
    std::optional<Block> last = pool.take(8 * megabyte);
    void* const second = middle->data();
    void* const third = newest->data();
    void* const fourth = last->data();
    oldest.reset();
    middle.reset();
    newest.reset();
    CHECK(pool.cached_bytes() == 20 * megabyte);
    last.reset();  // the oldest leaves
    CHECK(pool.cached_bytes() == 20 * megabyte);
    const Block x = pool.take(8 * megabyte);
    const Block y = pool.take(4 * megabyte);
    const Block z = pool.take(8 * megabyte);
    CHECK(x.data() == fourth && y.data() == third && z.data() == second && pool.cached_bytes() == 0);
  }
  CHECK(pool.cached_bytes() == 20 * megabyte);
  pass_through(pool, 14 * megabyte);  // all of them have to leave
  CHECK(pool.cached_bytes() == 14 * megabyte);
  pass_through(pool, 32 * megabyte);  // more than the limit
  CHECK(pool.cached_bytes() <= 20 * megabyte);

  BufferPool none(0);
  {
    const Block block = none.take(3 * megabyte);
    std::memset(block.data(), 1, 3 * megabyte);
  }
  CHECK(none.cached_bytes() == 0);
}

void test_release() {
  BufferPool pool(100 * megabyte);
  const Block held = pool.take(4 * megabyte);
  pass_through(pool, 2 * megabyte);
  {
    const Block a = pool.take(2 * megabyte), b = pool.take(6 * megabyte);
  }
  CHECK(pool.cached_bytes() == 8 * megabyte);
  pool.release();
  CHECK(pool.cached_bytes() == 0);
  std::memset(held.data(), 1, 4 * megabyte);  // what is held stays
  pool.release();
  pass_through(pool, 2 * megabyte);
  CHECK(pool.cached_bytes() == 2 * megabyte);
}

void test_moves() {
  BufferPool pool(100 * megabyte);
  {
    Block first = pool.take(2 * megabyte);
    void* const data = first.data();
    {
      const Block second(std::move(first));
      CHECK(second.data() == data && pool.cached_bytes() == 0);
    }
    CHECK(pool.cached_bytes() == 2 * megabyte);
    std::vector<Block> blocks;
    for (int i = 0; i < 5; ++i) blocks.push_back(pool.take(2 * megabyte));
    CHECK(blocks[0].data() == data && pool.cached_bytes() == 0);
  }
  CHECK(pool.cached_bytes() == 10 * megabyte);
  // None of them is kept twice.
  std::vector<Block> blocks;
  for (int i = 0; i < 5; ++i) {
    blocks.push_back(pool.take(2 * megabyte));
    for (int j = 0; j < i; ++j) CHECK(blocks[static_cast<std::size_t>(j)].data() != blocks.back().data());
  }
  CHECK(pool.cached_bytes() == 0);
}

// The pool of a child whose TWOHOT_POOL_MB is `text` keeps `megabytes` of 40.
bool process_keeps(const char* text, std::size_t megabytes) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    text == nullptr ? unsetenv("TWOHOT_POOL_MB") : setenv("TWOHOT_POOL_MB", text, 1);
    BufferPool& pool = BufferPool::global();
    {
      const Block a = pool.take(10 * megabyte), b = pool.take(10 * megabyte), c = pool.take(20 * megabyte);
    }
    _exit(pool.cached_bytes() == megabytes * megabyte && &pool == &BufferPool::global() ? 0 : 1);
  }
  int status = 1;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void test_process() {
  CHECK(process_keeps(nullptr, 40));
  CHECK(process_keeps("", 40));
  CHECK(process_keeps("many", 40));
  CHECK(process_keeps("0", 0));
  CHECK(process_keeps("25", 20));
}

// No two threads hold the same block at once.
void test_threads() {
  constexpr std::size_t limit = 32 * megabyte;
  BufferPool pool(limit);
  std::atomic<int> wrong{0};
  const auto work = [&](int number) {
    const auto mark = static_cast<unsigned char>(number + 1);
    for (int round = 0; round < 150; ++round) {
      const std::size_t bytes = (1 + static_cast<std::size_t>((round * 7 + number) % 3) * 2) * megabyte;
      const Block moved = pool.take(bytes);
      Block other = pool.take(megabyte);
      const Block second(std::move(other));
      auto* const first_byte = static_cast<unsigned char*>(moved.data());
      auto* const second_byte = static_cast<unsigned char*>(second.data());
      *first_byte = mark;
      first_byte[bytes - 1] = mark;
      *second_byte = mark;
      if (round % 8 == 0) std::this_thread::yield();
      if (*first_byte != mark || first_byte[bytes - 1] != mark || *second_byte != mark) ++wrong;
      if (pool.cached_bytes() > limit) ++wrong;
      if (round % 100 == 99) pool.release();
    }
  };
  std::vector<std::thread> threads;
  for (int number = 0; number < 6; ++number) threads.emplace_back(work, number);
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(pool.cached_bytes() <= limit);
}

}  // namespace

int main() {
  test_process();  // forks, hence before there are threads
  test_memory();
  test_reuse();
  test_sizes();
  test_borrowing();
  test_limit();
  test_release();
  test_moves();
  test_threads();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
