#include "xgrid/search.h"

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <unordered_set>

namespace twohot::xgrid {
namespace {

using Present = std::bitset<3 * max_rules + max_objects + 2>;  // a bit for each different tile

constexpr bool can_be_picked(Tile tile) noexcept { return pickable.has(tile); }

class Search {
 public:
  explicit Search(const RuleSet& rule_set) : set_(rule_set) {
    for (const Tile tile : set_.used_objects()) start_ |= bit(tile);
    for (const Rule& rule : set_.used_rules()) {
      for (const Tile tile : {rule.a, rule.b, rule.product}) bit(tile);
    }
  }

  std::optional<std::vector<int>> run() {
    struct Node {
      Present present;
      std::size_t parent;
      int rule;
    };
    std::vector<Node> nodes{{start_, 0, -1}};
    std::unordered_set<Present> known{start_};
    for (std::size_t next = 0; next < nodes.size(); ++next) {
      if (goal(nodes[next].present)) {
        std::vector<int> rules;
        for (std::size_t i = next; i != 0; i = nodes[i].parent) rules.push_back(nodes[i].rule);
        std::ranges::reverse(rules);
        return rules;
      }
      for (int i = 0; i < set_.num_rules; ++i) {
        const Rule& rule = set_.rules[i];
        if (!can_set_off(rule, nodes[next].present)) continue;
        Present after = nodes[next].present & ~bit(rule.a);
        if (is_tile_near(rule.kind)) after &= ~bit(rule.b);
        if (rule.product != floor_tile) after |= bit(rule.product);
        if (known.insert(after).second) nodes.push_back({after, next, i});
      }
    }
    return std::nullopt;
  }

 private:
  Present bit(Tile tile) {
    if (tile == nothing || tile == floor_tile) return {};
    auto found = std::ranges::find(tiles_, tile);
    if (found == tiles_.end()) found = tiles_.insert(tiles_.end(), tile);
    return Present{1} << static_cast<std::size_t>(found - tiles_.begin());
  }

  bool has(Present present, Tile tile) { return (present & bit(tile)).any(); }

  bool changes_near_agent(Tile tile) const {
    return std::ranges::any_of(set_.used_rules(),
                               [&](const Rule& rule) { return is_agent_near(rule.kind) && rule.a == tile; });
  }
  bool changes_in_pocket(Tile tile) const {
    return std::ranges::any_of(set_.used_rules(),
                               [&](const Rule& rule) { return rule.kind == RuleKind::agent_hold && rule.a == tile; });
  }
  bool can_be_held(Tile tile) const { return can_be_picked(tile) && !changes_near_agent(tile); }
  bool can_be_carried(Tile tile) const { return can_be_held(tile) && !changes_in_pocket(tile); }
  bool can_be_joined(Tile a, Tile b) const {
    return a != b && !changes_near_agent(a) && !changes_near_agent(b) && (can_be_carried(a) || can_be_carried(b));
  }

  bool can_set_off(const Rule& rule, Present present) {
    if (rule.kind == RuleKind::none || !has(present, rule.a)) return false;
    if (rule.kind == RuleKind::agent_hold) return can_be_held(rule.a);
    return is_agent_near(rule.kind) || (has(present, rule.b) && can_be_joined(rule.a, rule.b));
  }

  bool goal(Present present) {
    const Goal& goal = set_.goal;
    if (goal.kind == GoalKind::none) return false;
    if (goal.kind == GoalKind::agent_on_position) return true;
    if (!has(present, goal.a)) return false;
    if (is_tile_near(goal.kind)) return has(present, goal.b) && can_be_joined(goal.a, goal.b);
    if (is_agent_near(goal.kind)) return !changes_near_agent(goal.a);
    if (goal.kind == GoalKind::agent_on_tile) return walkable.has(goal.a);
    return can_be_carried(goal.a);  // agent_hold and tile_on_position
  }

  const RuleSet& set_;
  std::vector<Tile> tiles_;
  Present start_;
};

}  // namespace

std::optional<std::vector<int>> plan(const RuleSet& rule_set) { return Search(rule_set).run(); }

}  // namespace twohot::xgrid
