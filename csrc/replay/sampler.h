// Draws windows from a store and packs them into a batch of fixed shape.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/thread_pool.h"
#include "replay/store.h"

namespace twohot {

// The memory of a batch of B windows of S = length + lookahead steps, owned by the caller: C-contiguous arrays whose
// first axes are [B, S + 1] for the observations (in schema order), `previous_action`, `previous_reward` and `time`,
// [B, S] for `action`, `reward`, `terminated`, `truncated`, the step fields and `mask`, and [B] for the rest.
struct BatchMemory {
  std::int64_t batch_size;
  std::int64_t length;
  std::int64_t lookahead;
  bool pad_left;  // where a window has fewer steps, zeros come before them instead of after
  std::vector<std::byte*> observation;
  std::byte* previous_action;
  std::byte* previous_reward;
  std::int32_t* time;
  std::byte* action;
  std::byte* reward;
  std::byte* terminated;
  std::byte* truncated;
  std::vector<std::byte*> step;
  std::byte* mask;
  std::int32_t* task;
  std::int64_t* trajectory;
  std::int64_t* start;
  double* probability;
};

// Thread-safe; concurrent calls draw one after the other and share the pool in turns. Memory of one batch may be given
// to one call at a time. Writing and eviction go on while a batch is packed.
class Sampler {
 public:
  // A batch below this many bytes is packed on the caller's thread alone.
  static constexpr std::size_t inline_bytes = std::size_t{4} << 20;

  // From this many bytes on, a batch is written by non-temporal stores: it would exceed the caches.
  static constexpr std::size_t non_temporal_bytes = std::size_t{16} << 20;

  // Throws std::invalid_argument for a number of threads that ThreadPool rejects.
  Sampler(std::shared_ptr<Store> store, int threads);

  int threads() const noexcept { return pool_.threads(); }

  // Draws on the caller's thread, so that the batches depend on the store's random state and not on the number of
  // threads, and writes every byte of `batch`, which has the request's sizes. Where a window has fewer steps, the other
  // rows are zero. `mask` is set for the first `length` steps only, so that lookahead takes part in no loss. Throws
  // what Store::draw throws (`batch` is then as before) and what pack() throws. O(B) draws and O(bytes of the batch).
  void sample(const Request& request, const BatchMemory& batch);

  // Writes these windows, one for each row of `batch`. Throws CorruptionError where a compressed column cannot be read;
  // the rest of `batch` is then written. O(bytes of the batch).
  void pack(std::span<const Window> windows, const BatchMemory& batch);

 private:
  bool pack_row(const Window& window, const BatchMemory& batch, std::size_t row, bool non_temporal) const;

  std::shared_ptr<Store> store_;
  std::size_t first_bytes_ = 0;
  std::size_t step_bytes_ = 0;
  ThreadPool pool_;
};

}  // namespace twohot
