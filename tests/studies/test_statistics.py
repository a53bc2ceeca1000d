"""Statistics of scores against rliable, whose values `bench/rliable_values.py` has written down, and against loops."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from compare import assert_accurate, summation
from twohot.studies import statistics
from twohot.studies.statistics import Estimate, bounds, difference, estimate

RLIABLE = json.loads((Path(__file__).parent / "rliable_values.json").read_text())
SCORES = {name: np.array(scores) for name, scores in RLIABLE["scores"].items()}
AGGREGATES = [getattr(statistics, name) for name in RLIABLE["aggregates"]]
THRESHOLDS = RLIABLE["thresholds"]
FEW, MANY = RLIABLE["resamples"]["few"], RLIABLE["resamples"]["many"]
SEVERAL = [name for name, scores in SCORES.items() if len(scores) > 1]
IMPROVEMENT = RLIABLE["probability_of_improvement"]


def aggregates(scores):
    return np.stack([aggregate(scores) for aggregate in AGGREGATES], -1)


def profile(scores):
    return statistics.performance_profile(scores, THRESHOLDS)


def assert_same(actual, expected, *scores):
    """Equal but for the order in which as many numbers of this size were added up, twice each."""
    terms = sum(array.size for array in scores)
    size = max(float(np.abs(array).max()) for array in scores)
    actual, expected = (torch.as_tensor(np.asarray(values, np.float64)) for values in (actual, expected))
    assert_accurate(actual, expected, floor=2 * summation(terms) + 4, sensitivity=size)


def rliables_draws(*scores):
    """The runs that rliable has drawn: of each resample, one array after another, from numpy's legacy stream."""
    stream = np.random.RandomState(RLIABLE["seed"])
    drawn = [[stream.choice(len(each), each.shape) for each in scores] for _ in range(FEW)]
    return [np.stack(draws) for draws in zip(*drawn, strict=True)]


@pytest.mark.parametrize("name", SCORES)
def test_aggregates_are_rliables(name):
    expected = [RLIABLE["values"][name][aggregate] for aggregate in RLIABLE["aggregates"]]
    assert_same(aggregates(SCORES[name]), expected, SCORES[name])


@pytest.mark.parametrize("name", SCORES)
def test_profiles_are_rliables(name):
    assert profile(SCORES[name]).tolist() == RLIABLE["values"][name]["performance_profile"]


@pytest.mark.parametrize("case", IMPROVEMENT, ids=lambda case: " over ".join(case["scores"]))
def test_the_probability_of_improvement_is_rliables(case):
    ours, theirs = (SCORES[name] for name in case["scores"])
    assert_same(statistics.probability_of_improvement(ours, theirs), case["value"], ours, theirs)
    back = statistics.probability_of_improvement(theirs, ours)
    assert_same(back, 1 - case["value"], ours, theirs)


@pytest.mark.parametrize("name", SEVERAL)
def test_intervals_of_the_same_draws_are_rliables(name):
    scores, values = SCORES[name], RLIABLE["values"][name]
    draws = rliables_draws(scores)
    assert_same(bounds(aggregates, [scores], draws), values["few"], scores)
    assert_same(bounds(profile, [scores], draws), values["few_profile"], scores)


@pytest.mark.parametrize("case", IMPROVEMENT, ids=lambda case: " over ".join(case["scores"]))
def test_intervals_of_two_arrays_of_the_same_draws_are_rliables(case):
    scores = [SCORES[name] for name in case["scores"]]
    found = bounds(statistics.probability_of_improvement, scores, rliables_draws(*scores))
    assert_same(found, np.ravel(case["few"]), *scores)


@pytest.mark.parametrize("place", range(len(AGGREGATES)), ids=RLIABLE["aggregates"])
def test_own_draws_are_distributed_as_rliables(place):
    """rliable's bound is a quantile of its own resamples: the share of ours below it is off by both samples' error."""
    name, tail = "5x6", (1 - statistics.CONFIDENCE) / 2
    seen = []
    estimate(lambda scores: seen.append(AGGREGATES[place](scores)) or seen[-1], SCORES[name])
    (resamples,) = (np.ravel(values) for values in seen[1:])
    assert len(resamples) == statistics.RESAMPLES
    error = math.sqrt(tail * (1 - tail) * (1 / len(resamples) + 1 / MANY))
    low, high = np.array(RLIABLE["values"][name]["many"])[:, place]
    for share in ((resamples < low).mean(), (resamples > high).mean()):
        assert abs(share - tail) < 5 * error


def test_tasks_learnt_and_ties_by_hand():
    scores = np.array([[0.5, 0.4, 1.0], [0.6, 0.49, 0.0]])
    assert statistics.tasks_learnt(scores) == 1.5
    assert statistics.probability_of_improvement(np.zeros((1, 2)), np.array([[0.0, 1.0]])) == 0.25


def test_a_statistic_of_resamples_is_that_of_each():
    stack = np.random.default_rng(0).normal(0.5, 1, (3, 4, 5))
    for statistic in (*AGGREGATES, statistics.tasks_learnt, profile):
        together = statistic(stack)
        assert all(np.array_equal(together[index], statistic(stack[index])) for index in range(3))


def test_one_run_has_no_interval():
    one, several = np.zeros((1, 3)), np.zeros((4, 3))
    assert estimate(statistics.mean, one) == Estimate(0.0, None, None)
    assert difference(statistics.mean, several, one, paired=False).low is None


def test_the_same_scores_have_the_same_interval():
    scores = SCORES["5x6"]
    assert estimate(statistics.mean, scores) == estimate(statistics.mean, scores)
    assert estimate(statistics.mean, scores, seed=1) != estimate(statistics.mean, scores)


def test_runs_are_drawn_for_each_task_alone_or_whole():
    """Runs that are good at one task and bad at the other have one mean, which only whole runs keep."""
    scores = np.array([[0.0, 1.0], [1.0, 0.0], [0.25, 0.75]])
    whole = estimate(statistics.mean, scores, paired=True)
    assert (whole.low, whole.high) == (0.5, 0.5)
    alone = estimate(statistics.mean, scores)
    assert alone.low < 0.5 < alone.high


def test_a_paired_difference_sees_through_what_seeds_share():
    """A gain of a quarter on every seed, beside seeds that differ by whole numbers: every sum and division is exact."""
    seeds = np.arange(4.0)[:, None] + np.zeros((4, 4))
    found = difference(statistics.mean, seeds + 0.25, seeds, paired=True)
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)
    alone = difference(statistics.mean, seeds + 0.25, seeds, paired=False)
    assert alone.low < 0.25 < alone.high


def test_the_bounds_of_a_distribution_that_is_known():
    """Of two runs of 0 and 1, a resample has the mean 0, 1/2, 1 with chances 1/4, 1/2, 1/4: the bounds are 0 and 1."""
    found = estimate(statistics.mean, np.array([[0.0], [1.0]]))
    assert (found.low, found.high) == (0.0, 1.0)
