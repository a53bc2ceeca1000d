"""bsuite's scores of a run: every episode that ended, in its order, and the logs that bsuite reads."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from small import CONFIG, quiet
from twohot.config import EnvironmentConfig
from twohot.envs.suites.bsuite import score
from twohot.runs.metrics import read_metrics
from twohot.training.train import train

pytest.importorskip("bsuite")

from bench import bsuite

TASKS = ("catch_scale/0", "catch_scale/17")
ACTORS, STEPS = 4, 40  # in an epoch; every second one a checkpoint cuts off an episode of 9 steps


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bsuite") / "run"
    config = replace(
        CONFIG,
        epochs=4,
        seed=5,
        environment=EnvironmentConfig(suite="bsuite", tasks=TASKS),
        collect=replace(CONFIG.collect, environments=ACTORS, steps_per_epoch=STEPS, assignment="fixed"),
    )
    train(config, directory, quiet())
    return directory


def test_the_episodes_are_those_that_the_run_collected(run):
    seed, table = bsuite.of_run(run)
    assert seed == 5
    collected = [row.metrics for row in read_metrics(run) if row.kind == "collect"]
    assert len(table) == sum(row["collect/trials"] for row in collected) == 2 * ACTORS * (2 * STEPS // 9)
    for task in TASKS:
        own = table[table.bsuite_id == task]["episode_return"].to_numpy()
        # Each epoch's mean of its episodes, in their order.
        start = 0
        for row in collected:
            count = row["collect/trials"] // 2
            assert own[start : start + count].mean() == pytest.approx(row[f"collect/return/{task}"], rel=1e-6)
            start += count
        assert start == len(own)


def test_logs_that_are_written_are_read_again(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bsuite", str(run), "--csv", str(tmp_path)])
    bsuite.main()
    first = capsys.readouterr().out
    assert "catch_scale: score" in first
    assert "rewards x 1000" in first
    assert "slope" in first
    seed, table = bsuite.read(tmp_path / "seed_5")
    assert seed == 5
    assert score(table) == score(bsuite.of_run(run)[1])
    monkeypatch.setattr(sys, "argv", ["bsuite", str(tmp_path / "seed_5")])
    bsuite.main()
    assert capsys.readouterr().out == first
    monkeypatch.setattr(sys, "argv", ["bsuite", str(run), str(tmp_path / "seed_5")])
    with pytest.raises(SystemExit):
        bsuite.main()
    assert "is in another of the runs too" in capsys.readouterr().err


def test_ids_are_cut_to_as_many_episodes(run):
    _, table = bsuite.of_run(run)
    short = table[(table.bsuite_id != TASKS[0]) | (table.episode <= 3)]
    cut = bsuite.as_many_episodes(short)
    assert dict(cut.groupby("bsuite_id")["episode"].max()) == dict.fromkeys(TASKS, 3)


def test_a_replay_that_lost_the_first_episodes_is_refused(run, tmp_path):
    config = replace(bsuite.load_config(run / "config.json"), replay=replace(CONFIG.replay, capacity_steps=60))
    train(config, tmp_path / "run", quiet())
    with pytest.raises(ValueError, match=r"has lost its first episodes.*replay\.capacity_steps"):
        bsuite.of_run(tmp_path / "run")


def test_the_slope_is_what_a_factor_of_ten_adds():
    assert bsuite.slope({0.001: 0.1, 1.0: 0.4, 1000.0: 0.7}) == pytest.approx(0.1)
    assert bsuite.slope(dict.fromkeys(np.array([0.03, 30.0]), 0.5)) == pytest.approx(0.0, abs=1e-12)
