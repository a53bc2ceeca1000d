// The checksum, the pool of blocks and the sum tree.
#if defined(__linux__)
#include <sys/mman.h>
#endif
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "core/files.h"
#include "core/hash.h"
#include "core/huge_pages.h"
#include "core/random.h"
#include "replay/block_arena.h"
#include "replay/block_pool.h"
#include "replay/sum_tree.h"
#include "tests/support.h"

namespace twohot::test {

// The values are those of the reference implementation (xxhash 3 of PyPI, xxh64) for bytes 11, 48, 85, ... (37 i + 11).
void test_hash() {
  std::vector<std::uint8_t> bytes(1024);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(37 * i + 11);
  struct Vector {
    std::size_t bytes;
    std::uint64_t plain;
    std::uint64_t seeded;
  };
  const Vector vectors[] = {
      {0, 0xef46db3751d8e999u, 0x51e24c0e9077a48cu},   {1, 0xf592c0c7639c4cb6u, 0x0f614199dd19ad7au},
      {4, 0xfb1e5cf2f1ae4d95u, 0x40ce9f1dabe95d5fu},   {7, 0x5613ac510496c04eu, 0x7e45f7a37e05aa2u},
      {8, 0x57cb2b7521f3e21au, 0x32ba9cba145aa3afu},   {31, 0xe4a0e629e519a4aeu, 0xbf14ea58dc6c8120u},
      {32, 0xcc6b8aaada790b2du, 0x360bf82de03aed92u},  {33, 0x35ec49850475a832u, 0x8333c1dd24e32b2fu},
      {63, 0xbf9f0ba3cf95b28au, 0x7e329d4aafb1273cu},  {64, 0x155ccce4bf32befcu, 0x5ff03629286b7838u},
      {100, 0x4826e367566ea023u, 0xc9a61a19c33d9006u}, {1024, 0x3c8b642b9e1d662fu, 0x8027fc76c52a5e7u}};
  for (const Vector& vector : vectors) {
    CHECK(hash64(bytes.data(), vector.bytes) == vector.plain);
    CHECK(hash64(bytes.data(), vector.bytes, 0x0123456789abcdefu) == vector.seeded);
  }
  CHECK(hash64("abc", 3) == 0x44bc2cf5ad770999u);

  RandomStream random(1);
  for (int round = 0; round < 300; ++round) {
    Hash64 parts(5);
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t part = std::min<std::size_t>(random.below(round % 2 == 0 ? 9 : 200), bytes.size() - at);
      parts.add(bytes.data() + at, part);
      at += part;
      if (random.below(4) == 0) CHECK(parts.value() == hash64(bytes.data(), at, 5));
    }
    CHECK(parts.value() == hash64(bytes.data(), bytes.size(), 5));
  }
}

// The exit code of a forked child that runs `work`.
template <typename Work>
int forked(const Work& work) {
  const pid_t child = ::fork();
  if (child == 0) std::_Exit(work() ? 0 : 1);  // not _exit, at which ThreadSanitizer calls threads of the parent leaks
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child && WIFEXITED(status));
  return WEXITSTATUS(status);
}

// A child finds a mutex free that another thread held when the process was to fork.
void test_a_mutex_is_held_while_forking() {
  static std::mutex mutex;
  hold_while_forking(mutex);
  std::atomic<bool> held{false};
  std::thread holder([&] {
    const std::lock_guard lock(mutex);
    held = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  });
  while (!held) std::this_thread::yield();
  CHECK(forked([] {
          const bool free = mutex.try_lock();
          if (free) mutex.unlock();
          return free;
        }) == 0);
  holder.join();
  CHECK(mutex.try_lock());
  mutex.unlock();
}

// What a child lets go of stays; in the process that made it, it is destroyed.
void test_a_child_destroys_nothing_of_its_parent() {
  struct Noted {
    bool& destroyed;
    explicit Noted(bool& flag) : destroyed(flag) {}
    ~Noted() { destroyed = true; }
  };
  bool destroyed = false;
  std::unique_ptr<Noted, ProcessDelete> value(new Noted(destroyed));
  CHECK(forked([&] {
          value.reset();
          bool own = false;
          std::unique_ptr<Noted, ProcessDelete>(new Noted(own)).reset();
          return !destroyed && own;
        }) == 0);
  value.reset();
  CHECK(destroyed);
}

// Blocks stand one behind the other; a slab serves again once all of its blocks are gone, and no earlier.
void test_blocks_of_an_arena() {
  const auto arena = std::make_shared<BlockArena>();
  constexpr std::size_t size = 60000;
  constexpr std::size_t whole = 60032;
  std::vector<std::shared_ptr<std::byte>> blocks;
  for (std::size_t i = 0; i < 3 * (BlockArena::slab_bytes / whole); ++i) blocks.push_back(arena->take(size));
  const std::size_t each = blocks.size() / 3;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    CHECK(blocks[i].get() == blocks[i / each * each].get() + (i % each) * whole);
    std::memset(blocks[i].get(), static_cast<int>(i % 251), size);
  }
  std::byte* oldest = blocks[0].get();
  for (std::size_t i = 1; i < each; ++i) blocks[i].reset();
  const auto fourth = arena->take(size);
  CHECK(fourth.get() != oldest);
  blocks[0].reset();
  std::vector<std::shared_ptr<std::byte>> more;
  for (std::size_t i = 0; i < each; ++i) more.push_back(arena->take(size));
  CHECK(more.back().get() == oldest);
  for (std::size_t i = each; i < blocks.size(); ++i) {
    for (const std::size_t at : {std::size_t{0}, size - 1}) {
      CHECK(std::to_integer<std::size_t>(blocks[i].get()[at]) == i % 251);
    }
  }
  const auto large = arena->take(BlockArena::max_block_bytes + 1);
  CHECK(reinterpret_cast<std::uintptr_t>(large.get()) % 64 == 0);
  const auto last = std::make_shared<BlockArena>()->take(100);
  std::memset(last.get(), 1, 100);
}

void test_blocks_are_used_again() {
  const auto pool = std::make_shared<BlockPool>(100);
  const MemoryBlock first = pool->take();
  MemoryBlock second = pool->take();
  CHECK(reinterpret_cast<std::uintptr_t>(first.get()) % 64 == 0);
  CHECK(std::abs(second.get() - first.get()) == 128);
  std::byte* given_back = second.get();
  second.reset();
  CHECK(pool->take().get() == given_back);

  // All blocks of some slabs lie apart.
  std::vector<MemoryBlock> blocks;
  std::set<std::byte*> places;
  for (int i = 0; i < 40000; ++i) {
    blocks.push_back(pool->take());
    places.insert(blocks.back().get());
  }
  CHECK(places.size() == blocks.size());
  std::byte* before = nullptr;
  bool apart = true;
  for (std::byte* place : places) {
    apart = apart && (before == nullptr || place - before >= 128);
    before = place;
  }
  CHECK(apart);
}

void test_a_block_outlives_its_pool() {
  auto pool = std::make_shared<BlockPool>(1);
  const MemoryBlock block = pool->take();
  pool.reset();
  *block = std::byte{7};
  CHECK(*block == std::byte{7});
}

// Slabs of one block of 2 MB: beyond 64 MB of free ones they go, so that what comes back is what was given last.
void test_slabs_go_back() {
  constexpr std::size_t bytes = std::size_t{2} << 20;
  const auto pool = std::make_shared<BlockPool>(bytes);
  constexpr int retained = static_cast<int>(BlockPool::retained_bytes / bytes);
  std::vector<MemoryBlock> blocks;
  for (int i = 0; i < retained + 5; ++i) blocks.push_back(pool->take());
  std::set<std::byte*> stay;
  for (int i = 0; i < retained; ++i) stay.insert(blocks[static_cast<std::size_t>(i)].get());
  for (MemoryBlock& block : blocks) block.reset();
  std::set<std::byte*> again;
  for (MemoryBlock& block : blocks) block = pool->take();
  for (int i = 0; i < retained; ++i) again.insert(blocks[static_cast<std::size_t>(i)].get());
  CHECK(again == stay);
}

// Whether the system has given every page of this memory already.
bool resident(void* memory, std::size_t bytes) {
#if defined(__linux__)
  constexpr std::size_t page = 4096;
  std::vector<unsigned char> pages(bytes / page);
  if (::mincore(memory, bytes, pages.data()) != 0) return false;
  return std::all_of(pages.begin(), pages.end(), [](unsigned char each) { return (each & 1) != 0; });
#else
  (void)memory, (void)bytes;
  return true;
#endif
}

void test_slabs_are_made_ahead() {
  constexpr std::size_t bytes = 2 * huge_page;
  SlabSource source(bytes);
  std::vector<void*> taken;
  std::set<void*> places;
  bool ahead = false;
  for (int i = 0; i < 200 && !(ahead && i > 5); ++i) {
    taken.push_back(source.take());
    places.insert(taken.back());
    ahead = ahead || (i > 1 && resident(taken.back(), bytes));
    std::memset(taken.back(), i, bytes);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  CHECK(ahead && places.size() == taken.size());
  for (void* memory : taken) std::free(memory);
  SlabSource left(bytes);  // while its thread is at work
  for (int i = 0; i < 3; ++i) std::free(left.take());
}

void test_sum_tree() {
  RandomStream random(3);
  for (const std::size_t size : {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{64}}) {
    SumTree tree(size);
    CHECK(tree.size() >= size && tree.size() < 2 * size && tree.total() == 0);
    std::vector<double> weights(tree.size(), 0);
    for (int round = 0; round < 500; ++round) {
      const std::size_t index = random.below(weights.size());
      weights[index] = static_cast<double>(random.below(4));  // sums of small integers do not round
      tree.set(index, weights[index]);
      double total = 0;
      for (const double weight : weights) total += weight;
      CHECK(tree.total() == total && tree[index] == weights[index]);
      for (double target = 0; target < total; target += 0.5) {
        std::size_t expected = 0;
        for (double sum = weights[0]; sum <= target; sum += weights[++expected]) {
        }
        CHECK(tree.find(target) == expected);
      }
    }
  }
  // Sums that round: a target may reach past the last weight above 0, and is brought back to it.
  SumTree rounding(8);
  for (const std::size_t index : {1u, 2u, 5u}) rounding.set(index, 0.1);
  CHECK(rounding.find(rounding.total()) == 5 && rounding.find(1e300) == 5 && rounding.find(0) == 1);
}

}  // namespace twohot::test

int main() {
  using namespace twohot::test;
  test_a_mutex_is_held_while_forking();
  test_a_child_destroys_nothing_of_its_parent();
  test_hash();
  test_blocks_of_an_arena();
  test_blocks_are_used_again();
  test_a_block_outlives_its_pool();
  test_slabs_go_back();
  test_slabs_are_made_ahead();
  test_sum_tree();
  return report();
}
