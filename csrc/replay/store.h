// The store of finished trajectories, in memory or in a directory.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/random.h"
#include "replay/block_arena.h"
#include "replay/block_pool.h"
#include "replay/directory.h"
#include "replay/index.h"
#include "replay/schema.h"
#include "replay/trajectory.h"

namespace twohot {

// At least one is given; all that are hold.
struct Capacity {
  std::optional<std::int64_t> steps;
  std::optional<std::int64_t> bytes;
  std::optional<std::int64_t> trajectories;
};

// What a store may do with its directory: read it; also append to it and remove what was evicted; only append to it.
enum class Mode : std::uint8_t { read, append, write };

// Where and how a store keeps its files. See Directory.
struct DirectoryOptions {
  std::string directory;
  Mode mode = Mode::append;
  std::size_t segment_bytes = std::size_t{256} << 20;
  bool durable = false;
  bool keep_evicted = false;  // files stay until reclaim()
  bool skip_corrupt = false;  // corrupt files and records are left out instead of raised
  bool made = false;          // the directory was made for this store
};

// Where a window starts in its trajectory.
enum class WindowAnchor : std::uint8_t { anywhere, start, end };

// `count` windows of at most `length` steps, and up to `lookahead` more after each.
struct Request {
  std::int64_t count;
  std::int64_t length;
  std::int64_t lookahead = 0;
  Sampling by = Sampling::trajectory;
  WindowAnchor window = WindowAnchor::anywhere;
  std::optional<double> half_life = {};  // in trajectories; a quarter of what is stored where it is not given
};

// What was drawn: `steps` + `lookahead` steps of a trajectory from step `start` on. Keeps the trajectory alive, also
// after its eviction.
struct Window {
  std::shared_ptr<const Trajectory> trajectory;
  std::int64_t start;
  std::int64_t steps;
  std::int64_t lookahead;
  double probability;  // of the trajectory
};

// What a trajectory is given beside its columns.
struct TrajectoryInfo {
  std::int32_t task = 0;
  bool protect = false;
  std::int64_t origin = 0;
  std::optional<std::int64_t> id = {};  // of an earlier store; only without a directory
};

// What was ever counted, as opposed to what is held now. Ids count from 0 in the order of commits; in a directory,
// those that other processes give count from elsewhere. The next id is above all that were seen.
struct Counters {
  std::int64_t next_id = 0;
  std::int64_t evicted_trajectories = 0;
  std::int64_t evicted_steps = 0;
};

struct Stats {
  std::int64_t trajectories;
  std::int64_t protected_trajectories;
  std::int64_t steps;
  std::int64_t bytes;
  std::int64_t open_trajectories;
  std::int64_t problems;
  Counters counters;
};

// All that a store holds at one moment: the protected trajectories, then the others, each oldest first.
struct Snapshot {
  std::vector<std::shared_ptr<const Trajectory>> trajectories;
  std::vector<double> priorities;  // empty where all are 1
  RandomState random;
  Counters counters;
};

// Thread-safe: one mutex guards the index and the random stream, another the directory, and no memory of a trajectory
// is copied or freed while the first is held. Held by shared_ptr, so that writers and samplers keep it alive. n is the
// number of stored trajectories. Every call throws std::runtime_error after close() and in a process that was forked
// from the one that made the store.
class Store {
 public:
  // Throws std::invalid_argument for a bad schema (see Layout), for no capacity, and for one that holds no step. With
  // options, takes in what their directory holds; throws what refresh() throws.
  Store(Schema schema, Capacity capacity, std::uint64_t seed, std::optional<DirectoryOptions> options = std::nullopt);

  const Layout& layout() const noexcept { return layout_; }
  const Capacity& capacity() const noexcept { return capacity_; }
  bool on_disk() const noexcept { return options_.has_value(); }

  // The steps of the longest trajectory that fits into the whole capacity; where columns are compressed, bytes do not
  // count here.
  std::int64_t max_trajectory_steps() const noexcept { return max_trajectory_steps_; }

  // Blocks for growing trajectories: `block_rows()` rows of every column.
  const std::shared_ptr<BlockPool>& block_pool() const noexcept { return block_pool_; }
  std::int64_t block_rows() const noexcept { return block_rows_; }

  // Where stored blocks come from.
  const std::shared_ptr<BlockArena>& arena() const noexcept { return arena_; }

  // Adds finished trajectories in order, gives them their ids, and evicts the oldest ones that are not protected until
  // the capacity holds; a sampler sees all of this or nothing. Throws std::length_error when one of them alone exceeds
  // the capacity or the protected ones leave no room, std::bad_alloc, and FileError; all leave the store as it was.
  // Amortised O(1) for each trajectory added or evicted, and O(bytes) in a directory.
  void commit(std::span<std::shared_ptr<Trajectory>> finished);

  // Copies and commits one trajectory of `steps` steps, given as one pointer for each column of the layout, and returns
  // its id. Throws std::invalid_argument for a NaN where none may be, a reward that is not finite, fewer steps than 1,
  // a last step that is neither terminated nor truncated, an earlier one that is, or steps whose times are not in
  // 0 .. 2^31 - 1, and what commit() throws; all leave the store as it was. O(bytes).
  std::int64_t add(std::span<const std::byte* const> columns, std::int64_t steps, const TrajectoryInfo& info);

  // As add(), for trajectories that lie one after the other in each column: `lengths` has the steps of each, `info`
  // what else it is given. One commit() for all of them.
  void extend(std::span<const std::byte* const> columns, std::span<const std::int64_t> lengths,
              std::span<const TrajectoryInfo> info);

  // Draws windows: a trajectory from the distribution `by`, then a start uniform over 0 .. max(0, T - length) unless
  // `window` says which. Looks for new trajectories of other writers at most ten times a second. Throws
  // std::invalid_argument for a count or length below 1, a `lookahead` below 0 and a half-life that is not above 0,
  // std::runtime_error for an empty store and for priorities that are all 0 (the random stream is then as before), and
  // what refresh() throws. Each draw is O(1), by priority O(log n).
  std::vector<Window> draw(const Request& request);

  // Takes in what other writers have committed, and lets go of trajectories whose files others have removed or cut:
  // they are not stored any more, and their memory is given back once no window of them is in use. So a store holds,
  // after this, files of the directory as it is. Throws FileError, and CorruptionError for what is corrupt unless the
  // options skip it: the rest is taken in all the same, and a second call does not report it again. O(files + new
  // ones), and O(n) where any go.
  void refresh();

  // Sets priorities of stored trajectories and returns how many of the ids are stored. Throws std::invalid_argument for
  // a priority that is negative or not finite; nothing is then set. O(log n) each.
  std::int64_t set_priorities(std::span<const std::int64_t> ids, std::span<const double> priorities);

  // The stored trajectory with this id, or null. O(1).
  std::shared_ptr<const Trajectory> find(std::int64_t id) const;

  // O(n).
  Snapshot snapshot() const;

  // O(1).
  Stats stats() const;

  // Forgets all stored trajectories, which do not count as evicted; their files can be reclaimed. Open ones, ids and
  // the random stream go on. Where `these` are given, only if they are all that is stored, in the order of snapshot():
  // else false, and nothing is forgotten. O(n).
  bool clear(std::optional<std::span<const std::shared_ptr<const Trajectory>>> these = std::nullopt);

  RandomState random_state() const;
  void set_random_state(const RandomState& state);

  // Continues the counting of an earlier store. Throws std::invalid_argument for a negative count and for a next id
  // that is not above every stored one; the store is then as it was. O(n).
  void resume(const Counters& counters);

  // The segments of the directory all of whose trajectories were evicted. Throws std::runtime_error without a
  // directory, and FileError.
  std::vector<std::string> evicted_files() const;

  // Removes these of them; returns their bytes. Throws std::runtime_error without a directory that may be written, and
  // FileError.
  std::int64_t reclaim(const std::vector<std::string>& names);

  // All committed trajectories are on the disk when this returns. Throws as reclaim().
  void sync();

  // How many trajectories each segment of the directory holds, for roll_back(). Throws std::runtime_error without one.
  Position position() const;

  // Reads every stored trajectory of a directory and compares it with its checksum; returns what is wrong with it and
  // what was wrong before. O(bytes).
  std::vector<Problem> verify() const;

  // Lets go of all trajectories and files. Windows that were drawn stay valid. Calls in progress end or throw.
  void close();

  // Writers report how many more trajectories are open.
  void count_open(std::int64_t change) noexcept { open_.fetch_add(change, std::memory_order_relaxed); }

  // Throws std::runtime_error where the store may not be used any more.
  void require_usable() const;

 private:
  bool fits(std::int64_t trajectories, std::int64_t steps, std::int64_t bytes) const noexcept;
  std::shared_ptr<Trajectory> copied(std::span<const std::byte* const> columns, std::int64_t steps,
                                     const TrajectoryInfo& info) const;
  void ingest(std::span<const std::shared_ptr<Trajectory>> finished, bool shrunk = false);
  void ingest_new();
  std::vector<std::shared_ptr<const Trajectory>> drop_uncounted();
  Directory& writable();
  const Directory& directory() const;

  const Layout layout_;
  const Capacity capacity_;
  const std::optional<DirectoryOptions> options_;
  std::int64_t max_trajectory_steps_ = 0;
  std::int64_t block_rows_ = 1;
  std::shared_ptr<BlockPool> block_pool_;
  const std::shared_ptr<BlockArena> arena_ = std::make_shared<BlockArena>();
  std::atomic<std::int64_t> open_{0};
  std::atomic<bool> closed_{false};
  const std::uint64_t process_;

  mutable std::mutex files_;  // taken before mutex_
  std::optional<Directory> directory_;
  std::size_t reported_ = 0;
  std::atomic<std::int64_t> problems_{0};
  std::chrono::steady_clock::time_point refreshed_{};

  mutable std::mutex mutex_;
  Index index_;
  std::int64_t bytes_ = 0;
  std::int64_t protected_bytes_ = 0;
  std::int64_t stored_steps_ = 0;
  Counters counters_;
  RandomStream random_;
};

}  // namespace twohot
