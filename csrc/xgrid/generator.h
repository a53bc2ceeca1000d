// Rule sets by backward chaining: from a goal to what makes its tiles, to what makes those, down to objects that are
// there. So each has a way to its goal, which `plan` (search.h) finds without knowing how it was made.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "xgrid/rules.h"

namespace twohot::xgrid {

enum class Split : std::uint8_t { train, test };

// A set of kinds of rules or of goals: bit k for the kind with number k.
using Kinds = std::uint32_t;

template <class Kind>
constexpr Kinds kinds(std::initializer_list<Kind> members) noexcept {
  Kinds bits = 0;
  for (const Kind kind : members) bits |= Kinds{1} << static_cast<unsigned>(kind);
  return bits;
}

// Goals of a position depend on the map.
constexpr Kinds all_goals =
    (Kinds{1} << num_goal_kinds) - 1 - kinds({GoalKind::none, GoalKind::tile_on_position, GoalKind::agent_on_position});
constexpr Kinds all_rules = (Kinds{1} << num_rule_kinds) - 1 - kinds({RuleKind::none});

// Five shapes in ten colours.
constexpr int max_object_types = 50;

struct GeneratorSettings {
  int min_depth = 0;  // rules one after the other before the goal can be reached, drawn from min_depth to max_depth
  int max_depth = 0;
  int branching = 0;        // percent: how often the second input of a rule or goal is made by rules as well
  int distractors = 0;      // objects that nothing needs
  int dead_ends = 0;        // rules that use up what is needed where two objects are put together that need not be
  Kinds goals = all_goals;  // drawn from, as often each
  Kinds rules = all_rules;  // of those on the way to the goal
  int object_types = max_object_types;  // different objects that there are: balls of ten colours, then squares, ...
  bool shared_goals = false;            // whether a goal that needs no rules is in both splits, with other objects
};

constexpr int max_depth = 8;
constexpr int max_distractors = 8;
constexpr int max_dead_ends = 6;

// The most rules and the most objects that a rule set may have.
int most_rules(const GeneratorSettings& settings) noexcept;
int most_objects(const GeneratorSettings& settings) noexcept;

// Throws std::invalid_argument for what is outside its range.
void check(const GeneratorSettings& settings);

// Rule set `number` of the stream `seed`, of the tasks of a split. The same arguments give the same rule set on every
// machine. Which split a rule set belongs to is a bit of its `identity`, so the splits share none; with `shared_goals`,
// of goals that need no rules, a bit of a hash of the goal and the objects. Allocates nothing.
// About a microsecond a draw, of which two are needed on average. `settings` are ones that `check` accepts.
RuleSet make_rule_set(const GeneratorSettings& settings, std::uint64_t seed, std::uint64_t number,
                      Split split) noexcept;

// A hash of the goal and of the rules that it needs, whatever their order and whichever of two tiles near each other is
// named first: rule sets that differ in objects or dead ends alone are the same to it.
std::uint64_t identity(const RuleSet& rule_set) noexcept;

// A seed for the stream of `first`, `second` of `seed`: neighbouring numbers share nothing.
std::uint64_t stream_seed(std::uint64_t seed, std::uint64_t first, std::uint64_t second) noexcept;

}  // namespace twohot::xgrid
