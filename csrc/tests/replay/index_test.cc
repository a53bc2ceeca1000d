// The index of trajectories: random calls against a simple model, and its distributions.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <vector>

#include "replay/index.h"
#include "tests/support.h"

namespace twohot::test {
namespace {

std::shared_ptr<const Trajectory> make(std::int64_t id, std::int64_t length, bool is_protected = false,
                                       std::int32_t task = 0) {
  auto trajectory = std::make_shared<Trajectory>(TrajectoryData(length, nullptr, 0, nullptr), task);
  trajectory->id = id;
  trajectory->is_protected = is_protected;
  return trajectory;
}

// The index as two lists.
struct Model {
  struct Entry {
    std::int64_t id;
    std::int64_t length;
    std::int32_t task;
    double priority;
  };

  std::vector<Entry> all() const {
    std::vector<Entry> result = protected_entries;
    result.insert(result.end(), evictable.begin(), evictable.end());
    return result;
  }

  // The probability of each position.
  std::vector<double> probabilities(Sampling by, double half_life) const {
    const std::vector<Entry> entries = all();
    std::vector<double> weights;
    std::map<std::int32_t, int> tasks;
    for (const Entry& entry : entries) ++tasks[entry.task];
    double total = 0;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      double weight = 1;
      if (by == Sampling::step) weight = static_cast<double>(entries[i].length);
      if (by == Sampling::recency) weight = std::exp2(-static_cast<double>(entries.size() - 1 - i) / half_life);
      if (by == Sampling::priority) weight = entries[i].priority;
      if (by == Sampling::task) weight = 1.0 / tasks[entries[i].task];
      weights.push_back(weight);
      total += weight;
    }
    for (double& weight : weights) weight /= total;
    return weights;
  }

  std::vector<Entry> protected_entries;
  std::vector<Entry> evictable;
};

constexpr Sampling samplings[] = {Sampling::trajectory, Sampling::step, Sampling::recency, Sampling::priority,
                                  Sampling::task};

void check_equal(const Index& index, const Model& model) {
  const auto entries = model.all();
  std::int64_t total = 0;
  std::int64_t is_protected = 0;
  bool equal = index.size() == static_cast<std::int64_t>(entries.size());
  equal = equal && index.protected_count() == static_cast<std::int64_t>(model.protected_entries.size());
  for (std::size_t i = 0; equal && i < entries.size(); ++i) {
    const auto& at = index.at(static_cast<std::int64_t>(i));
    equal = at->id == entries[i].id && at->length == entries[i].length;
    equal = equal && index.find(at->id) != nullptr && *index.find(at->id) == at;
    total += entries[i].length;
    if (i < model.protected_entries.size()) is_protected += entries[i].length;
  }
  CHECK(equal);
  CHECK(index.steps() == total && index.protected_steps() == is_protected);
  const auto priorities = index.priorities();
  if (priorities.empty()) return;
  equal = priorities.size() == entries.size();
  for (std::size_t i = 0; equal && i < entries.size(); ++i) equal = priorities[i] == entries[i].priority;
  CHECK(equal);
}

// Random pushes, evictions and priorities; every draw must come with the probability that the model computes.
void test_against_the_model(std::uint64_t seed) {
  RandomStream random(seed);
  Index index;
  Model model;
  std::int64_t next = 0;
  double largest = 1;
  const std::int64_t lengths[] = {1, 1, 2, 1023, 1024, 1025, 5000};
  for (int round = 0; round < 2500; ++round) {
    const bool growing = round / 500 % 2 == 0;  // the index grows through its sizes, then shrinks
    const auto action = random.below(10);
    if (action < (growing ? 7u : 3u)) {
      const std::int64_t length = lengths[random.below(std::size(lengths))];
      const auto task = static_cast<std::int32_t>(random.below(5)) - 2;
      const bool is_protected = random.below(8) == 0;
      index.push(make(next, length, is_protected, task));
      (is_protected ? model.protected_entries : model.evictable).push_back({next++, length, task, largest});
    } else if (action < 9) {
      if (model.evictable.empty()) continue;
      CHECK(index.pop()->id == model.evictable.front().id);
      CHECK(index.find(model.evictable.front().id) == nullptr);
      model.evictable.erase(model.evictable.begin());
    } else if (next > 0 && round > 700) {
      const auto id = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(next)));
      const double priority = static_cast<double>(random.below(1000)) / 8;
      bool stored = false;
      for (auto* part : {&model.protected_entries, &model.evictable}) {
        for (Model::Entry& entry : *part) {
          if (entry.id != id) continue;
          entry.priority = priority;
          stored = true;
        }
      }
      CHECK(index.set_priority(id, priority) == stored);
      if (stored) largest = std::max(largest, priority);
    }
    if (round % 97 == 96) {
      const auto keeps = [&](std::int64_t id) { return (id * 7 + round) % 5 != 0 && id + 150 > next; };
      std::size_t leaving = 0;
      for (auto* part : {&model.protected_entries, &model.evictable}) {
        leaving += std::erase_if(*part, [&](const Model::Entry& entry) { return !keeps(entry.id); });
      }
      const auto left = index.remove_unless([&](const Trajectory& trajectory) { return keeps(trajectory.id); });
      CHECK(left.size() == leaving);
    }
    if (round % 10 == 0) check_equal(index, model);
    if (round == 1800) {
      index.clear();
      model = {};
      largest = 1;
    }
    if (index.size() == 0 || round % 25 != 0) continue;
    for (const Sampling by : samplings) {
      const auto probabilities = model.probabilities(by, 7);
      const auto entries = model.all();
      double total = 0;
      for (const auto& entry : entries) total += entry.priority;
      if (by == Sampling::priority && (total == 0 || round <= 700)) continue;
      for (int draw = 0; draw < 20; ++draw) {
        const Draw drawn = index.draw(1, by, 7, random).front();
        std::size_t at = 0;
        while (at < entries.size() && entries[at].id != (*drawn.trajectory)->id) ++at;
        CHECK(at < entries.size());
        CHECK(at < entries.size() && std::abs(drawn.probability - probabilities[at]) <= 1e-12 * probabilities[at]);
      }
    }
  }
}

// Pearson's statistic of many draws. The bound is exceeded with probability below 1e-9 (Laurent and Massart, 2000,
// Lemma 1, with x = 9 ln 10).
void check_sampling(Index& index, const Model& model, Sampling by, double half_life, RandomStream& random) {
  const auto probabilities = model.probabilities(by, half_life);
  const auto entries = model.all();
  std::map<std::int64_t, double> counts;
  constexpr int draws = 200000;
  for (int i = 0; i < draws; ++i) counts[(*index.draw(1, by, half_life, random).front().trajectory)->id] += 1;
  double statistic = 0;
  double cells = 0;
  double rest = 0;
  double rest_expected = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const double expected = draws * probabilities[i];
    const double count = counts[entries[i].id];
    if (expected < 50) {
      rest += count;
      rest_expected += expected;
      if (expected == 0) CHECK(count == 0);
      continue;
    }
    statistic += (count - expected) * (count - expected) / expected;
    ++cells;
  }
  if (rest_expected >= 50) {
    statistic += (rest - rest_expected) * (rest - rest_expected) / rest_expected;
    ++cells;
  }
  const double x = 9 * std::log(10.0);
  CHECK(statistic < cells - 1 + 2 * std::sqrt((cells - 1) * x) + 2 * x);
}

void test_sampling() {
  RandomStream random(11);
  for (const int protected_every : {0, 3}) {
    Index index;
    Model model;
    const std::int64_t lengths[] = {1, 1023, 1024, 1025, 5000, 1, 1, 300, 2048, 7};
    std::int64_t id = 0;
    for (int round = 0; round < 4; ++round) {
      for (const std::int64_t length : lengths) {
        const bool is_protected = protected_every != 0 && id % protected_every == 0;
        const auto task = static_cast<std::int32_t>(id % 7 == 0 ? 1 : id % 2 * 5);
        index.push(make(id, length, is_protected, task));
        (is_protected ? model.protected_entries : model.evictable).push_back({id++, length, task, 1});
      }
    }
    for (int i = 0; i < 13; ++i) {
      index.pop();
      model.evictable.erase(model.evictable.begin());
    }
    double priority = 0;
    for (auto* part : {&model.protected_entries, &model.evictable}) {
      for (Model::Entry& entry : *part) {
        entry.priority = priority;
        CHECK(index.set_priority(entry.id, priority));
        priority = priority > 4 ? 0 : priority + 0.75;
      }
    }
    for (const Sampling by : samplings) check_sampling(index, model, by, 6, random);
    check_sampling(index, model, Sampling::recency, 0.3, random);
    check_sampling(index, model, Sampling::recency, 1e12, random);
  }
}

// Every step belongs to one trajectory: by step, each is drawn as often as it is long, and all of them are.
void test_guides() {
  for (const std::int64_t dropped : {0, 1, 2}) {
    Index index;
    std::vector<std::int64_t> lengths{1024, 1, 1023, 5000, 1025, 1, 2, 1024};
    for (std::size_t i = 0; i < lengths.size(); ++i) index.push(make(static_cast<std::int64_t>(i), lengths[i]));
    for (std::int64_t i = 0; i < dropped; ++i) index.pop();
    std::set<std::int64_t> seen;
    RandomStream random(5);
    for (int i = 0; i < 150000; ++i) seen.insert((*index.draw(1, Sampling::step, 1, random).front().trajectory)->id);
    CHECK(seen.size() == lengths.size() - static_cast<std::size_t>(dropped) && *seen.begin() == dropped);
  }
}

void test_priorities_that_are_all_zero() {
  Index index;
  RandomStream random(0);
  index.push(make(0, 3));
  index.push(make(1, 3, true));
  CHECK(index.set_priority(0, 0) && index.set_priority(1, 0) && !index.set_priority(2, 5));
  CHECK(throws<std::runtime_error>([&] { (void)index.draw(1, Sampling::priority, 1, random); }));
  CHECK(index.set_priority(1, 1e-300));
  CHECK((*index.draw(1, Sampling::priority, 1, random).front().trajectory)->id == 1);
}

// A label that nothing has any more leaves nothing behind, and many protected trajectories come in linear time.
void test_many() {
  Index index;
  RandomStream random(0);
  for (std::int32_t i = 0; i < 200000; ++i) {
    index.push(make(i, 1, false, i));
    if (i >= 10) index.pop();
  }
  for (std::int32_t i = 0; i < 200000; ++i) index.push(make(1000000 + i, 1, true));
  std::set<std::int32_t> seen;
  for (int i = 0; i < 2000; ++i) seen.insert((*index.draw(1, Sampling::task, 1, random).front().trajectory)->task);
  CHECK(seen.size() == 11);
}

}  // namespace
}  // namespace twohot::test

int main() {
  using namespace twohot::test;
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u}) test_against_the_model(seed);
  test_sampling();
  test_guides();
  test_priorities_that_are_all_zero();
  test_many();
  return report();
}
