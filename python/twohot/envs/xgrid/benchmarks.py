"""Named sets of tasks, each task a number: nothing is downloaded and nothing is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from twohot import _native
from twohot.envs.xgrid.checks import SEED, Split, integer, split_name, truth
from twohot.envs.xgrid.rules import GOALS, RULES, Kind, RuleSet
from twohot.text import did_you_mean

MOST_TASKS = 2**31
MADE_GOALS = tuple(kind.name for kind in GOALS if kind.inputs and "position" not in kind.inputs)
MADE_RULES = tuple(kind.name for kind in RULES if kind.inputs)
"""Kinds that rule sets are made of."""


@dataclass(frozen=True)
class Benchmark:
    """Rule sets made by backward chaining from a goal, so that each has a way there; the same ones on every machine.

    The splits share no goal with the rules that it needs, `shared_goals` apart: a bit of `RuleSet.identity` says which
    split those belong to.

    Args:
        min_depth, max_depth: rules one after the other before the goal can be reached, drawn for each task; up to 8.
        branching: percent; how often the second input of a rule or goal has to be made as well.
        distractors: objects that nothing needs, up to 8.
        dead_ends: rules that use up what is needed, where two objects are put together that need not be; up to 6. Some
            are never set off, where there are too few objects for all.
        goals, rules: names of the kinds of goals, and of the rules on the way there, that are drawn from
            (`twohot.envs.xgrid.GOALS`, `RULES`); none: all kinds, but for goals of a position.
        object_types: different objects that there are, up to 50: balls of ten colours, then squares, pyramids, hexes
            and stars. At least as many as a rule set may name.
        shared_goals: whether the splits share goals that need no rules, and differ in the objects that are there: where
            there are few object types, there are few such goals, and an agent that was trained on half of them never
            looks for the others.
        tasks: how many there are in each split. seed: of the stream of rule sets.
    """

    min_depth: int = 0
    max_depth: int = 0
    branching: int = 0
    distractors: int = 0
    dead_ends: int = 0
    goals: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    object_types: int = 50
    shared_goals: bool = False
    tasks: int = 1_000_000
    seed: int = 0

    @property
    def generator(self) -> list[int]:
        """As the native module has it."""
        names = ("min_depth", "max_depth", "branching", "distractors", "dead_ends")
        objects_and_goals = integer("object_types", self.object_types), truth("shared_goals", self.shared_goals)
        kinds = _bits("goals", self.goals, MADE_GOALS, GOALS), _bits("rules", self.rules, MADE_RULES, RULES)
        return [*(integer(name, getattr(self, name)) for name in names), *kinds, *objects_and_goals]

    @property
    def most_rules(self) -> int:
        """The most that a task may have."""
        return _native.xgrid_most(self.generator)[0]

    @property
    def most_objects(self) -> int:
        """The most that a task may have."""
        return _native.xgrid_most(self.generator)[1]

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


def _bits(what: str, names: Sequence[str], made: Sequence[str], kinds: Sequence[Kind]) -> int:
    """A bit for each of the named kinds, at its number; for all that are made where none is named."""
    if isinstance(names, str):
        raise TypeError(f"{what}: expected names of kinds, got {names!r}")
    for name in names:
        if name not in made:
            raise ValueError(f"{what}: {did_you_mean(name, made)}expected some of {', '.join(made)}, got {name!r}")
    chosen = set(names or made)
    return sum(1 << number for number, kind in enumerate(kinds) if kind.name in chosen)


BENCHMARKS: dict[str, Benchmark] = {
    "simple": Benchmark(
        goals=("agent near",),
        rules=("agent near",),
        distractors=5,
        object_types=10,
        shared_goals=True,
        seed=5,
    ),
    "trivial": Benchmark(distractors=3, seed=1),
    "small": Benchmark(min_depth=1, max_depth=1, distractors=2, dead_ends=1, seed=2),
    "medium": Benchmark(min_depth=1, max_depth=3, branching=30, distractors=3, dead_ends=2, seed=3),
    "deep": Benchmark(min_depth=3, max_depth=5, branching=20, distractors=3, dead_ends=3, seed=4),
}
"""A million tasks for training and a million others for testing each.

Those of "trivial" have some 3,200 goals a split, those of "simple" ten in both, and differ in objects beyond that.
"""
