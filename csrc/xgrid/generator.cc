#include "xgrid/generator.h"

#include <algorithm>
#include <bit>
#include <bitset>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/hash.h"
#include "core/random.h"

namespace twohot::xgrid {
namespace {

// Keys are for doors alone, so that no rule uses up one that is needed.
constexpr std::array shapes{Shape::ball, Shape::square, Shape::pyramid, Shape::hex, Shape::star};
constexpr std::array colours{Colour::red,  Colour::green,  Colour::blue,  Colour::purple, Colour::yellow,
                             Colour::grey, Colour::orange, Colour::white, Colour::brown,  Colour::pink};
static_assert(shapes.size() * colours.size() == max_object_types);

constexpr Kinds goals_of_two = kinds({GoalKind::tile_near, GoalKind::tile_near_up, GoalKind::tile_near_right,
                                      GoalKind::tile_near_down, GoalKind::tile_near_left});
constexpr Kinds rules_of_two = kinds({RuleKind::tile_near, RuleKind::tile_near_up, RuleKind::tile_near_right,
                                      RuleKind::tile_near_down, RuleKind::tile_near_left});

template <class Values>
auto one_of(const Values& values, RandomStream& random) noexcept {
  return values[random.below(values.size())];
}

// One of some kinds, of which there is at least one.
template <class Kind>
Kind one_kind(Kinds kinds, RandomStream& random) noexcept {
  for (auto left = random.below(static_cast<std::uint64_t>(std::popcount(kinds))); left > 0; --left) kinds &= kinds - 1;
  return static_cast<Kind>(std::countr_zero(kinds));
}

// One rule set in the making. A tile is made by one rule at most and used by one at most, dead ends apart.
class Chain {
 public:
  Chain(const GeneratorSettings& settings, std::uint64_t seed) noexcept : settings_(settings), random_(seed) {
    for (std::size_t i = 0; i < tiles_.size(); ++i) {
      tiles_[i] = make_tile(shapes[i / colours.size()], colours[i % colours.size()]);
    }
  }

  RuleSet make() noexcept {
    const int depth =
        settings_.min_depth + static_cast<int>(random_.below(settings_.max_depth - settings_.min_depth + 1));
    spare_ = max_rules - settings_.dead_ends - depth;
    Goal& goal = set_.goal;
    goal.kind = one_kind<GoalKind>(settings_.goals, random_);
    if (goal.kind == GoalKind::agent_on_tile) {
      goal.a = seen(make_tile(Shape::goal, one_of(colours, random_)));
      need(goal.a, depth);
    } else if (is_tile_near(goal.kind)) {
      need_both(goal.a, goal.b, depth);
    } else {
      goal.a = seen(fresh());
      need(goal.a, depth);
    }
    num_needed_ = num_seen_;
    for (int i = 0; i < settings_.distractors; ++i) add_object(seen(fresh()));
    for (int i = 0; i < settings_.dead_ends; ++i) add_dead_end();
    for (int i = set_.num_rules - 1; i > 0; --i) {
      std::swap(set_.rules[i], set_.rules[random_.below(static_cast<std::uint64_t>(i) + 1)]);
    }
    return set_;
  }

 private:
  // A tile that this rule set has nowhere yet.
  Tile fresh() noexcept {
    std::swap(tiles_[drawn_], tiles_[drawn_ + random_.below(settings_.object_types - drawn_)]);
    return tiles_[drawn_++];
  }

  // Something that a dead end may use: what the goal needs, then distractors.
  Tile seen(Tile tile) noexcept {
    seen_[num_seen_++] = tile;
    return tile;
  }

  void add_object(Tile tile) noexcept { set_.objects[set_.num_objects++] = tile; }

  // Two tiles, one of which takes `depth` rules to make.
  void need_both(Tile& a, Tile& b, int depth) noexcept {
    a = seen(fresh());
    b = seen(fresh());
    const bool first = random_.below(2) == 0;
    int other = 0;
    if (depth > 0 && spare_ >= depth && random_.below(100) < static_cast<std::uint64_t>(settings_.branching)) {
      spare_ -= depth;
      other = depth;
    }
    need(a, first ? depth : other);
    need(b, first ? other : depth);
  }

  // Adds what makes a tile: `depth` rules one after the other, or the tile itself. As deep as `depth`.
  void need(Tile tile, int depth) noexcept {
    if (depth == 0) return add_object(tile);
    const int index = set_.num_rules++;
    Rule rule;
    rule.kind = one_kind<RuleKind>(settings_.rules, random_);
    rule.product = tile;
    if (is_tile_near(rule.kind)) {
      need_both(rule.a, rule.b, depth - 1);
    } else {
      rule.a = seen(fresh());
      need(rule.a, depth - 1);
    }
    set_.rules[index] = rule;
  }

  bool used_together(Tile a, Tile b) const noexcept {
    const auto same = [&](Tile first, Tile second) {
      return (first == a && second == b) || (first == b && second == a);
    };
    if (is_tile_near(set_.goal.kind) && same(set_.goal.a, set_.goal.b)) return true;
    return std::ranges::any_of(set_.used_rules(),
                               [&](const Rule& rule) { return is_tile_near(rule.kind) && same(rule.a, rule.b); });
  }

  void add_dead_end() noexcept {
    Rule rule;
    rule.kind = static_cast<RuleKind>(static_cast<int>(RuleKind::tile_near) + random_.below(5));
    rule.a = seen_[random_.below(num_needed_)];
    rule.b = rule.a;
    for (int i = 0; i < 8 && (rule.b == rule.a || used_together(rule.a, rule.b)); ++i) {
      rule.b = seen_[random_.below(num_seen_)];
    }
    // Where there are too few tiles for all dead ends, one that is nowhere: nothing sets the rule off.
    if (rule.b == rule.a || used_together(rule.a, rule.b)) rule.b = fresh();
    rule.product = random_.below(2) == 0 ? floor_tile : fresh();
    set_.rules[set_.num_rules++] = rule;
  }

  const GeneratorSettings& settings_;
  RandomStream random_;
  RuleSet set_;
  std::array<Tile, max_object_types> tiles_;
  std::array<Tile, max_object_types> seen_;
  std::size_t drawn_ = 0;
  std::size_t num_seen_ = 0;
  std::size_t num_needed_ = 0;  // of those seen, from the first on
  int spare_ = 0;               // rules that branches may still add
};

void require(bool holds, const char* expected, int got) {
  if (!holds) throw std::invalid_argument(std::string("expected ") + expected + ", got " + std::to_string(got));
}

std::uint64_t mixed(std::uint64_t z) noexcept {  // the finaliser of splitmix64
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Which rules the goal needs: those that make a tile of it or an input of another one of them. Dead ends are none.
std::bitset<max_rules> needed_rules(const RuleSet& rule_set) noexcept {
  std::array<Tile, 2 + 2 * max_rules> tiles;
  std::size_t count = 0;
  const auto need = [&](bool both, Tile a, Tile b) {
    tiles[count++] = a;
    if (both) tiles[count++] = b;
  };
  const Goal& goal = rule_set.goal;
  if (goal.kind != GoalKind::none && goal.kind != GoalKind::agent_on_position) {
    need(is_tile_near(goal.kind), goal.a, goal.b);
  }
  std::bitset<max_rules> needed;
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t j = 0; j < rule_set.used_rules().size(); ++j) {
      const Rule& rule = rule_set.rules[j];
      if (needed[j] || rule.kind == RuleKind::none || rule.product != tiles[i]) continue;
      needed[j] = true;
      need(is_tile_near(rule.kind), rule.a, rule.b);
    }
  }
  return needed;
}

// A hash of the goal and of the objects, in whichever order.
std::uint64_t with_objects(RuleSet rule_set) noexcept {
  std::sort(rule_set.objects.begin(), rule_set.objects.begin() + rule_set.num_objects);
  Hash64 hash;
  const std::uint64_t goal = identity(rule_set);
  hash.add(&goal, sizeof goal);
  hash.add(rule_set.objects.data(), static_cast<std::size_t>(rule_set.num_objects) * sizeof(Tile));
  return hash.value();
}

// "b is up from a" says the same as "a is down from b".
template <class Kind>
void turn(Kind& kind, Tile& a, Tile& b, Kind undirected, Kind up, Kind right, Kind down, Kind left) noexcept {
  if (kind == undirected && b < a) std::swap(a, b);
  if (kind == down || kind == left) {
    kind = kind == down ? up : right;
    std::swap(a, b);
  }
}

Split split_of(const GeneratorSettings& settings, const RuleSet& rule_set) noexcept {
  const bool by_objects = settings.shared_goals && needed_rules(rule_set).none();
  return static_cast<Split>((by_objects ? with_objects(rule_set) : identity(rule_set)) & 1);
}

// Whether a split has rule sets that are drawn within many draws.
bool has_rule_sets(const GeneratorSettings& settings, Split split) noexcept {
  for (std::uint64_t draw = 0; draw < 1000; ++draw) {
    if (split_of(settings, Chain(settings, stream_seed(0, 0, draw)).make()) == split) return true;
  }
  return false;
}

// The most rules on the way to a goal; without branches the chain alone has rules.
int most_chained(const GeneratorSettings& settings) noexcept {
  return settings.branching > 0 ? std::min(max_rules - settings.dead_ends, (2 << settings.max_depth) - 2)
                                : settings.max_depth;
}

int most_of_goal(const GeneratorSettings& settings) noexcept { return (settings.goals & goals_of_two) != 0 ? 2 : 1; }

// The most tiles that differ: those of the goal, the inputs of rules, distractors, and two of each dead end.
int most_tiles(const GeneratorSettings& settings) noexcept {
  const int inputs = (settings.rules & rules_of_two) != 0 ? 2 : 1;
  return most_of_goal(settings) + inputs * most_chained(settings) + settings.distractors + 2 * settings.dead_ends;
}

}  // namespace

int most_rules(const GeneratorSettings& settings) noexcept { return most_chained(settings) + settings.dead_ends; }

int most_objects(const GeneratorSettings& settings) noexcept {
  // Those of the goal, and one more for each rule of two inputs.
  const int rules = (settings.rules & rules_of_two) != 0 ? most_chained(settings) : 0;
  return most_of_goal(settings) + rules + settings.distractors;
}

void check(const GeneratorSettings& settings) {
  require(settings.min_depth >= 0, "min_depth >= 0", settings.min_depth);
  require(settings.max_depth >= settings.min_depth && settings.max_depth <= max_depth, "max_depth from min_depth to 8",
          settings.max_depth);
  require(settings.branching >= 0 && settings.branching <= 100, "branching of 0 to 100 percent", settings.branching);
  require(settings.distractors >= 0 && settings.distractors <= max_distractors, "0 to 8 distractors",
          settings.distractors);
  require(settings.dead_ends >= 0 && settings.dead_ends <= max_dead_ends, "0 to 6 dead ends", settings.dead_ends);
  const auto some_of = [](Kinds kinds, Kinds all) { return kinds != 0 && (kinds & ~all) == 0; };
  require(some_of(settings.goals, all_goals), "kinds of goals that can be made", static_cast<int>(settings.goals));
  require(some_of(settings.rules, all_rules), "kinds of rules", static_cast<int>(settings.rules));
  require(settings.object_types <= max_object_types, "at most 50 object types", settings.object_types);
  if (settings.object_types < most_tiles(settings)) {
    throw std::invalid_argument("expected at least " + std::to_string(most_tiles(settings)) +
                                " object types, as many as a rule set may name, got " +
                                std::to_string(settings.object_types));
  }
  for (const Split split : {Split::train, Split::test}) {
    if (!has_rule_sets(settings, split)) {
      throw std::invalid_argument(
          "expected rule sets for training and for testing, got so few that one of them has none");
    }
  }
}

std::uint64_t stream_seed(std::uint64_t seed, std::uint64_t first, std::uint64_t second) noexcept {
  constexpr std::uint64_t odd = 0x9e3779b97f4a7c15u;
  return mixed(mixed(mixed(seed + odd) ^ (first * odd + 1)) ^ (second * odd + 2));
}

RuleSet make_rule_set(const GeneratorSettings& settings, std::uint64_t seed, std::uint64_t number,
                      Split split) noexcept {
  for (std::uint64_t draw = 0;; ++draw) {
    const RuleSet made = Chain(settings, stream_seed(seed, number, draw)).make();
    if (split_of(settings, made) == split) return made;
  }
}

std::uint64_t identity(const RuleSet& rule_set) noexcept {
  Goal goal = rule_set.goal;
  turn(goal.kind, goal.a, goal.b, GoalKind::tile_near, GoalKind::tile_near_up, GoalKind::tile_near_right,
       GoalKind::tile_near_down, GoalKind::tile_near_left);
  std::array<std::uint64_t, max_rules> rules;
  std::size_t count = 0;
  const std::bitset<max_rules> needed = needed_rules(rule_set);
  for (std::size_t i = 0; i < rule_set.used_rules().size(); ++i) {
    if (!needed[i]) continue;
    Rule rule = rule_set.rules[i];
    turn(rule.kind, rule.a, rule.b, RuleKind::tile_near, RuleKind::tile_near_up, RuleKind::tile_near_right,
         RuleKind::tile_near_down, RuleKind::tile_near_left);
    rules[count++] = static_cast<std::uint64_t>(rule.kind) << 48 | static_cast<std::uint64_t>(rule.a) << 32 |
                     static_cast<std::uint64_t>(rule.b) << 16 | rule.product;
  }
  std::sort(rules.begin(), rules.begin() + static_cast<std::ptrdiff_t>(count));
  const std::array<std::uint64_t, 2> head{
      static_cast<std::uint64_t>(goal.kind) << 32 | static_cast<std::uint64_t>(goal.a) << 16 | goal.b,
      static_cast<std::uint64_t>(goal.y) << 8 | goal.x};
  Hash64 hash;
  hash.add(head.data(), sizeof head);
  hash.add(rules.data(), count * sizeof rules[0]);
  return hash.value();
}

}  // namespace twohot::xgrid
