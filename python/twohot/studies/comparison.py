"""Settings that are compared, over the seeds of their runs: what was measured, on scales that tasks share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

import numpy as np

from twohot.errors import TwohotError
from twohot.studies import statistics
from twohot.studies.rows import StudyRow
from twohot.studies.statistics import Estimate, estimate
from twohot.studies.study import RANDOM

SHORT = 0.9
"""A run whose last evaluation came before this share of the longest run's steps is named as one that is not done."""

MAX_POINTS = 200
"""Of a curve; evaluations that are closer together are one point."""


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        title: of the page. summary: what the comparison is about, in a sentence; may be empty.
        rows: of all runs, those of settings that `settings` lacks are left out.
        settings: names in the order in which they are shown; each with its options, by dotted name.
        best: the best known return of tasks, which scores 1 where the uniformly random policy's scores 0.
        references: low and high reference return of tasks, which score 0 and 1 where no best is known.
        seeds: those that every setting should have; empty where that is not known.
        facts: label and value of what the header states beside.
    """

    title: str
    summary: str
    rows: Sequence[StudyRow]
    settings: Mapping[str, Mapping[str, object]]
    best: Mapping[str, float] = field(default_factory=dict)
    references: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """How returns of different tasks become scores.

    Attributes:
        about: a sentence for a caption. axis: the same in short, for an axis.
        ends: for each task that has a score, the returns that score 0 and 1; None: the score is the share of successes.
    """

    about: str
    axis: str
    ends: Mapping[str, tuple[float, float] | None]

    def score(self, row: StudyRow) -> float | None:
        """The score of a row; None where its task has none."""
        if row.task not in self.ends:
            return None
        ends = self.ends[row.task]
        return row.success if ends is None else (row.return_ - ends[0]) / (ends[1] - ends[0])


@dataclass(frozen=True)
class Curve:
    """A mean over the runs of a setting, and the bounds of its interval where there are several runs."""

    steps: Sequence[float]
    mean: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None


class Measured:
    """The rows of a comparison, in the order in which its page needs them.

    Attributes:
        comparison: what they are of.
        runs: setting -> seeds that have rows, ascending; in the comparison's order, without settings that have none.
        scale: how returns become scores; None where no scale is common to tasks.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self._rows: dict[tuple[str, int, str, str, int | None], dict[int, StudyRow]] = {}
        for row in comparison.rows:
            if row.setting in comparison.settings or row.kind == RANDOM:
                key = (row.setting, row.seed, row.kind, row.task, row.attempt)
                self._rows.setdefault(key, {})[row.step] = row
        seeds: dict[str, set[int]] = {name: set() for name in comparison.settings}
        self._attempts: dict[str, dict[str, set[int]]] = {}  # of each task of each kind
        self._random: dict[tuple[str, int | None], list[float]] = {}
        for (setting, seed, kind, task, attempt), rows in self._rows.items():
            attempts = self._attempts.setdefault(kind, {}).setdefault(task, set())
            if attempt is not None:
                attempts.add(attempt)
            if kind == RANDOM:
                self._random.setdefault((task, attempt), []).extend(row.return_ for row in rows.values())
            else:
                seeds[setting].add(seed)
        self.runs = {name: sorted(found) for name, found in seeds.items() if found}
        self.scale = self._scale()

    def tasks(self, kind: str = "evaluation") -> list[str]:
        """The tasks of a kind of evaluation, in order of appearance."""
        return list(self._attempts.get(kind, {}))

    def attempts(self, kind: str, task: str) -> list[int]:
        """The numbers of a task's attempts; empty where a trial is a single one."""
        return sorted(self._attempts.get(kind, {}).get(task, ()))

    def series(self, setting: str, seed: int, kind: str, task: str, attempt: int | None = None) -> list[StudyRow]:
        """A run's rows of a task, by step."""
        found = self._rows.get((setting, seed, kind, task, attempt), {})
        return [found[step] for step in sorted(found)]

    def last(self, setting: str, kind: str, task: str, attempt: int | None = None) -> dict[int, StudyRow]:
        """The rows of a task at the last evaluation of each run that has it, by seed."""
        found = {seed: self.series(setting, seed, kind, task, attempt) for seed in self.runs.get(setting, ())}
        return {seed: rows[-1] for seed, rows in found.items() if rows}

    def last_by_attempt(self, setting: str, kind: str, task: str) -> dict[int, dict[int, StudyRow]]:
        """`last` of each of a task's attempts; of a setting whose trials are single attempts, of that for each one."""
        numbers = self.attempts(kind, task)
        found = {number: self.last(setting, kind, task, number) for number in numbers}
        return found if any(found.values()) else dict.fromkeys(numbers, self.last(setting, kind, task))

    @property
    def held_out_or_evaluation(self) -> str:
        """The kind of evaluation that says most: of what was held out, where anything was."""
        return "held_out" if self.tasks("held_out") else "evaluation"

    def random(self, task: str, attempt: int | None = None) -> float | None:
        """Mean return of the uniformly random policy over the seeds; None where it was not measured."""
        found = self._random.get((task, attempt))
        return float(np.mean(found)) if found else None

    def _scale(self) -> Scale | None:
        best, references = self.comparison.best, self.comparison.references
        tasks = self.tasks() + self.tasks("held_out")
        ends: dict[str, tuple[float, float] | None] = {}
        for task in tasks:
            random = self.random(task)
            if task in best and random is not None:
                if best[task] <= random:
                    raise TwohotError(
                        f"best known return of {task}: expected more than the uniformly random policy's {random:.6g}, "
                        f"got {best[task]:.6g}"
                    )
                ends[task] = random, best[task]
        if ends:
            about = "A score is 0 for the uniformly random policy, as measured, and 1 for the best known."
            return Scale(about, "0: random, 1: best known", ends)
        ends = {task: references[task] for task in tasks if task in references}
        if ends:
            about = "A score is 0 for the suite's low reference return of a task and 1 for its high one."
            return Scale(about, "0 and 1: the suite's references", ends)
        whole = [row for row in self.own_rows if row.attempt is None]
        if whole and all(row.success is not None for row in whole):
            return Scale("A score is the share of successes.", "share of successes", dict.fromkeys(tasks))
        return None

    @property
    def own_rows(self) -> list[StudyRow]:
        """The rows of all settings, without those of the uniformly random policy."""
        return [row for key, found in self._rows.items() if key[2] != RANDOM for row in found.values()]

    @property
    def commits(self) -> list[str]:
        """Of the code that the runs are of."""
        return sorted({row.commit for row in self.own_rows})

    @property
    def processors(self) -> list[str]:
        """Those on which the runs were made."""
        return sorted({row.processor for row in self.own_rows})

    @cached_property
    def scored_tasks(self) -> list[str]:
        """The tasks that have a score and that every run has been evaluated on: those that aggregates are over."""
        known = [] if self.scale is None else [task for task in self.tasks() if task in self.scale.ends]
        return [
            task
            for task in known
            if all(len(self.last(setting, "evaluation", task)) == len(seeds) for setting, seeds in self.runs.items())
        ]

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """Setting -> [runs, tasks] scores of the last evaluations, as `runs` and `scored_tasks` have them."""
        return {setting: self._matrix(setting) for setting in self.runs} if self.scored_tasks else {}

    def _matrix(self, setting: str) -> np.ndarray:
        columns = [self.last(setting, "evaluation", task) for task in self.scored_tasks]
        return np.array([[self._score(column[seed]) for column in columns] for seed in self.runs[setting]])

    def _score(self, row: StudyRow) -> float:
        score = self.scale.score(row) if self.scale is not None else None
        assert score is not None, row
        return score

    def difference(self, statistic: statistics.Statistic, ours: str, theirs: str) -> Estimate:
        """A statistic of one setting less that of another; over seeds in common, where there are several."""
        common = [seed for seed in self.runs[ours] if seed in self.runs[theirs]]
        if len(common) < 2:
            return statistics.difference(statistic, self.scores[ours], self.scores[theirs], paired=False)
        one, other = (self.scores[name][[self.runs[name].index(seed) for seed in common]] for name in (ours, theirs))
        return statistics.difference(statistic, one, other, paired=True)

    def curve(self, setting: str, kind: str, task: str) -> Curve:
        """Mean return of a task over steps, with its interval over runs."""
        runs = [self.series(setting, seed, kind, task) for seed in self.runs[setting]]
        return _curve([([row.step for row in rows], [[row.return_] for row in rows]) for rows in runs if rows])

    def score_curve(self, setting: str) -> Curve:
        """Mean score of `scored_tasks` over steps, with its interval over runs within each task."""
        runs = []
        for seed in self.runs[setting]:
            rows = [self.series(setting, seed, "evaluation", task) for task in self.scored_tasks]
            steps = sorted(set.intersection(*({row.step for row in mine} for mine in rows)))
            kept = [[self._score(row) for row in mine if row.step in steps] for mine in rows]
            runs.append((steps, np.array(kept).T.tolist()))
        return _curve([run for run in runs if run[0]])

    def missing(self) -> Iterator[str]:
        """A sentence for all that is not there yet, or not of every setting."""
        comparison = self.comparison
        for name in comparison.settings:
            seeds = self.runs.get(name, [])
            absent = [str(seed) for seed in comparison.seeds if seed not in seeds]
            if not seeds:
                yield f"{name}: not evaluated yet."
            elif absent:
                yield f"{name}: no rows of seed{'s' * (len(absent) > 1)} {', '.join(absent)}."
        ends = {
            (setting, seed): max(step for key, rows in found for step in rows)
            for (setting, seed), found in _grouped(self._rows)
        }
        longest = max(ends.values(), default=0)
        for (setting, seed), end in ends.items():
            if end < SHORT * longest:
                late = f"its last evaluation was at {end:,} steps, the longest run's at {longest:,}"
                yield f"{setting}, seed {seed}: {late}."
        for kind in ("evaluation", "held_out"):
            for task in self.tasks(kind):
                without = [name for name in self.runs if not self.last(name, kind, task)]
                if without:
                    yield f"{task}: not evaluated by {', '.join(without)}."
        tasks = [*self.tasks(), *self.tasks("held_out")]
        unknown = [task for task in comparison.best if task not in tasks]
        if tasks and unknown:
            yield f"A best known return is given of {', '.join(unknown)}, but there are no such tasks."
        unscored = [task for task in self.tasks() if task not in self.scored_tasks]
        if self.scale is not None and unscored:
            yield f"Without a score of every run, and so not in the aggregates: {', '.join(unscored)}."


def _grouped(rows: Mapping[tuple[str, int, str, str, int | None], dict[int, StudyRow]]):
    """The rows of each run, without those of the uniformly random policy."""
    found = sorted(((key, value) for key, value in rows.items() if key[2] != RANDOM), key=lambda item: item[0][:2])
    return [(run, list(mine)) for run, mine in groupby(found, key=lambda item: item[0][:2])]


def _curve(runs: Sequence[tuple[list[int], list[list[float]]]]) -> Curve:
    """Mean over runs and tasks at every step at which one of the runs was evaluated, the last of those close together.

    A run counts from its first evaluation to its last, or a tenth beside, for runs take slightly different numbers of
    steps; between two evaluations, it is on the straight line between them.

    Args:
        runs: of each run, its steps and [steps, tasks] values.
    """
    grid = np.unique(np.concatenate([steps for steps, _ in runs])) if runs else np.zeros(0)
    grid = grid[np.diff(grid, append=np.inf) > grid.max(initial=0) / MAX_POINTS]
    points = []
    for step in grid:
        there = [
            [np.interp(step, steps, column) for column in np.array(values).T]
            for steps, values in runs
            if SHORT * steps[0] <= step <= steps[-1] / SHORT
        ]
        points.append(estimate(statistics.mean, np.array(there)))
    means = [float(point.value) for point in points]
    if all(point.low is None for point in points):
        return Curve(grid.tolist(), means, None)
    low = [mean if point.low is None else float(point.low) for mean, point in zip(means, points, strict=True)]
    high = [mean if point.high is None else float(point.high) for mean, point in zip(means, points, strict=True)]
    return Curve(grid.tolist(), means, (low, high))
