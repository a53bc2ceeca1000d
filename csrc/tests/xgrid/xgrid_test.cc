// The grid world: rules and goals on small grids, maps, rule sets and their search, and batches that follow from seeds.
#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <stdexcept>
#include <vector>

#include "core/hash.h"
#include "core/random.h"
#include "tests/support.h"
#include "xgrid/encoding.h"
#include "xgrid/generator.h"
#include "xgrid/search.h"
#include "xgrid/worlds.h"

namespace twohot::test {

using namespace xgrid;

constexpr Tile ball = make_tile(Shape::ball, Colour::red);
constexpr Tile hex = make_tile(Shape::hex, Colour::blue);
constexpr Tile star = make_tile(Shape::star, Colour::pink);

RuleSet rule_set(Goal goal, std::vector<Rule> rules, std::vector<Tile> objects) {
  RuleSet set;
  set.goal = goal;
  for (const Rule& rule : rules) set.rules[set.num_rules++] = rule;
  for (const Tile tile : objects) set.objects[set.num_objects++] = tile;
  return set;
}

// One world of 5 x 5 with an agent in the middle that looks up.
struct Room {
  Room(const RuleSet& set, std::vector<std::array<int, 3>> tiles, Tile pocket = nothing)
      : worlds({1, {5, 5, 1, false}, 3, false, 20, 1}, {}) {
    std::vector<Tile> grid(25, floor_tile);
    for (int i = 0; i < 5; ++i) {
      for (const int border : {i, 20 + i, 5 * i, 5 * i + 4}) grid[static_cast<std::size_t>(border)] = wall_tile;
    }
    for (const auto& [y, x, tile] : tiles) grid[static_cast<std::size_t>(5 * y + x)] = static_cast<Tile>(tile);
    worlds.set_rule_set(0, set);
    worlds.set_state(0, grid, {2, 2, 0, pocket, 0});
  }

  // Whether the goal was reached by it.
  bool act(Action action) {
    const std::array actions{static_cast<std::int64_t>(action)};
    worlds.step(actions, false, {observation.data(), &reward, &terminated, &truncated, nullptr}, 1);
    return terminated;
  }

  Tile at(int y, int x) const {
    std::array<Tile, 25> grid;
    worlds.grid(0, grid.data());
    return grid[static_cast<std::size_t>(5 * y + x)];
  }

  Worlds worlds;
  std::array<std::uint8_t, 18> observation{};
  float reward = 0;
  bool terminated = false;
  bool truncated = false;
};

void test_rules_and_goals() {
  {
    Room room(rule_set({GoalKind::agent_hold, star}, {{RuleKind::agent_hold, ball, nothing, star}}, {}),
              {{1, 2, ball}});
    CHECK(room.act(Action::pick_up));
    CHECK(room.reward == 191.0f / 200.0f);
    CHECK(room.at(1, 2) == floor_tile);
    CHECK(room.worlds.agent(0).pocket == star);
  }
  {
    Room room(rule_set({GoalKind::agent_near, star}, {{RuleKind::tile_near_right, ball, hex, star}}, {}), {{1, 3, hex}},
              ball);
    CHECK(!room.act(Action::put_down));
    CHECK(room.at(1, 3) == star && room.at(1, 2) == floor_tile);
    CHECK(!room.act(Action::clockwise));
    CHECK(!room.act(Action::toggle));
    CHECK(!room.act(Action::counterclockwise));
    CHECK(room.act(Action::forward));
  }
  {
    Room room(rule_set({GoalKind::none}, {{RuleKind::tile_near_left, ball, hex, star}}, {}), {{1, 3, hex}}, ball);
    room.act(Action::put_down);
    CHECK(room.at(1, 2) == ball && room.at(1, 3) == hex);
  }
  {  // one after the other in one step, in their order
    Room room(
        rule_set({GoalKind::none},
                 {{RuleKind::agent_near, ball, nothing, hex}, {RuleKind::agent_near_left, hex, nothing, star}}, {}),
        {{1, 1, ball}, {1, 2, floor_tile}, {2, 1, ball}});
    room.act(Action::forward);
    CHECK(room.at(1, 1) == star && room.at(2, 1) == ball);
  }
  for (int steps = 1; steps <= 21; ++steps) {
    static Room room(rule_set({}, {}, {}), {});
    room.act(Action::clockwise);
    CHECK(room.truncated == (steps >= 20));
  }
}

void test_what_is_refused() {
  Worlds worlds({2, {5, 5, 1, false}, 3, false, 0, 1}, {});
  const auto refused = [&](RuleSet set) { return throws<std::invalid_argument>([&] { worlds.set_rule_set(0, set); }); };
  CHECK(refused(rule_set({}, {{RuleKind::agent_near, wall_tile, nothing, ball}}, {})));
  CHECK(refused(rule_set({}, {{RuleKind::tile_near, ball, floor_tile, ball}}, {})));
  CHECK(refused(rule_set({}, {{RuleKind::agent_hold, ball, nothing, nothing}}, {})));
  CHECK(refused(rule_set({}, {{static_cast<RuleKind>(12), ball, nothing, ball}}, {})));
  CHECK(refused(rule_set({static_cast<GoalKind>(15)}, {}, {})));
  CHECK(refused(rule_set({GoalKind::agent_on_position, nothing, nothing, 5, 0}, {}, {})));
  CHECK(refused(rule_set({}, {}, {make_tile(static_cast<Shape>(13), Colour::red)})));
  CHECK(refused(rule_set({}, {}, {ball, ball, ball})));  // of 9 cells, 2 stay for the agent and a key
  CHECK(!refused(rule_set({}, {}, {ball, ball})));
  for (const Tasks& tasks : {Tasks{{-1, 0}}, Tasks{{2, 1}}, Tasks{{0, 9}}, Tasks{{0, 0, 101}}, Tasks{{0, 0, 0, 9}},
                             Tasks{{0, 0, 0, 0, 7}}, Tasks{{}, 0, 0}, Tasks{{4, 4, 50}}}) {
    CHECK(throws<std::invalid_argument>([&] { Worlds({1, {5, 5, 1, false}, 3, false, 0, 1}, tasks); }));
  }
  const MapSettings map;
  for (const WorldSettings& settings :
       {WorldSettings{0, map}, WorldSettings{1, map, 4}, WorldSettings{1, map, 33}, WorldSettings{1, map, 5, false, -1},
        WorldSettings{1, map, 5, false, 0, 0}, WorldSettings{1, {4, 9, 1}}, WorldSettings{1, {9, 65, 1}},
        WorldSettings{1, {9, 9, 3}}, WorldSettings{1, {9, 9, 1, true}}, WorldSettings{1, {6, 9, 9}}}) {
    CHECK(throws<std::invalid_argument>([&] { Worlds(settings, {}); }));
  }
  std::array<std::uint8_t, 36> observation;
  std::array<float, 2> reward;
  std::array<bool, 2> terminated, truncated;
  const StepMemory memory{observation.data(), reward.data(), terminated.data(), truncated.data(), nullptr};
  for (const std::int64_t wrong : {-1, 6}) {
    CHECK(throws<std::invalid_argument>([&] { worlds.step(std::array<std::int64_t, 2>{0, wrong}, false, memory, 1); }));
  }
  CHECK(throws<std::invalid_argument>([&] { worlds.step(std::array<std::int64_t, 1>{0}, false, memory, 1); }));
  CHECK(throws<std::invalid_argument>([&] { worlds.begin(2, 0, true); }));
  CHECK(throws<std::invalid_argument>([&] { worlds.next_attempt(-1); }));
  for (const int wrong : {0, 1025}) {
    CHECK(throws<std::invalid_argument>([&] { worlds.step(std::array<std::int64_t, 2>{}, false, memory, wrong); }));
  }
  std::vector<Tile> grid(25, wall_tile);
  CHECK(throws<std::invalid_argument>([&] { worlds.set_state(0, grid, {1, 1, 3, nothing, 0}); }));  // in a wall
  grid[6] = make_tile(Shape::goal, Colour::red);
  CHECK(!throws<std::invalid_argument>([&] { worlds.set_state(0, grid, {1, 1, 3, floor_tile, 0}); }));
  CHECK(!throws<std::invalid_argument>([&] { worlds.set_state(0, grid, {1, 1, 3, nothing, 75}); }));
  worlds.step(std::array<std::int64_t, 2>{}, false, memory, 1);
  CHECK(truncated[0] && worlds.agent(0).step == 75);
  for (const AgentState& agent :
       {AgentState{0, 1, 0, nothing, 0}, AgentState{1, 4, 0, nothing, 0}, AgentState{1, 1, 4, nothing, 0},
        AgentState{1, 1, 0, 13, 0}, AgentState{1, 1, 0, nothing, 76}, AgentState{1, 1, 0, wall_tile, 0},
        AgentState{1, 1, 0, make_tile(Shape::empty, Colour::red), 0}}) {
    CHECK(throws<std::invalid_argument>([&] { worlds.set_state(0, grid, agent); }));
  }
  grid[0] = floor_tile;
  CHECK(throws<std::invalid_argument>([&] { worlds.set_state(0, grid, {1, 1, 0, nothing, 0}); }));
}

void test_rule_sets() {
  for (const Kinds wrong : {Kinds{0}, kinds({GoalKind::agent_hold, GoalKind::agent_on_position}), Kinds{1} << 20}) {
    GeneratorSettings own;
    own.goals = wrong;
    CHECK(throws<std::invalid_argument>([&] { check(own); }));
  }
  for (const Kinds wrong : {Kinds{0}, kinds({RuleKind::none, RuleKind::agent_hold}), Kinds{1} << num_rule_kinds}) {
    GeneratorSettings own;
    own.rules = wrong;
    CHECK(throws<std::invalid_argument>([&] { check(own); }));
  }
  // Of six balls, as many as one rule set may name, all are met with; five are too few.
  GeneratorSettings few{0, 2, 0, 3, 0, kinds({GoalKind::agent_near}), kinds({RuleKind::agent_near}), 6};
  check(few);
  std::set<Tile> met;
  for (std::uint64_t number = 0; number < 100; ++number) {
    const RuleSet set = make_rule_set(few, 3, number, Split::train);
    met.insert(set.goal.a);
    for (const Rule& rule : set.used_rules()) met.insert({rule.a, rule.product});
    met.insert(set.objects.begin(), set.objects.begin() + set.num_objects);
  }
  CHECK(met.size() == 6);
  for (const Tile tile : met) CHECK(shape_of(tile) == Shape::ball);
  for (const int wrong : {5, 51}) {
    few.object_types = wrong;
    CHECK(throws<std::invalid_argument>([&] { check(few); }));
  }
  // One goal cannot be divided among training and testing.
  few = {0, 0, 0, 0, 0, kinds({GoalKind::agent_near}), all_rules, 1};
  CHECK(throws<std::invalid_argument>([&] { check(few); }));
  const GeneratorSettings settings{0, 6, 60, 5, 4};
  std::set<std::uint64_t> train, test;
  int most = 0;
  for (std::uint64_t number = 0; number < 3000; ++number) {
    for (const Split split : {Split::train, Split::test}) {
      const RuleSet set = make_rule_set(settings, 3, number, split);
      const std::uint64_t own = identity(set);
      (split == Split::train ? train : test).insert(own);
      check(set, 9, 9);
      most = std::max(most, set.num_objects);
      CHECK(plan(set).has_value());
      // The order of rules, and which of two tiles is named first, say nothing.
      RuleSet other = set;
      std::reverse(other.rules.begin(), other.rules.begin() + other.num_rules);
      for (Rule& rule : other.rules) {
        if (rule.kind == RuleKind::tile_near_left) rule = {RuleKind::tile_near_right, rule.b, rule.a, rule.product};
        if (rule.kind == RuleKind::tile_near) std::swap(rule.a, rule.b);
      }
      CHECK(identity(other) == own);
      std::vector<std::uint8_t> rules;
      for (const Rule& rule : set.used_rules()) {
        for (const std::uint8_t byte : encode(rule)) rules.push_back(byte);
      }
      const auto* objects = reinterpret_cast<const std::uint8_t*>(set.objects.data());
      const RuleSet read =
          decode(encode(set.goal), rules, {objects, static_cast<std::size_t>(set.num_objects) * tile_bytes});
      CHECK(read.goal == set.goal && read.rules == set.rules && read.objects == set.objects);
    }
  }
  CHECK(most <= most_objects(settings));
  for (const std::uint64_t own : train) CHECK(test.count(own) == 0);
  // What a rule set is without one of its rules: the same task if that was a dead end, else one that cannot be done.
  int dead_ends = 0;
  for (std::uint64_t number = 0; number < 300; ++number) {
    const RuleSet set = make_rule_set({0, 3, 60, 5, 4}, 3, number, Split::train);
    for (int left_out = 0; left_out < set.num_rules; ++left_out) {
      RuleSet other = set;
      std::swap(other.rules[left_out], other.rules[--other.num_rules]);
      const bool dead_end = identity(other) == identity(set);
      CHECK(plan(other).has_value() == dead_end);
      dead_ends += dead_end;
    }
  }
  CHECK(dead_ends == 300 * 4);
  // More tiles than a word has bits: the goal's is the last one, and what makes it is not there.
  RuleSet large = rule_set({}, {}, {});
  const auto number = [](int i) { return make_tile(static_cast<Shape>(3 + i / 11), static_cast<Colour>(1 + i % 11)); };
  for (int i = 0; i < max_objects; ++i) large.objects[large.num_objects++] = number(i);
  for (int i = max_objects; i < max_objects + 3 * max_rules; i += 3) {
    large.rules[large.num_rules++] = {RuleKind::tile_near, number(i), number(i + 1), number(i + 2)};
  }
  large.goal = {GoalKind::agent_near, number(max_objects + 3 * max_rules - 1)};
  CHECK(!plan(large));
  // The search finds no way where there is none.
  CHECK(
      plan(rule_set({GoalKind::agent_hold, star}, {{RuleKind::tile_near, ball, hex, star}}, {ball, hex})).has_value());
  CHECK(!plan(rule_set({GoalKind::agent_hold, star}, {{RuleKind::tile_near, ball, hex, star}}, {ball})));
  CHECK(!plan(rule_set({GoalKind::agent_hold, star},
                       {{RuleKind::tile_near, ball, hex, star}, {RuleKind::agent_near, hex, nothing, ball}},
                       {ball, hex})));
  CHECK(!plan(rule_set({GoalKind::agent_hold, star}, {{RuleKind::agent_near, star, nothing, ball}}, {star})));
}

void test_batches_follow_from_seeds() {
  const MapSettings map{13, 13, 9, true};
  const Tasks tasks{{0, 2, 50, 2, 2}, 5, 1000, Split::test};
  constexpr std::int64_t rows = 200;
  Hash64 seen;
  for (const int view : {0, 7}) {
    Worlds one({rows, map, view, true, 30, 3}, tasks), many({rows, map, view, true, 30, 3}, tasks);
    one.reset(11);
    many.reset(11);
    const auto [height, width, channels] = one.observation_shape();
    const auto bytes = static_cast<std::size_t>(rows * height * width * channels);
    std::array<std::vector<std::uint8_t>, 2> observation, last;
    std::array<std::vector<float>, 2> reward;
    std::array<std::array<bool, rows>, 2> terminated, truncated;
    for (std::size_t i = 0; i < 2; ++i) {
      observation[i].resize(bytes);
      last[i].resize(bytes);
      reward[i].resize(rows);
    }
    RandomStream random(1);
    std::vector<std::int64_t> actions(rows);
    for (int step = 0; step < 200; ++step) {
      for (std::int64_t& action : actions) action = static_cast<std::int64_t>(random.below(num_actions));
      for (std::size_t i = 0; i < 2; ++i) {
        (i == 0 ? one : many)
            .step(actions, true,
                  {observation[i].data(), reward[i].data(), terminated[i].data(), truncated[i].data(), last[i].data()},
                  i == 0 ? 1 : 3);
      }
      CHECK(observation[0] == observation[1] && last[0] == last[1] && reward[0] == reward[1]);
      CHECK(terminated[0] == terminated[1] && truncated[0] == truncated[1]);
      seen.add(observation[0].data(), bytes);
      seen.add(reward[0].data(), reward[0].size() * sizeof(float));
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      CHECK(one.task(i) == many.task(i) && 0 <= one.task(i) && one.task(i) < 1000);
      CHECK(0 <= one.attempt(i) && one.attempt(i) < 3);
    }
  }
  // The same on every machine: numbers that were written down.
  CHECK(seen.value() == 0x75b545cd15d65e20u);
  const RuleSet set = make_rule_set({3, 3, 0, 2, 2}, 1, 2, Split::train);
  CHECK(identity(set) == 0x386a6e8e0463168eu);
}

}  // namespace twohot::test

int main() {
  twohot::test::test_rules_and_goals();
  twohot::test::test_what_is_refused();
  twohot::test::test_rule_sets();
  twohot::test::test_batches_follow_from_seeds();
  return twohot::test::report();
}
