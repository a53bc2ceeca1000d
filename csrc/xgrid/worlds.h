// Many grid worlds side by side, each with its own task, map and agent, stepped in one call.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "xgrid/generator.h"
#include "xgrid/maps.h"
#include "xgrid/rules.h"

namespace twohot::xgrid {

struct WorldSettings {
  std::int64_t num_envs = 1;
  MapSettings map;
  int view = 5;               // an odd side of what the agent sees ahead of it; 0: the whole grid
  bool show_carried = false;  // whether the agent's own cell shows what it carries, where it carries something
  int max_steps = 0;          // of an attempt; 0: 3 x height x width
  int attempts = 1;           // at a task, before the next one is drawn
  bool same_map = false;      // whether attempts at a task begin alike, or each on a map of its own
};

// The tasks that are drawn: numbers 0 .. count - 1 of a stream of rule sets.
struct Tasks {
  GeneratorSettings generator;
  std::uint64_t seed = 0;
  std::uint64_t count = 1;
  Split split = Split::train;
};

constexpr int max_view = 31;
constexpr std::int64_t max_envs = std::int64_t{1} << 20;

// What a step writes, an entry for each environment. `last` has the observation that ended an attempt where the next
// has begun already, and is not touched elsewhere.
struct StepMemory {
  std::uint8_t* observation;
  float* reward;
  bool* terminated;
  bool* truncated;
  std::uint8_t* last;
};

// What there is to know of one environment, apart from its task. The grid is [height, width] tiles.
struct AgentState {
  std::int32_t y;
  std::int32_t x;
  std::int32_t direction;  // up, right, down, left
  Tile pocket;
  std::int32_t step;
};

// Everything follows from seeds: attempt `i` after a seed is the same on every machine, whatever stands beside it. Not
// thread-safe.
class Worlds {
 public:
  // Throws std::invalid_argument for settings outside their range, or rule sets whose objects might fill more than half
  // of the map. Every environment is reset from its number.
  Worlds(const WorldSettings& settings, const Tasks& tasks);

  const WorldSettings& settings() const noexcept { return settings_; }
  // Height, width and channels (shape, colour; with the whole grid also where the agent stands, as 1 + its direction).
  std::array<std::int64_t, 3> observation_shape() const noexcept { return shape_; }

  // Environment i begins the first attempt at a task that it draws from the stream of `seed` and i.
  void reset(std::uint64_t seed) noexcept;

  // One environment begins an attempt from a seed of its own: at a task drawn from it, or at its own task again.
  // Throws std::invalid_argument if there is no such environment.
  void begin(std::int64_t index, std::uint64_t seed, bool new_task);

  // One environment begins its next attempt, at a new task of its stream where those at its own are used up: what a
  // step does with autoreset. Throws as begin().
  void next_attempt(std::int64_t index);

  // One environment begins the first attempt at this rule set; those that follow it are at it too, until `reset` or a
  // new task. Throws as `check` does, leaving everything as it was.
  void set_rule_set(std::int64_t index, const RuleSet& rule_set);
  const RuleSet& rule_set(std::int64_t index) const { return envs_[at(index)].rule_set; }
  // The number of the task among those that are drawn, or -1 where the rule set was given.
  std::int64_t task(std::int64_t index) const { return envs_[at(index)].task; }
  std::int32_t attempt(std::int64_t index) const { return envs_[at(index)].attempt; }

  // Takes an action in every environment. Where that ends the attempt and `autoreset`, the next one begins, at the same
  // task if attempts are left; else the environment stands still, rewards nothing and says again how it ended. Throws
  // std::invalid_argument, leaving everything as it was, for an action outside 0 .. 5, or for threads outside 1 ..
  // 1024. O(num_envs * (view^2 + rules)).
  void step(std::span<const std::int64_t> actions, bool autoreset, const StepMemory& out, int threads);

  void observe(std::uint8_t* observation) const noexcept;

  AgentState agent(std::int64_t index) const;
  // Row by row, without the margin.
  void grid(std::int64_t index, Tile* out) const;
  // Throws std::invalid_argument, leaving everything as it was, for a tile that does not exist or is empty, a wall that
  // is open, an agent outside of the walls or inside one, a pocket that cannot be, or a direction or step that is none.
  // The attempt goes on from there, unless its time is up.
  void set_state(std::int64_t index, std::span<const Tile> grid, const AgentState& agent);

 private:
  struct Env {
    std::uint64_t seed = 0;
    std::uint64_t episode = 0;  // attempts begun since the seed was given
    std::uint64_t map_seed = 0;
    std::int64_t task = -1;
    std::int32_t attempt = 0;
    std::int32_t step = 0;
    std::int32_t cell = 0;
    std::uint8_t direction = 0;
    bool terminated = false;
    bool truncated = false;
    Tile pocket = nothing;
    RuleSet rule_set;
    Rules rules;
  };

  std::size_t at(std::int64_t index) const;
  Tile* cells(std::int64_t index) noexcept { return cells_.data() + index * map_.cells(); }
  const Tile* cells(std::int64_t index) const noexcept { return cells_.data() + index * map_.cells(); }
  void draw_task(Env& env, RandomStream& random) noexcept;
  void begin_attempt(std::int64_t index, bool new_task) noexcept;
  void step_rows(std::int64_t first, std::int64_t last, const std::int64_t* actions, bool autoreset,
                 const StepMemory& out) noexcept;
  void observe(std::int64_t index, std::uint8_t* out) const noexcept;

  WorldSettings settings_;
  Tasks tasks_;
  Map map_;
  std::array<std::int64_t, 3> shape_;
  std::int64_t bytes_;                                // of one observation
  std::array<std::vector<std::int32_t>, 4> offsets_;  // of the cells in view from the agent's, for each direction
  std::array<int, 4> ahead_;
  std::vector<Env> envs_;
  std::vector<Tile> cells_;
};

}  // namespace twohot::xgrid
