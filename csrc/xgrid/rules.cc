#include "xgrid/rules.h"

#include <stdexcept>
#include <string>

namespace twohot::xgrid {
namespace {

// Up, right, down, left: the order of the kinds that have a direction.
std::array<int, 4> neighbours(int stride) noexcept { return {-stride, 1, stride, -1}; }

constexpr Shapes never_input{Shape::empty, Shape::floor, Shape::wall};
constexpr Shapes never_product{Shape::empty, Shape::wall};

std::string text(Tile tile) { return "(" + std::to_string(tile & 0xff) + ", " + std::to_string(tile >> 8) + ")"; }

void check_tile(Tile tile, Shapes never, const char* what) {
  if ((tile & 0xff) >= num_shapes || (tile >> 8) >= num_colours || never.has(tile)) {
    throw std::invalid_argument(std::string("expected ") + what + " with a shape below " + std::to_string(num_shapes) +
                                " and a colour below " + std::to_string(num_colours) + ", got " + text(tile));
  }
}

// The one input of a rule or goal of `kind` that lies in direction `d`, of those that have a direction.
template <class Kind>
int direction(Kind kind, Kind up) noexcept {
  return static_cast<int>(kind) - static_cast<int>(up);
}

void put_together(const Rule& rule, Tile* changed, int stride) noexcept {
  const Tile tile = *changed;
  const bool is_a = tile == rule.a;
  const bool is_b = tile == rule.b;
  if (!is_a && !is_b) return;
  const std::array<int, 4> steps = neighbours(stride);
  bool made = false;
  const auto make = [&](int step) {
    changed[step] = rule.product;
    made = true;
  };
  if (rule.kind == RuleKind::tile_near) {
    for (const int step : steps) {
      if ((is_a && changed[step] == rule.b) || (is_b && changed[step] == rule.a)) make(step);
    }
  } else {
    const int step = steps[direction(rule.kind, RuleKind::tile_near_up)];
    if (is_b && changed[-step] == rule.a) make(-step);
    if (is_a && changed[step] == rule.b) make(step);
  }
  if (made) *changed = floor_tile;
}

void come_near(const Rule& rule, Tile* agent, int stride) noexcept {
  const std::array<int, 4> steps = neighbours(stride);
  if (rule.kind == RuleKind::agent_near) {
    for (const int step : steps) {
      if (agent[step] == rule.a) agent[step] = rule.product;
    }
  } else {
    Tile& cell = agent[steps[direction(rule.kind, RuleKind::agent_near_up)]];
    if (cell == rule.a) cell = rule.product;
  }
}

int list_of(Action action) noexcept {
  switch (action) {
    case Action::forward: return 0;
    case Action::pick_up: return 1;
    case Action::put_down: return 2;
    default: return -1;
  }
}

}  // namespace

void check(const RuleSet& rule_set, int height, int width) {
  for (const Rule& rule : rule_set.used_rules()) {
    if (static_cast<int>(rule.kind) >= num_rule_kinds) {
      throw std::invalid_argument("expected a kind of rule below " + std::to_string(num_rule_kinds) + ", got " +
                                  std::to_string(static_cast<int>(rule.kind)));
    }
    if (rule.kind == RuleKind::none) continue;
    check_tile(rule.a, never_input, "an input that is neither empty, floor nor wall,");
    if (is_tile_near(rule.kind)) check_tile(rule.b, never_input, "an input that is neither empty, floor nor wall,");
    check_tile(rule.product, never_product, "a product that is neither empty nor wall,");
  }
  for (const Tile tile : rule_set.used_objects()) {
    check_tile(tile, never_product, "an object that is neither empty nor wall,");
  }
  const Goal& goal = rule_set.goal;
  if (static_cast<int>(goal.kind) >= num_goal_kinds) {
    throw std::invalid_argument("expected a kind of goal below " + std::to_string(num_goal_kinds) + ", got " +
                                std::to_string(static_cast<int>(goal.kind)));
  }
  check_tile(goal.a, {}, "a tile of a goal");
  check_tile(goal.b, {}, "a tile of a goal");
  if (goal.y >= height || goal.x >= width) {
    throw std::invalid_argument("expected a goal's position within the grid of " + std::to_string(height) + " x " +
                                std::to_string(width) + ", got (" + std::to_string(goal.y) + ", " +
                                std::to_string(goal.x) + ")");
  }
}

Rules::Rules(const RuleSet& rule_set) noexcept : goal_(rule_set.goal) {
  const auto add = [this](Action action, const Rule& rule) {
    const auto list = static_cast<std::size_t>(list_of(action));
    rules_[list][count_[list]++] = rule;
  };
  for (const Rule& rule : rule_set.used_rules()) {
    if (rule.kind == RuleKind::agent_hold) add(Action::pick_up, rule);
    if (is_agent_near(rule.kind)) add(Action::forward, rule);
    if (is_tile_near(rule.kind) || RuleKind::agent_near_up <= rule.kind) add(Action::put_down, rule);
  }
}

void Rules::apply(Action action, Tile* agent, Tile* changed, int stride, Tile& pocket) const noexcept {
  const int list = list_of(action);
  if (list < 0) return;
  const auto index = static_cast<std::size_t>(list);
  for (std::size_t i = 0; i < count_[index]; ++i) {
    const Rule& rule = rules_[index][i];
    if (rule.kind == RuleKind::agent_hold) {
      if (pocket == rule.a) pocket = rule.product;
    } else if (is_tile_near(rule.kind)) {
      put_together(rule, changed, stride);
    } else {
      come_near(rule, agent, stride);
    }
  }
}

bool reached(const Goal& goal, Action action, const Tile* grid, const Tile* agent, const Tile* changed, int stride,
             Tile pocket) noexcept {
  const std::array<int, 4> steps = neighbours(stride);
  const auto any_near = [&](const Tile* cell, Tile tile) {
    bool found = false;
    for (const int step : steps) found |= cell[step] == tile;
    return found;
  };
  switch (goal.kind) {
    case GoalKind::none: return false;
    case GoalKind::agent_hold: return action == Action::pick_up && pocket == goal.a;
    case GoalKind::agent_on_tile: return action == Action::forward && *agent == goal.a;
    case GoalKind::agent_near: return action == Action::forward && any_near(agent, goal.a);
    case GoalKind::tile_near:
      return action == Action::put_down &&
             ((*changed == goal.a && any_near(changed, goal.b)) || (*changed == goal.b && any_near(changed, goal.a)));
    case GoalKind::tile_on_position: return grid[goal.y * stride + goal.x] == goal.a;
    case GoalKind::agent_on_position: return agent == grid + goal.y * stride + goal.x;
    default: break;
  }
  if (is_tile_near(goal.kind)) {
    const int step = steps[direction(goal.kind, GoalKind::tile_near_up)];
    return action == Action::put_down &&
           ((*changed == goal.b && changed[-step] == goal.a) || (*changed == goal.a && changed[step] == goal.b));
  }
  const int step = steps[direction(goal.kind, GoalKind::agent_near_up)];
  return (action == Action::forward || action == Action::put_down) && agent[step] == goal.a;
}

}  // namespace twohot::xgrid
