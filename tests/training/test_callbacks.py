"""Callbacks: what they are given, that they stop a training as if it had been planned so, and disturb nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import twohot
from small import CONFIG, agent_bytes, with_epochs
from twohot.config import ConfigurationError
from twohot.runs import checkpoint
from twohot.runs.metrics import read_metrics


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> twohot.Run:
    """Four epochs without a callback."""
    return twohot.train(CONFIG, run=tmp_path_factory.mktemp("callbacks") / "whole", quiet=True)


def test_a_callback_sees_each_epoch_and_what_it_returns_is_logged(whole: twohot.Run, tmp_path: Path) -> None:
    ends, calls = [], []

    def look(end: twohot.EpochEnd) -> dict[str, float]:
        ends.append(end)
        torch.rand(7)  # disturbs nothing
        agent = twohot.Agent(end.networks, end.config)
        environments = agent.make_environments(2)
        observation, _ = environments.reset(seed=0)
        agent.reset(2)
        return {"mean_action": agent.act(observation).mean(), "nested/epoch": end.epoch}

    run = twohot.train(CONFIG, run=tmp_path / "run", callbacks=[look, calls.append], quiet=True)
    assert [end.epoch for end in ends] == [1, 2, 3, 4]
    assert calls == ends
    logged = [row for row in run.rows if row.kind == "own"]
    assert [row.metrics["own/nested/epoch"] for row in logged] == [1, 2, 3, 4]
    assert [(row.environment_steps, row.updates) for row in logged] == [
        (end.environment_steps, end.updates) for end in ends
    ]
    assert [(end.environment_steps, end.updates) for end in ends] == [(180 * epoch, 3 * epoch) for epoch in range(1, 5)]
    for end in ends:
        same = [row for row in run.rows if row.updates == end.updates and row.kind in end.rows and row.kind != "random"]
        assert {row.kind: row.metrics for row in same} == {kind: row for kind, row in end.rows.items() if row}
        assert bool(end.rows["evaluation"]) == (end.epoch % 2 == 0)
        assert (end.run, end.config) == (tmp_path / "run", CONFIG)
    assert agent_bytes(run.path) == agent_bytes(whole.path)
    assert "Own metrics" in run.report().read_text()
    assert "Own metrics" not in whole.report().read_text()


def test_the_networks_of_an_epoch_are_a_copy(whole: twohot.Run, tmp_path: Path) -> None:
    def spoil(end: twohot.EpochEnd) -> None:
        with torch.no_grad():
            for parameter in end.networks.parameters():
                parameter.zero_()

    run = twohot.train(CONFIG, run=tmp_path / "run", callbacks=[spoil], quiet=True)
    assert agent_bytes(run.path) == agent_bytes(whole.path)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_stopped_training_is_one_that_was_planned_so_long(epoch: int, whole: twohot.Run, tmp_path: Path) -> None:
    def stop(end: twohot.EpochEnd) -> None:
        if end.epoch == epoch:
            end.stop()

    stopped = twohot.train(CONFIG, run=tmp_path / "stopped", callbacks=[stop], quiet=True)
    planned = twohot.train(with_epochs(epoch), run=tmp_path / "planned", quiet=True)
    assert stopped.config == planned.config == with_epochs(epoch)
    assert agent_bytes(stopped.path) == agent_bytes(planned.path)
    assert checkpoint.latest(stopped.path).name == f"epoch-00000{epoch}"
    assert stopped.scores == planned.scores
    assert (stopped.path / "evaluation.json").read_text() == (planned.path / "evaluation.json").read_text().replace(
        str(planned.path), str(stopped.path)
    )
    if epoch % CONFIG.checkpoint_every == 0:
        longer = twohot.train(resume=stopped.path, epochs=CONFIG.epochs, quiet=True)
        assert agent_bytes(longer.path) == agent_bytes(whole.path)


def test_to_stop_at_the_last_epoch_changes_nothing(whole: twohot.Run, tmp_path: Path) -> None:
    def stop(end: twohot.EpochEnd) -> None:
        if end.epoch == CONFIG.epochs:
            end.stop()

    run = twohot.train(CONFIG, run=tmp_path / "run", callbacks=[stop], quiet=True)
    assert [row.kind for row in run.rows] == [row.kind for row in whole.rows]


def test_a_resumed_run_logs_what_callbacks_gave_once(tmp_path: Path) -> None:
    def count(end: twohot.EpochEnd) -> dict[str, float]:
        if end.epoch == 3 and not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            raise RuntimeError("of the user's")
        return {"epoch": end.epoch}

    with pytest.raises(RuntimeError, match="of the user's"):
        twohot.train(CONFIG, run=tmp_path / "run", callbacks=[count], quiet=True)
    twohot.train(resume=tmp_path / "run", callbacks=[count], quiet=True)
    logged = [row.metrics["own/epoch"] for row in read_metrics(tmp_path / "run") if row.kind == "own"]
    assert logged == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (3.0, ConfigurationError, "to return None or a mapping from names to numbers, got 3.0"),
        ({1: 2.0}, ConfigurationError, "to return None or a mapping"),
        ({"a": "b"}, ValueError, "metric 'own/a' must hold numbers"),
        ({"a": float("nan")}, ValueError, "metric 'own/a' is nan"),
    ],
)
def test_what_cannot_be_logged_is_refused(returned, error, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        twohot.train(CONFIG, run=tmp_path / "run", callbacks=[lambda end: returned], quiet=True)
