"""The bench of training beside the official code: rows and goals of what came out, and the README's table of them."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.cases import small_tasks
from bench.harness import results
from bench.harness.measure import Row
from paths import ROOT
from twohot.config.files import save_config, to_json
from twohot.presets import PRESETS
from twohot.runs.metrics import MetricsWriter

pytestmark = pytest.mark.bench
LAKE = "frozen-lake-small"
FAILING = """
import sys
sys.exit("no room")
"""
ANSWERING = """
import json, os, sys
order = json.loads(sys.argv[1])
assert os.environ["OMP_NUM_THREADS"] == str(order["config"]["threads"])
assert order["task"] == {"size": 4}
print("what else is printed")
seed, window = order["config"]["seed"], order["config"]["window"]
returns = [[0.0, 1.0], [1.0, 1.0], [0.5, 1.0]]
answer = {"returns": returns, "steps": window, "updates": seed, "seconds": order["seconds"]}
print(json.dumps(answer))
"""


@pytest.fixture(autouse=True)
def _without_the_official_code(monkeypatch) -> None:
    for name in ("PYTHON", "CHECKOUT"):
        monkeypatch.delenv(f"TWOHOT_OFFICIAL_{name}", raising=False)


def official(monkeypatch, script: Path, source: str) -> None:
    """Put a script in the place of the official code."""
    script.write_text(source)
    monkeypatch.setattr(small_tasks, "SCRIPT", script)
    monkeypatch.setenv("TWOHOT_OFFICIAL_PYTHON", sys.executable)
    monkeypatch.setenv("TWOHOT_OFFICIAL_CHECKOUT", str(script.parent))


def test_an_outcome_is_the_last_row_of_a_run(tmp_path) -> None:
    config = PRESETS[LAKE].config
    save_config(config, tmp_path / "config.json")
    late = {f"evaluation/return/4x4/attempt_{number}": number / 20 for number in range(12, 0, -1)}
    with MetricsWriter(tmp_path) as metrics:
        metrics.write("random", 0, 0, 0.0, {"random/return/4x4/attempt_1": 0.25, "random/return/4x4": 0.25})
        metrics.write("evaluation", 10, 1, 2.0, {"evaluation/return/4x4/attempt_1": 0.0})
        metrics.write("evaluation", 20, 2, 5.0, {**late, "evaluation/return/4x4": 3.0})
    outcome = small_tasks.outcome_of(tmp_path, "evaluation")
    assert outcome.attempts.tolist() == [number / 20 for number in range(1, 13)]
    assert (outcome.steps, outcome.updates, outcome.seconds) == (20, 2, 5.0)
    assert small_tasks.outcome_of(tmp_path, "random").attempts.tolist() == [0.25]


def test_the_official_code_gets_the_configuration_and_the_seconds(monkeypatch, tmp_path) -> None:
    assert small_tasks.train_official(LAKE, 3, 9.0) is None
    official(monkeypatch, tmp_path / "train.py", ANSWERING)
    outcome = small_tasks.train_official(LAKE, 3, 9.0)
    assert outcome.attempts.tolist() == [0.5, 1.0]
    assert (outcome.steps, outcome.updates, outcome.seconds) == (PRESETS[LAKE].config.window, 3, 9.0)
    official(monkeypatch, tmp_path / "train.py", FAILING)
    with pytest.raises(RuntimeError, match="no room"):
        small_tasks.train_official(LAKE, 3, 9.0)


def outcomes():
    """Two seeds of ours."""
    return [small_tasks.Outcome(np.array(attempts), 1000, 50, 30.0) for attempts in ([0.5, 0.8, 0.9], [0.4, 0.7, 0.8])]


def test_rows_are_medians_over_seeds() -> None:
    task = replace(small_tasks.TASKS["frozen_lake"], preset=LAKE)
    rows = {row.mode: row for row in small_tasks.rows(task, "twohot", outcomes())}
    assert [rows[f"attempt {number}"].p50 for number in (1, 2, 3)] == pytest.approx([0.45, 0.75, 0.85])
    assert rows["whole trial"].p50 == pytest.approx(2.05)
    assert [rows[mode].p50 for mode in (small_tasks.STEPS, small_tasks.UPDATES, small_tasks.SECONDS)] == [
        1000,
        50,
        30.0,
    ]
    assert all(row.threads == 1 and row.shape == "2 seeds, 128 trials each" for row in rows.values())
    untrained = small_tasks.rows(task, "random", outcomes()[:1], trained=False)
    assert [row.mode for row in untrained] == ["attempt 1", "attempt 2", "attempt 3", "whole trial"]
    assert untrained[0].shape == "1 seed, 128 trials each"


def test_every_seed_has_to_reach_the_goals() -> None:
    task = replace(small_tasks.TASKS["frozen_lake"], last=0.8, rise=1.5)
    worse, better = (small_tasks.Outcome(np.full(3, value)) for value in (0.6, 0.7))
    assert [row.met for row in small_tasks.goals(task, outcomes(), worse)] == ["yes", "yes", "yes"]
    assert [row.met for row in small_tasks.goals(task, outcomes(), better)] == ["yes", "yes", "no"]
    assert [row.met for row in small_tasks.goals(task, outcomes(), None)] == ["yes", "yes", "not measured"]
    strict = replace(task, last=0.85, rise=1.9)
    assert [row.met for row in small_tasks.goals(strict, outcomes(), worse)] == ["no", "no", "yes"]


def test_one_after_the_other_for_the_seconds_of_our_longest(monkeypatch) -> None:
    calls = []

    def ours(preset, seed, run):
        calls.append((preset, seed))
        return small_tasks.Outcome(np.array([0.5, 0.9]), 10, 5, 20.0 + seed), small_tasks.Outcome(np.array([0.1, 0.1]))

    def other(preset, seed, seconds):
        calls.append((preset, seed, seconds))

    monkeypatch.setattr(small_tasks, "SEEDS", (0, 1))
    monkeypatch.setattr(small_tasks, "train_ours", ours)
    monkeypatch.setattr(small_tasks, "train_official", other)
    rows = small_tasks.trained_beside_the_official_code(small_tasks.TASKS["frozen_lake"])
    assert calls == [(LAKE, 0), (LAKE, 1), (LAKE, 0, 21.0)]
    assert {row.provider for row in rows if row.mode == "not installed"} == {small_tasks.OFFICIAL}
    assert {row.unit for row in rows if row.provider == small_tasks.RANDOM} == {"return"}


def test_the_table_shows_returns_by_attempt(monkeypatch, tmp_path) -> None:
    task, ours = small_tasks.TASKS["frozen_lake"], outcomes()
    random = small_tasks.rows(task, small_tasks.RANDOM, [small_tasks.Outcome(np.full(3, 0.02))], trained=False)
    missing = Row(task.name, small_tasks.OFFICIAL, "not installed", 0, 0, 0, "")
    rows = [*small_tasks.rows(task, small_tasks.OURS, ours), missing, *random, *small_tasks.goals(task, ours, None)]
    results.write(tmp_path, "frozen_lake", rows, {**results.measured_conditions(), "gate": "passed"})
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    lines = small_tasks.write_table(results.read("frozen_lake"))
    assert lines[2] == "| who | 1 | 2 | 3 | whole trial | environment steps | updates | training |"
    assert lines[4] == "| twohot (2 seeds, 128 trials each) | 0.45 | 0.75 | 0.85 | 2.05 | 1,000 | 50 | 30 |"
    assert lines[5] == "| official, Agent: not installed |  |  |  |  |  |  |  |"
    assert lines[6] == "| random (1 seed, 128 trials each) | 0.02 | 0.02 | 0.02 | 0.06 |  |  |  |"
    assert any("return of the last attempt |" in line for line in lines)


def test_the_official_script_reads_settings_that_there_are() -> None:
    config = to_json(PRESETS[LAKE].config)
    source = (ROOT / "bench" / "baselines" / "official" / "train.py").read_text()
    for section in ("agent", "objective", "collect", "optimizer"):
        used = set(re.findall(rf'\b{section}\["(\w+)"\]', source))
        assert used, section
        assert used <= set(config[section]), section
    assert set(re.findall(r'config\["(\w+)"\]', source)) <= set(config)
