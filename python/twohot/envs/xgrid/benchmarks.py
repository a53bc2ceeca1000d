"""Named sets of tasks, each task a number: nothing is downloaded and nothing is stored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from twohot import _native
from twohot.envs.xgrid.checks import SEED, Split, integer, split_name
from twohot.envs.xgrid.rules import RuleSet

MOST_TASKS = 2**31


@dataclass(frozen=True)
class Benchmark:
    """Rule sets made by backward chaining from a goal, so that each has a way there; the same ones on every machine.

    The splits share no goal with the rules that it needs: a bit of `RuleSet.identity` says which split those belong to.

    Args:
        min_depth, max_depth: rules one after the other before the goal can be reached, drawn for each task; up to 8.
        branching: percent; how often the second input of a rule or goal has to be made as well.
        distractors: objects that nothing needs, up to 8.
        dead_ends: rules that use up what is needed, where two objects are put together that need not be; up to 6. Some
            are never set off, where there are too few objects for all.
        tasks: how many there are in each split. seed: of the stream of rule sets.
    """

    min_depth: int = 0
    max_depth: int = 0
    branching: int = 0
    distractors: int = 0
    dead_ends: int = 0
    tasks: int = 1_000_000
    seed: int = 0

    @property
    def generator(self) -> list[int]:
        """As the native module has it."""
        names = ("min_depth", "max_depth", "branching", "distractors", "dead_ends")
        return [integer(name, getattr(self, name)) for name in names]

    def at_depth(self, depth: int) -> Benchmark:
        """The same with tasks of one depth."""
        return replace(self, min_depth=depth, max_depth=depth)

    def rule_set(self, number: int, split: Split = "train") -> RuleSet:
        """The task of a number, from 0 to `tasks` - 1."""
        number = integer("the number of a task", number, 0, self.tasks - 1)
        goals, rules, objects, _ = self.arrays(number, 1, split)
        return RuleSet(goals[0], rules[0][rules[0, :, 0] > 0], objects[0][objects[0, :, 0] > 0])

    def arrays(
        self, first: int, count: int, split: Split = "train"
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Tasks `first` to `first + count - 1` at once, filled up with zeros: what XLand-MiniGrid's benchmarks hold.

        Returns:
            goals uint8 [count, 5], rules uint8 [count, 18, 7], objects uint8 [count, 32, 2], identities uint64 [count].
        """
        tasks = integer("tasks", self.tasks, 1, MOST_TASKS)
        first = integer("first", first, 0, tasks)
        count = integer("count", count, 0, tasks - first)
        seed = integer("seed", self.seed, 0, SEED)
        return _native.xgrid_rule_sets(self.generator, seed=seed, first=first, count=count, split=split_name(split))


BENCHMARKS: dict[str, Benchmark] = {
    "trivial": Benchmark(distractors=3, seed=1),
    "small": Benchmark(min_depth=1, max_depth=1, distractors=2, dead_ends=1, seed=2),
    "medium": Benchmark(min_depth=1, max_depth=3, branching=30, distractors=3, dead_ends=2, seed=3),
    "deep": Benchmark(min_depth=3, max_depth=5, branching=20, distractors=3, dead_ends=3, seed=4),
}
"""A million tasks for training and a million others for testing each.

Those of "trivial" have some 3,200 goals a split, and differ in objects beyond that.
"""
