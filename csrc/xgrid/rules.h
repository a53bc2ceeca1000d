// Hidden rules and goals: what they are, and what a step does by them. Their numbers and their meaning, step for step,
// are those of XLand-MiniGrid (Nikulin et al., 2023, arXiv 2312.12044).
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "xgrid/tiles.h"

namespace twohot::xgrid {

enum class Action : std::uint8_t { forward, clockwise, counterclockwise, pick_up, put_down, toggle };
constexpr int num_actions = 6;

enum class RuleKind : std::uint8_t {
  none,
  agent_hold,
  agent_near,
  tile_near,
  tile_near_up,
  tile_near_right,
  tile_near_down,
  tile_near_left,
  agent_near_up,
  agent_near_right,
  agent_near_down,
  agent_near_left,
};
constexpr int num_rule_kinds = 12;

enum class GoalKind : std::uint8_t {
  none,
  agent_hold,
  agent_on_tile,
  agent_near,
  tile_near,
  tile_on_position,
  agent_on_position,
  tile_near_up,
  tile_near_right,
  tile_near_down,
  tile_near_left,
  agent_near_up,
  agent_near_right,
  agent_near_down,
  agent_near_left,
};
constexpr int num_goal_kinds = 15;

// `a` alone is what kinds of one tile have. With a direction, `b` stands in it, seen from `a`.
struct Rule {
  RuleKind kind = RuleKind::none;
  Tile a = nothing;
  Tile b = nothing;
  Tile product = nothing;
  bool operator==(const Rule&) const = default;
};

struct Goal {
  GoalKind kind = GoalKind::none;
  Tile a = nothing;
  Tile b = nothing;
  std::uint8_t y = 0;
  std::uint8_t x = 0;
  bool operator==(const Goal&) const = default;
};

constexpr int max_rules = 18;
constexpr int max_objects = 32;

// A task: a goal, rules in the order in which they are tried, and the objects that an attempt begins with.
struct RuleSet {
  Goal goal;
  int num_rules = 0;
  int num_objects = 0;
  std::array<Rule, max_rules> rules;
  std::array<Tile, max_objects> objects{};

  std::span<const Rule> used_rules() const noexcept { return {rules.data(), static_cast<std::size_t>(num_rules)}; }
  std::span<const Tile> used_objects() const noexcept {
    return {objects.data(), static_cast<std::size_t>(num_objects)};
  }
};

constexpr bool is_tile_near(RuleKind kind) noexcept {
  return RuleKind::tile_near <= kind && kind <= RuleKind::tile_near_left;
}
constexpr bool is_agent_near(RuleKind kind) noexcept {
  return kind == RuleKind::agent_near || RuleKind::agent_near_up <= kind;
}
constexpr bool is_tile_near(GoalKind kind) noexcept {
  return kind == GoalKind::tile_near || (GoalKind::tile_near_up <= kind && kind <= GoalKind::tile_near_left);
}
constexpr bool is_agent_near(GoalKind kind) noexcept {
  return kind == GoalKind::agent_near || GoalKind::agent_near_up <= kind;
}

// Throws std::invalid_argument, saying what was expected, unless each kind and each tile exists, inputs of rules are
// neither empty, floor nor wall, products neither empty nor wall, objects can be placed and positions are within
// `height` x `width`. Then a wall around the grid stays whole, and with it everything stays in the grid.
void check(const RuleSet& rule_set, int height, int width);

// A rule set ordered by what sets its rules off. Steps read this alone. Fixed in size.
class Rules {
 public:
  Rules() = default;
  explicit Rules(const RuleSet& rule_set) noexcept;

  const Goal& goal() const noexcept { return goal_; }

  // What rules make of the grid and the pocket after an action. `cells` points to the agent's cell, `changed` to the
  // one that the action was about, in rows that are `stride` apart. O(rules that the action can set off).
  void apply(Action action, Tile* agent, Tile* changed, int stride, Tile& pocket) const noexcept;

 private:
  Goal goal_;
  std::array<std::uint8_t, 3> count_{};  // set off by forward, pick_up and put_down
  std::array<std::array<Rule, max_rules>, 3> rules_;
};

// Whether the goal is reached after an action and its rules. `grid` points to the cell (0, 0), the others as above.
bool reached(const Goal& goal, Action action, const Tile* grid, const Tile* agent, const Tile* changed, int stride,
             Tile pocket) noexcept;

}  // namespace twohot::xgrid
