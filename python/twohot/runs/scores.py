"""What an evaluation came to: by task and attempt, with intervals, as metrics and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

EVALUATION_NAME = "evaluation.json"
"""In a run directory, what `report` gave of its last whole evaluation."""
CONFIDENCE = 0.95
RESAMPLES = 1000
BOOTSTRAP_STREAM = 7_002
"""Separates the bootstrap's random numbers from those of evaluations."""
LOWEST_SHARE = 0.2

Kind = Literal["evaluation", "held_out", "random"]


@dataclass(frozen=True)
class TaskScore:
    """One task's trials.

    Attributes:
        task, split: what was played. kind: "evaluation" for tasks and levels that the agent trains on, "held_out" for
            others, "random" for the uniformly random policy on either.
        returns, lengths, successes: by attempt, raw, each [trials, attempts]; successes None where none are told.
        unscored_attempts: leading attempts that do not count.
        references: a random player's and a human's return in one attempt, where known.
    """

    task: str
    returns: np.ndarray
    lengths: np.ndarray
    unscored_attempts: int
    successes: np.ndarray | None = None
    kind: Kind = "evaluation"
    split: str = "train"
    references: tuple[float, float] | None = None

    @property
    def counted(self) -> np.ndarray:
        """[trials] return of the attempts that count, summed."""
        return self.returns[:, self.unscored_attempts :].sum(1)

    @property
    def success(self) -> np.ndarray | None:
        """[trials] success rate of the attempts that count."""
        return None if self.successes is None else self.successes[:, self.unscored_attempts :].mean(1)

    @property
    def normalised(self) -> np.ndarray | None:
        """[trials] mean return of the attempts that count, 0 for a random player's and 1 for a human's."""
        if self.references is None:
            return None
        low, high = self.references
        return (self.returns[:, self.unscored_attempts :].mean(1) - low) / (high - low)

    @property
    def comparable(self) -> np.ndarray | None:
        """[trials] on a scale that tasks share: normalised, or else success; None where neither is known."""
        return self.success if self.references is None else self.normalised

    def metrics(self) -> dict[str, float]:
        """Scalars by the names defined in `twohot.runs.metrics`."""
        kind, counted = self.kind, self.counted
        result = {f"{kind}/return/{self.task}": float(counted.mean())}
        if len(counted) > 1:
            result[f"{kind}/return_std_error/{self.task}"] = float(counted.std(ddof=1) / np.sqrt(len(counted)))
        if kind != "random":
            result[f"{kind}/length/{self.task}"] = float(self.lengths.sum(1).mean())
        for name, values in (("success", self.success), ("normalised", self.normalised)):
            if values is not None:
                result[f"{kind}/{name}/{self.task}"] = float(values.mean())
        for name, by_attempt in (("return", self.returns), ("success", self.successes)):
            if by_attempt is not None and by_attempt.shape[1] > 1:
                for attempt, value in enumerate(by_attempt.mean(0), start=1):
                    result[f"{kind}/{name}/{self.task}/attempt_{attempt}"] = float(value)
        return result


def score_metrics(scores: Sequence[TaskScore]) -> dict[str, float]:
    """Metrics of every score, and of all tasks of one kind together."""
    result = {name: value for score in scores for name, value in score.metrics().items()}
    for kind in dict.fromkeys(score.kind for score in scores):
        if kind == "random":
            continue
        mine = [score for score in scores if score.kind == kind]
        for name, value in summary([[score] for score in mine]).items():
            result[f"{kind}/{name}"] = value
    return result


def summary(tasks: Sequence[Sequence[TaskScore]]) -> dict[str, float]:
    """Means over tasks, each of which is given once for every run: "mean_success", "mean_normalised", and
    "bottom_quintile", the mean of the lowest fifth of the tasks (rounded up) in `TaskScore.comparable`.

    What a task lacks leaves the mean out.
    """
    result = {}
    for name, attribute in (("mean_success", "success"), ("mean_normalised", "normalised")):
        means = _means(tasks, attribute)
        if means is not None:
            result[name] = float(np.mean(means))
    comparable = _means(tasks, "comparable")
    if comparable is not None and len(comparable) > 1:
        result["bottom_quintile"] = float(np.sort(comparable)[: math.ceil(LOWEST_SHARE * len(comparable))].mean())
    return result


def _means(tasks: Sequence[Sequence[TaskScore]], attribute: str) -> list[float] | None:
    values = [[getattr(score, attribute) for score in runs] for runs in tasks]
    if any(value is None for runs in values for value in runs):
        return None
    return [float(np.mean([value.mean() for value in runs])) for runs in values]


def interval(runs: Sequence[np.ndarray], seed: int = 0) -> tuple[float, float, float]:
    """Mean, and bounds of its 95 % interval by the percentile bootstrap (Efron 1979; Agarwal et al. 2021).

    With several runs, runs are drawn with replacement and then trials within each; with one, trials alone.

    Args:
        runs: values of each run's trials, [trials] each.
        seed: of the resamples.

    Returns:
        Mean over the runs of their means; lower and upper bound.
    """
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(BOOTSTRAP_STREAM,)))
    means = np.empty((RESAMPLES, len(runs)))
    for index, values in enumerate(runs):
        means[:, index] = values[generator.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    if len(runs) > 1:
        # Each drawn run takes a resample of its own trials, its row moved by the draw's place among the runs.
        drawn = generator.integers(len(runs), size=(RESAMPLES, len(runs)))
        rows = (np.arange(RESAMPLES)[:, None] + np.arange(len(runs))) % RESAMPLES
        means = means[rows, drawn]
    low, high = np.quantile(means.mean(1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(np.mean([values.mean() for values in runs])), float(low), float(high)


def report(runs: Mapping[str, Sequence[TaskScore]], **facts: Any) -> dict[str, Any]:
    """An evaluation of one run or several as JSON values.

    Args:
        runs: each run's scores, of the same tasks in the same order.
        facts: what else is known of the evaluation, such as `trials` and `seed`.

    Returns:
        `facts`, "runs", "confidence", "tasks" (for each task and split: task, split, kind; "return" and, where known,
        "success", "normalised": mean, low, high; "attempts": the same for each attempt; "runs": each run's mean
        return) and "summary" (for each kind, see `summary`).
    """
    together = list(zip(*runs.values(), strict=True))
    summaries = {kind: [runs for runs in together if runs[0].kind == kind] for kind in ("evaluation", "held_out")}
    return {
        **facts,
        "runs": list(runs),
        "confidence": CONFIDENCE,
        "tasks": [_task(scores) for scores in together],
        "summary": {kind: summary(found) for kind, found in summaries.items() if found},
    }


def _task(scores: Sequence[TaskScore]) -> dict[str, Any]:
    first = scores[0]
    result: dict[str, Any] = {"task": first.task, "split": first.split, "kind": first.kind}
    result["return"] = _measured([score.counted for score in scores])
    result["length"] = float(np.mean([score.lengths.sum(1).mean() for score in scores]))
    for name in ("success", "normalised"):
        if getattr(first, name) is not None:
            result[name] = _measured([getattr(score, name) for score in scores])
    result["attempts"] = []
    for attempt in range(first.returns.shape[1]):
        values: dict[str, Any] = {"return": _measured([score.returns[:, attempt] for score in scores])}
        if first.successes is not None:
            values["success"] = _measured(
                [score.successes[:, attempt] for score in scores if score.successes is not None]
            )
        result["attempts"].append({**values, "counts": attempt >= first.unscored_attempts})
    result["runs"] = [float(score.counted.mean()) for score in scores]
    return result


def _measured(runs: Sequence[np.ndarray]) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), interval(runs), strict=True))
