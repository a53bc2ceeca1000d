// A breadth-first search for a way to the goal of a rule set. It knows what rules and goals mean and nothing of how
// rule sets are made.
#pragma once

#include <optional>
#include <vector>

#include "xgrid/rules.h"

namespace twohot::xgrid {

// The rules, by their index, to set off one after the other so that the goal can be reached then; none where no order
// does. What it finds, an agent can do: a tile that changes as soon as the agent is near it is never carried, one that
// changes in the pocket is never put down, and what a rule uses up is gone, however many there were. A plan that needs
// more than that is not found. Positions count as free. O(sets of tiles that can come about), at most 2^tiles.
std::optional<std::vector<int>> plan(const RuleSet& rule_set);

}  // namespace twohot::xgrid
