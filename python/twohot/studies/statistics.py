"""What the scores of several runs come to: aggregates, and intervals by the stratified bootstrap.

The definitions are those of Agarwal et al. 2021 (arXiv 2108.13264) and of their library rliable, with which
`tests/studies/test_statistics.py` compares each. Scores are arrays [..., runs, tasks] without NaN, whose leading
dimensions are resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
LEARNT = 0.5
"""Score from which a task counts as learnt."""

Statistic = Callable[..., Any]


def mean(scores: np.ndarray) -> Any:
    """Mean over runs and tasks."""
    return scores.mean((-2, -1))


def median(scores: np.ndarray) -> Any:
    """Median over tasks of the mean over runs."""
    return np.median(scores.mean(-2), -1)


def interquartile_mean(scores: np.ndarray) -> Any:
    """Mean of the middle half of all runs x tasks: the lowest and the highest quarter, rounded down, are left out."""
    together = np.sort(scores.reshape(*scores.shape[:-2], -1), -1)
    cut = together.shape[-1] // 4
    return together[..., cut : together.shape[-1] - cut].mean(-1)


def optimality_gap(scores: np.ndarray, goal: float = 1.0) -> Any:
    """By how much scores fall short of `goal`, on average; those beyond it count as `goal`."""
    return goal - np.minimum(scores, goal).mean((-2, -1))


def tasks_learnt(scores: np.ndarray) -> Any:
    """Number of tasks with a score of at least `LEARNT`, a mean over runs."""
    return (scores >= LEARNT).sum(-1).mean(-1)


def performance_profile(scores: np.ndarray, thresholds: Sequence[float] | np.ndarray) -> np.ndarray:
    """[..., thresholds] share of runs x tasks whose score is above each threshold."""
    return np.stack([(scores > threshold).mean((-2, -1)) for threshold in thresholds], -1)


def probability_of_improvement(scores: np.ndarray, others: np.ndarray) -> Any:
    """Probability that a run is better than one of `others` on a task, a tie counting half; a mean over tasks.

    mean_m #{(i, j): x_im > y_jm} / (N M), which is the Mann-Whitney U statistic of each task.
    """
    ours, theirs = scores[..., :, None, :], others[..., None, :, :]
    better = (ours > theirs) + 0.5 * (ours == theirs)
    return better.mean((-3, -2)).mean(-1)


@dataclass(frozen=True)
class Estimate:
    """A statistic and its interval.

    Attributes:
        value: a number, or an array of them. low, high: bounds of its 95 % interval, of the same shape; None where
            there is only one run, of which no interval can be known.
    """

    value: Any
    low: Any = None
    high: Any = None


def estimate(statistic: Statistic, *scores: np.ndarray, paired: bool = False, seed: int = 0) -> Estimate:
    """A statistic of scores, with its interval by the percentile bootstrap.

    Args:
        statistic: a function of as many arrays as there are `scores`.
        scores: [runs, tasks, ...] each. Runs are drawn with replacement within each task, and for each array on its
            own, as rliable does.
        paired: runs are drawn whole, all their tasks at once, and the same of each array. That is how runs with common
            seeds are compared which play all tasks with one agent, so that the scores of a run are not independent.
        seed: of the resamples; the same scores and seed give the same interval.
    """
    value = statistic(*scores)
    if min(len(each) for each in scores) < 2:
        return Estimate(value)
    generator = np.random.RandomState(seed)  # the one whose stream no version of numpy changes
    if paired:
        draws = [generator.randint(len(scores[0]), size=(RESAMPLES, len(scores[0]), 1))] * len(scores)
    else:
        draws = [generator.randint(each.shape[0], size=(RESAMPLES, *each.shape[:2])) for each in scores]
    low, high = bounds(statistic, scores, draws)
    return Estimate(value, low, high)


def bounds(statistic: Statistic, scores: Sequence[np.ndarray], draws: Sequence[np.ndarray]) -> tuple[Any, Any]:
    """Lower and upper quantile of a statistic over resamples.

    Args:
        statistic: as for `estimate`. scores: [runs, tasks] each.
        draws: for each of them, which runs each resample has, [resamples, runs, tasks or 1].
    """
    resampled = [each[drawn, np.arange(each.shape[1])] for each, drawn in zip(scores, draws, strict=True)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(statistic(*resampled), (tail, 1 - tail), axis=0)
    return low, high


def difference(
    statistic: Statistic, scores: np.ndarray, others: np.ndarray, *, paired: bool, seed: int = 0
) -> Estimate:
    """`statistic(scores) - statistic(others)` with its interval.

    Args:
        statistic: of one array. scores, others: [runs, tasks] each.
        paired: whether rows are runs of the same seeds in the same order; see `estimate`.
        seed: of the resamples.
    """
    return estimate(lambda ours, theirs: statistic(ours) - statistic(theirs), scores, others, paired=paired, seed=seed)
