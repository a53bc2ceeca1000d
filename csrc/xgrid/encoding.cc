#include "xgrid/encoding.h"

#include <stdexcept>
#include <string>

namespace twohot::xgrid {
namespace {

template <class Bytes>
void put(Bytes& bytes, std::size_t at, Tile tile) noexcept {
  bytes[at] = static_cast<std::uint8_t>(tile);
  bytes[at + 1] = static_cast<std::uint8_t>(tile >> 8);
}

Tile get(std::span<const std::uint8_t> bytes, std::size_t at) noexcept {
  return static_cast<Tile>(bytes[at] | bytes[at + 1] << 8);
}

void require(int used, int most, const char* what) {
  if (used > most) throw std::invalid_argument(std::string("expected at most ") + std::to_string(most) + " " + what);
}

}  // namespace

GoalBytes encode(const Goal& goal) noexcept {
  GoalBytes bytes{static_cast<std::uint8_t>(goal.kind)};
  if (goal.kind == GoalKind::agent_on_position) {
    bytes[1] = goal.y;
    bytes[2] = goal.x;
    return bytes;
  }
  put(bytes, 1, goal.a);
  if (goal.kind == GoalKind::tile_on_position) {
    bytes[3] = goal.y;
    bytes[4] = goal.x;
  } else if (is_tile_near(goal.kind)) {
    put(bytes, 3, goal.b);
  }
  return bytes;
}

RuleBytes encode(const Rule& rule) noexcept {
  RuleBytes bytes{static_cast<std::uint8_t>(rule.kind)};
  put(bytes, 1, rule.a);
  if (is_tile_near(rule.kind)) {
    put(bytes, 3, rule.b);
    put(bytes, 5, rule.product);
  } else {
    put(bytes, 3, rule.product);
  }
  return bytes;
}

RuleSet decode(std::span<const std::uint8_t> goal, std::span<const std::uint8_t> rules,
               std::span<const std::uint8_t> objects) {
  RuleSet set;
  set.goal.kind = static_cast<GoalKind>(goal[0]);
  if (set.goal.kind == GoalKind::agent_on_position) {
    set.goal.y = goal[1];
    set.goal.x = goal[2];
  } else {
    set.goal.a = get(goal, 1);
    if (set.goal.kind == GoalKind::tile_on_position) {
      set.goal.y = goal[3];
      set.goal.x = goal[4];
    } else if (is_tile_near(set.goal.kind)) {
      set.goal.b = get(goal, 3);
    }
  }
  for (std::size_t at = 0; at + rule_bytes <= rules.size(); at += rule_bytes) {
    Rule rule;
    rule.kind = static_cast<RuleKind>(rules[at]);
    if (rule.kind == RuleKind::none) continue;
    rule.a = get(rules, at + 1);
    const bool two = is_tile_near(rule.kind);
    if (two) rule.b = get(rules, at + 3);
    rule.product = get(rules, at + (two ? 5 : 3));
    require(set.num_rules + 1, max_rules, "rules");
    set.rules[static_cast<std::size_t>(set.num_rules++)] = rule;
  }
  for (std::size_t at = 0; at + tile_bytes <= objects.size(); at += tile_bytes) {
    const Tile tile = get(objects, at);
    if (tile == nothing) continue;
    require(set.num_objects + 1, max_objects, "objects");
    set.objects[static_cast<std::size_t>(set.num_objects++)] = tile;
  }
  return set;
}

}  // namespace twohot::xgrid
