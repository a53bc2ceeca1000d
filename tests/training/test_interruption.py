"""Signals and the clock: a run that is stopped anywhere saves itself, and goes on from there."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from small import agent_bytes, quiet, with_epochs
from twohot import files
from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import load_config
from twohot.info import read_start
from twohot.learning.learner import Learner
from twohot.reports.report import write_report
from twohot.rl.exploration import Exploration
from twohot.runs import checkpoint
from twohot.runs import replay as run_replay
from twohot.runs.metrics import read_metrics
from twohot.training import cluster, evaluate
from twohot.training.interruption import Interrupted, Interruption
from twohot.training.train import Session, resume, train

EPOCHS = 4


def config(storage: str = "memory", **settings) -> TrainConfig:
    base = dataclasses.replace(with_epochs(EPOCHS), **settings)
    collect = dataclasses.replace(base.collect, steps_per_epoch=30)
    return dataclasses.replace(base, collect=collect, replay=dataclasses.replace(base.replay, storage=storage))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(config(), run, quiet())
    return run


def rows(run: Path) -> list:
    timed = ("per_second", "time/")
    kept = [{k: v for k, v in row.metrics.items() if not any(t in k for t in timed)} for row in read_metrics(run)]
    return [(row.kind, row.environment_steps, row.updates, m) for row, m in zip(read_metrics(run), kept, strict=True)]


def clocks(run: Path) -> list:
    return [(row.kind, row.environment_steps, row.updates) for row in read_metrics(run)]


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def interrupted_in_a_library(*heard: int) -> None:
    with Interruption() as interruption:
        for number in heard:
            interruption.hear(number)
        raise KeyboardInterrupt  # as Ray does where a handler has raised inside of one of its calls


def test_what_a_library_makes_of_a_signal_is_that_signal() -> None:
    with pytest.raises(Interrupted) as caught:
        interrupted_in_a_library(signal.SIGTERM)
    assert caught.value.exit_code == 128 + signal.SIGTERM
    with pytest.raises(KeyboardInterrupt) as unheard:
        interrupted_in_a_library()
    assert type(unheard.value) is KeyboardInterrupt


def test_a_signal_while_ray_starts_is_that_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [signal.SIGTERM, 3]
    ray = SimpleNamespace(
        is_initialized=lambda: False, init=lambda **options: sys.exit(ended[0]), shutdown=lambda: None
    )
    monkeypatch.setattr(cluster, "package", lambda *names: ray)
    with pytest.raises(Interrupted) as caught, cluster.connected("", {"actors": 2.0}, "--actors"):
        pass
    assert caught.value.exit_code == 128 + signal.SIGTERM
    del ended[0]
    with pytest.raises(SystemExit), cluster.connected("", {"actors": 2.0}, "--actors"):
        pass


def at_call(monkeypatch, owner: type, name: str, number: int, act) -> None:
    """Call `act` at the beginning of the call with this number, from 1 on, of a method."""
    calls, method = [0], getattr(owner, name)

    def counted(self, *arguments, **options):
        calls[0] += 1
        if calls[0] == number:
            act()
        return method(self, *arguments, **options)

    monkeypatch.setattr(owner, name, counted)


def eager(monkeypatch) -> None:
    """Small files of the replay, and checkpoints that do not wait for the disk, for there are many."""
    monkeypatch.setattr(run_replay, "SEGMENT_BYTES", 2000)
    monkeypatch.setattr(checkpoint, "sync", lambda path: None)
    monkeypatch.setattr(files, "sync", lambda path: None)


@contextmanager
def stops(monkeypatch, kind: type[BaseException] = Interrupted):
    """Patches that last as long as the block, which such an exception ends."""
    with monkeypatch.context() as patch, pytest.raises(kind) as stopped:
        yield patch, stopped


# 30 steps and 3 updates in an epoch; a checkpoint and an evaluation after epochs 2 and 4.


@pytest.mark.parametrize(
    ("number", "storage"), [(signal.SIGINT, "memory"), (signal.SIGTERM, "disk"), (signal.SIGHUP, "memory")]
)
def test_a_signal_while_collecting(whole: Path, tmp_path: Path, monkeypatch, storage: str, number: int) -> None:
    monkeypatch.setattr(run_replay, "SEGMENT_BYTES", 2000)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    run = tmp_path / "run"
    with stops(monkeypatch) as (patch, stopped):
        at_call(patch, Exploration, "__call__", 80, lambda: signal.raise_signal(number))
        train(config(storage), run, quiet())
    assert stopped.value.exit_code == 128 + number
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert checkpoints(run) == ["epoch-000002", "epoch-000002-20-0"]
    state = checkpoint.read_state(checkpoint.latest(run))
    with run_replay.load(config(storage).replay, run, checkpoint.latest(run), state["replay"]) as replay:
        assert replay.stats().steps == state["environment_steps"]  # of trials that have not ended, too
    ended = state["current"]["trials"]
    goes_on(whole, run)
    third = [row.metrics["collect/trials"] for row in read_metrics(run) if row.kind == "collect"][2]
    assert 0 < len(ended) <= third


@pytest.mark.parametrize(("update", "left"), [(3, "epoch-000000-30-3"), (8, "epoch-000002-30-2")])
def test_a_signal_while_learning(whole: Path, tmp_path: Path, monkeypatch, update: int, left: str) -> None:
    run = tmp_path / "run"
    with stops(monkeypatch) as (patch, _):
        at_call(patch, Learner, "step", update, lambda: signal.raise_signal(signal.SIGTERM))
        train(config(), run, quiet())
    assert checkpoint.latest(run).name == left
    goes_on(whole, run)


def test_a_signal_while_evaluating(whole: Path, tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "run"
    with stops(monkeypatch) as (patch, _):
        at_call(patch, evaluate._Queue, "follow", 5, lambda: signal.raise_signal(signal.SIGTERM))
        train(config(), run, quiet())
    assert checkpoint.latest(run).name == "epoch-000001-30-3"
    goes_on(whole, run)


def goes_on(whole: Path, run: Path) -> None:
    """The run goes on where it stood, does all that is left and no more, and says that it is another one."""
    resume(run, quiet())
    assert clocks(run) == clocks(whole)
    assert checkpoints(run) == ["epoch-000002", "epoch-000004"]
    assert "off plan" in read_start(run)["continued"]
    assert "off plan" in write_report(run).read_text()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("twohot")]


@pytest.mark.parametrize("moment", ["random play", "a checkpoint"])
def test_a_signal_where_nothing_is_lost_leaves_the_run_exact(
    whole: Path, tmp_path: Path, monkeypatch, moment: str
) -> None:
    run = tmp_path / "run"
    with stops(monkeypatch) as (patch, _):
        if moment == "random play":
            at_call(patch, evaluate._Queue, "follow", 1, lambda: signal.raise_signal(signal.SIGTERM))
        else:
            save = checkpoint.save
            patch.setattr(checkpoint, "save", lambda *a: (signal.raise_signal(signal.SIGTERM), save(*a)))
        train(config(), run, quiet())
    assert moment == "random play" or checkpoints(run) == ["epoch-000002"]
    resume(run, quiet())
    assert agent_bytes(run) == agent_bytes(whole)
    assert rows(run) == rows(whole)
    assert "continued" not in read_start(run)


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_saving_by_the_clock_disturbs_nothing(whole: Path, tmp_path: Path, monkeypatch, storage: str) -> None:
    eager(monkeypatch)
    saved, save = [], checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a: saved.append(save(*a).name))
    run = tmp_path / "run"
    train(config(storage, checkpoint_minutes=1e-9), run, quiet())
    assert {"epoch-000000-1-0", "epoch-000001-30-2", "epoch-000003-0-0"} <= set(saved)
    assert len(set(saved)) == len(saved)
    assert checkpoints(run) == ["epoch-000002", "epoch-000004"]
    assert agent_bytes(run) == agent_bytes(whole)
    assert rows(run) == rows(whole)


def test_without_a_corrupt_unplanned_checkpoint_a_run_is_exact(tmp_path: Path, monkeypatch) -> None:
    """It goes on from the planned one, whose files of the replay are still there, for all that was evicted since."""
    eager(monkeypatch)
    whole, run = tmp_path / "whole", tmp_path / "run"
    small = config("disk", checkpoint_minutes=1e-9)
    small = dataclasses.replace(small, replay=dataclasses.replace(small.replay, capacity_steps=150))
    train(dataclasses.replace(small, checkpoint_minutes=0.0), whole, quiet())

    def die() -> None:
        raise RuntimeError("lights out")

    with stops(monkeypatch, RuntimeError) as (patch, _):
        at_call(patch, Exploration, "__call__", 100, die)
        train(small, run, quiet())
    assert checkpoints(run) == ["epoch-000002", "epoch-000003-9-0"]
    (run / "checkpoints/epoch-000003-9-0/agent.safetensors").write_bytes(b"")
    with pytest.raises(checkpoint.CheckpointError, match="continue from the one before it, epoch-000002"):
        resume(run, quiet())
    for path in (run / "checkpoints/epoch-000003-9-0").iterdir():
        path.unlink()
    (run / "checkpoints/epoch-000003-9-0").rmdir()
    resume(run, quiet(), checkpoint_minutes=0.0)
    assert load_config(run / "config.json").checkpoint_minutes == 0
    assert agent_bytes(run) == agent_bytes(whole)
    assert rows(run) == rows(whole)
    assert "continued" not in read_start(run)


def test_the_older_checkpoint_is_of_use_after_the_newer_was_resumed(tmp_path: Path, monkeypatch) -> None:
    """What the replay had evicted between the two is still on the disk."""
    eager(monkeypatch)
    run, small = tmp_path / "run", config("disk")
    train(dataclasses.replace(small, replay=dataclasses.replace(small.replay, capacity_steps=150)), run, quiet())
    ended = agent_bytes(run)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "loop", lambda self, *how: None)  # as one that is killed at once
        resume(run, quiet(), epochs=EPOCHS + 1)
    shutil.rmtree(run / "checkpoints/epoch-000004")
    resume(run, quiet(), epochs=EPOCHS)
    assert agent_bytes(run) == ended


def test_longer_and_shorter_after_an_unplanned_checkpoint(tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "run"
    with stops(monkeypatch) as (patch, _):
        at_call(patch, Exploration, "__call__", 50, lambda: signal.raise_signal(signal.SIGTERM))
        train(config(), run, quiet())
    with pytest.raises(ConfigurationError, match="at least the 2 that the run has done"):
        resume(run, quiet(), epochs=1)
    resume(run, quiet(), epochs=2)
    resume(run, quiet(), epochs=3)
    assert checkpoints(run) == ["epoch-000002", "epoch-000003"]
    assert "at update" in read_start(run)["continued"]


def test_in_another_thread_no_signal_is_heard(tmp_path: Path) -> None:
    failures = []

    def work() -> None:
        try:
            train(with_epochs(1), tmp_path / "run", quiet())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    assert checkpoints(tmp_path / "run") == ["epoch-000001"]


def test_a_second_signal_goes_where_the_first_would_have_gone() -> None:
    with Interruption() as interruption, interruption.deferred():
        signal.raise_signal(signal.SIGINT)
        assert interruption.heard
        with pytest.raises(KeyboardInterrupt) as stopped:
            signal.raise_signal(signal.SIGINT)
        assert not isinstance(stopped.value, Interrupted)
    with Interruption(), pytest.raises(Interrupted):  # outside of what can be saved, the first ends at once
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_signal_that_nobody_would_have_heard_ends_the_process(monkeypatch) -> None:
    raise_signal, raised = signal.raise_signal, []
    with Interruption() as interruption, interruption.deferred():
        raise_signal(signal.SIGTERM)
        monkeypatch.setattr(signal, "raise_signal", raised.append)  # which would end the tests
        raise_signal(signal.SIGTERM)
        assert raised == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
            assert not interruption.heard
    finally:
        signal.signal(signal.SIGHUP, before)
