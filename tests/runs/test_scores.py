"""Scores by task, their intervals, and what is written of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from twohot.reports.evaluation import evaluation_section
from twohot.runs.metrics import describe
from twohot.runs.scores import TaskScore, interval, report, score_metrics, summary


def score(task="a", offset=0.0, trials=4, **fields):
    returns = np.arange(trials * 3, dtype=np.float64).reshape(trials, 3) + offset
    successes = np.tile([True, False, True], (trials, 1))
    return TaskScore(task, returns, np.full((trials, 3), 5), 1, **{"successes": successes, **fields})


def test_what_counts_leaves_unscored_attempts_out():
    found = score(references=(2.0, 12.0))
    np.testing.assert_array_equal(found.counted, [3, 9, 15, 21])
    np.testing.assert_array_equal(found.success, [0.5] * 4)
    np.testing.assert_allclose(found.normalised, [-0.05, 0.25, 0.55, 0.85])
    np.testing.assert_array_equal(found.comparable, found.normalised)
    np.testing.assert_array_equal(score().comparable, [0.5] * 4)
    assert score(successes=None).comparable is None
    assert score().normalised is None


@pytest.mark.parametrize("kind", ["evaluation", "held_out", "random"])
def test_metrics_are_named_as_they_are_defined(kind):
    found = score_metrics([score(kind=kind, references=(0.0, 1.0)), score("b", kind=kind, references=(0.0, 2.0))])
    for name in found:
        describe(name)
    assert found[f"{kind}/return/a"] == 12
    assert found[f"{kind}/return/a/attempt_1"] == 4.5
    assert found[f"{kind}/success/a"] == 0.5
    assert found[f"{kind}/success/a/attempt_2"] == 0
    assert found[f"{kind}/normalised/a"] == 6
    assert (f"{kind}/length/a" in found) == (kind != "random")
    assert (f"{kind}/mean_normalised" in found) == (kind != "random")
    if kind != "random":
        assert found[f"{kind}/mean_normalised"] == 4.5
        assert found[f"{kind}/bottom_quintile"] == 3


def test_the_bottom_quintile_is_the_mean_of_the_lowest_fifth():
    def with_success(share):
        return [TaskScore("t", np.zeros((10, 1)), np.ones((10, 1)), 0, np.arange(10)[:, None] < 10 * share)]

    tasks = [with_success(share) for share in (0.9, 0.1, 0.5, 0.3, 0.7, 0.2)]
    found = summary(tasks)
    assert found["bottom_quintile"] == pytest.approx(0.15)
    assert found["mean_success"] == pytest.approx(0.45)
    assert "mean_normalised" not in found
    assert summary([[score(successes=None)]]) == {}


def test_intervals_hold_the_mean_as_often_as_they_say():
    generator = np.random.default_rng(0)
    found = [interval([generator.normal(3.0, 2.0, 60)], seed=seed) for seed in range(200)]
    covered = np.mean([low <= 3 <= high for _, low, high in found])
    # Binomial(200, 0.95): deviation 0.015; the bootstrap of 60 values is a little too narrow.
    assert 0.88 <= covered <= 1
    widths = [high - low for _, low, high in found]
    assert abs(np.mean(widths) / (2 * 1.96 * 2 / np.sqrt(60)) - 1) < 0.05


def test_intervals_of_several_runs_are_over_runs():
    generator = np.random.default_rng(0)
    runs = [generator.normal(center, 0.1, 500) for center in (0.0, 1.0, 2.0, 3.0)]
    mean, low, high = interval(runs)
    assert mean == pytest.approx(1.5, abs=0.02)
    # The mean of 4 drawn from 4: deviation sqrt(1.25 / 4).
    assert 0.8 < (high - low) / (2 * 1.96 * np.sqrt(1.25 / 4)) < 1.1
    equal = interval([runs[0], runs[0] + 0.0])
    assert equal[2] - equal[1] < 0.05
    assert interval([np.full(5, 7.0)]) == (7.0, 7.0, 7.0)
    assert interval(runs) == (mean, low, high)


def test_the_report_of_several_runs_is_json():
    runs = {
        name: [score(offset=offset), score("b", offset=offset, kind="held_out", split="test", successes=None)]
        for name, offset in (("one", 0.0), ("two", 10.0))
    }
    found = report(runs, trials=4, seed=1)
    assert json.loads(json.dumps(found)) == found
    assert (found["trials"], found["runs"], found["confidence"]) == (4, ["one", "two"], 0.95)
    first, second = found["tasks"]
    assert (first["task"], first["split"], first["kind"]) == ("a", "train", "evaluation")
    assert first["return"]["mean"] == 22
    assert first["return"]["low"] < 22 < first["return"]["high"]
    assert first["runs"] == [12, 32]
    assert first["attempts"][1]["return"]["mean"] == 10.5
    assert [attempt["counts"] for attempt in first["attempts"]] == [False, True, True]
    assert first["attempts"][1]["success"] == {"mean": 0, "low": 0, "high": 0}
    assert "success" not in second
    assert found["summary"] == {"evaluation": {"mean_success": 0.5}, "held_out": {}}


def test_the_page_shows_trained_and_held_out_tasks_apart():
    runs = {"one": [score("a<b", references=(0.0, 1.0)), score("c", kind="held_out", split="test")]}
    page = evaluation_section(report(runs, trials=4, seed=1))
    assert page.index("Trained tasks") < page.index("a&lt;b") < page.index("Held out") < page.index(">c<")
    assert "mean normalised return 6.00" in page
    assert "95% intervals" in page
    assert "attempt 3" in page
    assert "No evaluation has been written yet" in evaluation_section({})
