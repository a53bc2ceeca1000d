#include "xgrid/worlds.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core/thread_pool.h"

namespace twohot::xgrid {
namespace {

constexpr std::int64_t rows_of_a_thread = 64;

int margin(const WorldSettings& settings) { return std::max(1, settings.view - 1); }

const WorldSettings& checked(const WorldSettings& settings) {
  if (settings.num_envs < 1 || settings.num_envs > max_envs) {
    throw std::invalid_argument("expected 1 to " + std::to_string(max_envs) + " environments, got " +
                                std::to_string(settings.num_envs));
  }
  if (settings.view != 0 && (settings.view < 3 || settings.view > max_view || settings.view % 2 == 0)) {
    throw std::invalid_argument("expected an odd view from 3 to " + std::to_string(max_view) +
                                ", or 0 for the whole grid, got " + std::to_string(settings.view));
  }
  if (settings.max_steps < 0 || settings.max_steps > 1'000'000) {
    throw std::invalid_argument("expected max_steps from 0 to 1000000, got " + std::to_string(settings.max_steps));
  }
  if (settings.attempts < 1) {
    throw std::invalid_argument("expected attempts >= 1, got " + std::to_string(settings.attempts));
  }
  return settings;
}

void require_room(int objects, const Map& map) {
  if (2 * (objects + 2) > map.free_cells()) {  // with the agent and a key
    throw std::invalid_argument("expected at most " + std::to_string(map.free_cells() / 2 - 2) + " objects on " +
                                std::to_string(map.free_cells()) + " cells, got up to " + std::to_string(objects) +
                                ": make the grid larger or the tasks smaller");
  }
}

// Exact integers and one division, so that all machines round to the same float.
float reward_of(std::int32_t step, std::int32_t max_steps) noexcept {
  return static_cast<float>(10 * max_steps - 9 * step) / static_cast<float>(10 * max_steps);
}

}  // namespace

Worlds::Worlds(const WorldSettings& settings, const Tasks& tasks)
    : settings_(checked(settings)), tasks_(tasks), map_(settings.map, margin(settings)) {
  check(tasks.generator);
  if (tasks.count < 1) throw std::invalid_argument("expected 1 task at least, got 0");
  const auto [height, width] = std::array<std::int64_t, 2>{settings.map.height, settings.map.width};
  if (settings_.max_steps == 0) settings_.max_steps = static_cast<int>(3 * height * width);
  require_room(most_objects(tasks.generator), map_);
  const int view = settings_.view;
  shape_ = view == 0 ? std::array<std::int64_t, 3>{height, width, 3} : std::array<std::int64_t, 3>{view, view, 2};
  bytes_ = shape_[0] * shape_[1] * shape_[2];
  const int stride = map_.stride();
  ahead_ = {-stride, 1, stride, -1};
  for (std::size_t direction = 0; direction < 4; ++direction) {
    const int forward = ahead_[direction], right = ahead_[(direction + 1) % 4];
    for (int row = 0; row < view; ++row) {
      for (int column = 0; column < view; ++column) {
        offsets_[direction].push_back((view - 1 - row) * forward + (column - view / 2) * right);
      }
    }
  }
  envs_.resize(static_cast<std::size_t>(settings_.num_envs));
  cells_.resize(envs_.size() * static_cast<std::size_t>(map_.cells()));
  reset(0);
}

std::size_t Worlds::at(std::int64_t index) const {
  if (index < 0 || index >= settings_.num_envs) {
    throw std::invalid_argument("expected an environment from 0 to " + std::to_string(settings_.num_envs - 1) +
                                ", got " + std::to_string(index));
  }
  return static_cast<std::size_t>(index);
}

void Worlds::reset(std::uint64_t seed) noexcept {
  for (std::int64_t index = 0; index < settings_.num_envs; ++index) {
    Env& env = envs_[static_cast<std::size_t>(index)];
    env.seed = stream_seed(seed, static_cast<std::uint64_t>(index), 0);
    env.episode = 0;
    begin_attempt(index, true);
  }
}

void Worlds::begin(std::int64_t index, std::uint64_t seed, bool new_task) {
  Env& env = envs_[at(index)];
  env.seed = stream_seed(seed, 0, 1);
  env.episode = 0;
  begin_attempt(index, new_task);
}

void Worlds::next_attempt(std::int64_t index) {
  begin_attempt(index, envs_[at(index)].attempt + 1 >= settings_.attempts);
}

void Worlds::set_rule_set(std::int64_t index, const RuleSet& rule_set) {
  Env& env = envs_[at(index)];
  check(rule_set, settings_.map.height, settings_.map.width);
  require_room(rule_set.num_objects, map_);
  env.task = -1;
  env.attempt = -1;  // before the first one
  env.rule_set = rule_set;
  env.rules = Rules(rule_set);
  begin_attempt(index, false);
}

void Worlds::draw_task(Env& env, RandomStream& random) noexcept {
  env.task = static_cast<std::int64_t>(random.below(tasks_.count));
  env.attempt = 0;
  env.rule_set = make_rule_set(tasks_.generator, tasks_.seed, static_cast<std::uint64_t>(env.task), tasks_.split);
  env.rules = Rules(env.rule_set);
}

void Worlds::begin_attempt(std::int64_t index, bool new_task) noexcept {
  Env& env = envs_[static_cast<std::size_t>(index)];
  RandomStream random(stream_seed(env.seed, env.episode++, 2));
  if (new_task) {
    draw_task(env, random);
  } else {
    ++env.attempt;
  }
  if (settings_.same_map) {
    if (env.attempt == 0) env.map_seed = random.next();
    random = RandomStream(env.map_seed);
  }
  Tile* grid = cells(index);
  map_.draw(grid, random);
  for (const Tile tile : env.rule_set.used_objects()) grid[map_.free_cell(grid, random)] = tile;
  do {  // more than half of the floor is free, so some room has two free cells, and most free cells are in such a room
    env.cell = map_.free_cell(grid, random);
  } while (settings_.map.locked && !map_.lock(grid, env.cell, random));
  env.direction = static_cast<std::uint8_t>(random.below(4));
  env.pocket = nothing;
  env.step = 0;
  env.terminated = env.truncated = false;
}

void Worlds::step(std::span<const std::int64_t> actions, bool autoreset, const StepMemory& out, int threads) {
  if (static_cast<std::int64_t>(actions.size()) != settings_.num_envs) {
    throw std::invalid_argument("expected " + std::to_string(settings_.num_envs) + " actions, got " +
                                std::to_string(actions.size()));
  }
  std::uint64_t largest = 0;
  for (const std::int64_t action : actions) largest = std::max(largest, static_cast<std::uint64_t>(action));
  if (largest >= num_actions) {
    const auto wrong = std::ranges::find_if(actions, [](std::int64_t a) { return a < 0 || a >= num_actions; });
    throw std::invalid_argument("expected actions from 0 to 5, got " + std::to_string(*wrong));
  }
  if (threads < 1 || threads > 1024) {
    throw std::invalid_argument("expected 1 to 1024 threads, got " + std::to_string(threads));
  }
  const std::int64_t parts =
      std::min<std::int64_t>(threads, (settings_.num_envs + rows_of_a_thread - 1) / rows_of_a_thread);
  if (parts == 1) return step_rows(0, settings_.num_envs, actions.data(), autoreset, out);
  global_thread_pool(threads)->run(parts, [&](std::int64_t part) {
    const auto edge = [&](std::int64_t i) { return settings_.num_envs * i / parts; };
    step_rows(edge(part), edge(part + 1), actions.data(), autoreset, out);
  });
}

void Worlds::step_rows(std::int64_t first, std::int64_t last, const std::int64_t* actions, bool autoreset,
                       const StepMemory& out) noexcept {
  const int stride = map_.stride();
  for (std::int64_t index = first; index < last; ++index) {
    Env& env = envs_[static_cast<std::size_t>(index)];
    Tile* grid = cells(index);
    float reward = 0;
    if (!env.terminated && !env.truncated) {
      const auto action = static_cast<Action>(actions[index]);
      const int ahead = env.cell + ahead_[env.direction];
      Tile& tile = grid[ahead];
      int changed = ahead;
      switch (action) {
        case Action::forward:
          if (walkable.has(tile)) env.cell = ahead;
          changed = env.cell;
          break;
        case Action::clockwise:
          env.direction = (env.direction + 1) & 3;
          changed = env.cell;
          break;
        case Action::counterclockwise:
          env.direction = (env.direction + 3) & 3;
          changed = env.cell;
          break;
        case Action::pick_up:
          if (shape_of(env.pocket) == Shape::empty && pickable.has(tile)) {
            env.pocket = tile;
            tile = floor_tile;
          }
          break;
        case Action::put_down:
          if (shape_of(env.pocket) != Shape::empty && shape_of(tile) == Shape::floor) {
            tile = env.pocket;
            env.pocket = nothing;
          }
          break;
        case Action::toggle: {
          const Shape shape = shape_of(tile);
          const Colour colour = colour_of(tile);
          if (shape == Shape::door_closed ||
              (shape == Shape::door_locked && env.pocket == make_tile(Shape::key, colour))) {
            tile = make_tile(Shape::door_open, colour);
          } else if (shape == Shape::door_open) {
            tile = make_tile(Shape::door_closed, colour);
          }
          break;
        }
      }
      env.rules.apply(action, grid + env.cell, grid + changed, stride, env.pocket);
      ++env.step;
      env.terminated =
          reached(env.rules.goal(), action, grid + map_.origin(), grid + env.cell, grid + changed, stride, env.pocket);
      env.truncated = env.step == settings_.max_steps && !env.terminated;
      if (env.terminated) reward = reward_of(env.step, settings_.max_steps);
    }
    out.reward[index] = reward;
    out.terminated[index] = env.terminated;
    out.truncated[index] = env.truncated;
    if (autoreset && (env.terminated || env.truncated)) {
      observe(index, out.last + index * bytes_);
      next_attempt(index);
    }
    observe(index, out.observation + index * bytes_);
  }
}

void Worlds::observe(std::uint8_t* observation) const noexcept {
  for (std::int64_t index = 0; index < settings_.num_envs; ++index) observe(index, observation + index * bytes_);
}

void Worlds::observe(std::int64_t index, std::uint8_t* out) const noexcept {
  const Env& env = envs_[static_cast<std::size_t>(index)];
  const Tile* grid = cells(index);
  const bool carried = settings_.show_carried && env.pocket != nothing;
  if (settings_.view == 0) {
    for (int y = 0; y < settings_.map.height; ++y) {
      for (int x = 0; x < settings_.map.width; ++x) {
        const int cell = map_.origin() + y * map_.stride() + x;
        const bool here = cell == env.cell;
        const Tile tile = here && carried ? env.pocket : grid[cell];
        std::memcpy(out, &tile, sizeof tile);
        out[2] = here ? static_cast<std::uint8_t>(1 + env.direction) : 0;
        out += 3;
      }
    }
    return;
  }
  const Tile* here = grid + env.cell;
  const std::vector<std::int32_t>& offsets = offsets_[env.direction];
  for (std::size_t i = 0; i < offsets.size(); ++i) std::memcpy(out + 2 * i, here + offsets[i], sizeof(Tile));
  if (carried) {
    const int own = (settings_.view - 1) * settings_.view + settings_.view / 2;
    std::memcpy(out + 2 * own, &env.pocket, sizeof env.pocket);
  }
}

AgentState Worlds::agent(std::int64_t index) const {
  const Env& env = envs_[at(index)];
  const int cell = env.cell - map_.origin();
  return {cell / map_.stride(), cell % map_.stride(), env.direction, env.pocket, env.step};
}

void Worlds::grid(std::int64_t index, Tile* out) const {
  const Tile* grid = cells_.data() + at(index) * static_cast<std::size_t>(map_.cells()) + map_.origin();
  for (int y = 0; y < settings_.map.height; ++y) {
    std::copy_n(grid + y * map_.stride(), settings_.map.width, out + y * settings_.map.width);
  }
}

void Worlds::set_state(std::int64_t index, std::span<const Tile> grid, const AgentState& agent) {
  Env& env = envs_[at(index)];
  const auto [height, width] = std::array{settings_.map.height, settings_.map.width};
  const auto require = [](bool holds, const std::string& expected) {
    if (!holds) throw std::invalid_argument("expected " + expected);
  };
  const auto exists = [](Tile tile) { return (tile & 0xff) < num_shapes && (tile >> 8) < num_colours; };
  require(static_cast<int>(grid.size()) == height * width, "a tile for each cell of the grid");
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const Tile tile = grid[static_cast<std::size_t>(y * width + x)];
      require(exists(tile) && shape_of(tile) != Shape::empty, "tiles that exist and are not empty");
      const bool border = y == 0 || x == 0 || y == height - 1 || x == width - 1;
      require(!border || shape_of(tile) == Shape::wall, "walls around the grid");
    }
  }
  require(0 < agent.y && agent.y < height - 1 && 0 < agent.x && agent.x < width - 1, "an agent within the walls");
  require(0 <= agent.direction && agent.direction < 4, "a direction from 0 to 3");
  require(shape_of(grid[static_cast<std::size_t>(agent.y * width + agent.x)]) != Shape::wall,
          "an agent outside of walls");
  require(0 <= agent.step && agent.step <= settings_.max_steps, "a step from 0 to max_steps");
  const bool full = exists(agent.pocket) && shape_of(agent.pocket) != Shape::empty;
  require(agent.pocket == nothing || (full && shape_of(agent.pocket) != Shape::wall),
          "a pocket that is empty, zeros, or holds a tile that exists and is no wall");
  for (int y = 0; y < height; ++y) {
    std::copy_n(grid.data() + y * width, width, cells(index) + map_.origin() + y * map_.stride());
  }
  env.cell = map_.origin() + agent.y * map_.stride() + agent.x;
  env.direction = static_cast<std::uint8_t>(agent.direction);
  env.pocket = agent.pocket;
  env.step = agent.step;
  env.terminated = false;
  env.truncated = env.step == settings_.max_steps;
}

}  // namespace twohot::xgrid
