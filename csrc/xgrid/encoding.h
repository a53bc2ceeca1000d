// Rule sets as bytes, as XLand-MiniGrid writes them.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "xgrid/rules.h"

namespace twohot::xgrid {

constexpr int goal_bytes = 5;
constexpr int rule_bytes = 7;
constexpr int tile_bytes = 2;

using GoalBytes = std::array<std::uint8_t, goal_bytes>;
using RuleBytes = std::array<std::uint8_t, rule_bytes>;

// The kind, then each tile as shape and colour, or a position as y and x; zeros after that.
GoalBytes encode(const Goal& goal) noexcept;
RuleBytes encode(const Rule& rule) noexcept;

// What `encode` made the bytes of. `goal` has goal_bytes, each rule rule_bytes, each object tile_bytes; rules of kind
// none and empty objects are left out. Throws std::invalid_argument for more rules or objects than a rule set holds; it
// is not otherwise checked.
RuleSet decode(std::span<const std::uint8_t> goal, std::span<const std::uint8_t> rules,
               std::span<const std::uint8_t> objects);

}  // namespace twohot::xgrid
