"""Several learners of one run: they learn the same, save together, end together, and go on together."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import distributed

import ranks
from forked import CONTEXT
from small import CONFIG, agent_bytes, quiet
from twohot.config import ConfigurationError
from twohot.info import START_NAME
from twohot.replay import Replay
from twohot.runs import checkpoint
from twohot.runs.ownership import OWNER_NAME
from twohot.training.ranks import Ranks, is_first
from twohot.training.train import resume

TWO = replace(CONFIG, collect=replace(CONFIG.collect, environments=4, assignment="fixed"))
ON_DISK = replace(TWO, replay=replace(TWO.replay, storage="disk"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Runs of two ranks, and what each rank of each call ended with, in the same two processes."""
    directory = tmp_path_factory.mktemp("runs")
    names = "whole", "resumed", "ended", "disk", "unlike", "failed"
    whole, resumed, ended, disk, unlike, failed = (directory / name for name in names)
    calls = {
        "whole": (ranks.train_run, TWO, whole),
        "half": (ranks.train_run, replace(TWO, epochs=2), resumed),
        "resumed": (ranks.train_run, TWO, resumed),
        "ended": (ranks.train_run, TWO, ended, (1, 5)),
        "continued": (ranks.train_run, TWO, ended),
        "disk, half": (ranks.train_run, replace(ON_DISK, epochs=2), disk),
        "disk": (ranks.train_run, ON_DISK, disk),
        "unlike": (ranks.train_run, TWO, unlike, None, {1: {"seed": 5}}),
        "failed": (ranks.train_run, ON_DISK, failed, None, None, 1),
        "again": (ranks.train_run, TWO, directory),
    }
    (directory / "stray").write_text("")
    said = ranks.run_ranks(tmp_path_factory.mktemp("ranks"), calls)
    return {"said": said, **{name: directory / name for name in names}}


def newest(run: Path) -> Path:
    found = checkpoint.latest(run)
    assert found is not None
    return found


def test_each_has_actors_a_replay_and_random_numbers_of_its_own(runs) -> None:
    path = newest(runs["whole"])
    first, second = (Replay.load(path / f"{name}.safetensors") for name in ("replay", "replay-1"))
    assert all(0 < replay.stats().steps <= CONFIG.replay.capacity_steps // 2 for replay in (first, second))
    tasks = [set(replay.sample(32, 4).task.tolist()) for replay in (first, second)]
    assert tasks == [{0, 1}, {0, 1}]  # two actors of four, dealt out in turn
    assert first.sample(8, 4).action.tolist() != second.sample(8, 4).action.tolist()
    mine, other = (load_file(path / f"{name}.safetensors") for name in ("random", "random-1"))
    assert all(mine[name].tolist() != other[name].tolist() for name in mine)


def test_what_is_counted_is_that_of_all(runs) -> None:
    rows = [json.loads(line) for line in (runs["whole"] / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "update"][-1]
    assert last["environment_steps"] == TWO.epochs * TWO.collect.environments * TWO.collect.steps_per_epoch
    assert last["updates"] == TWO.epochs * TWO.updates_per_epoch
    assert json.loads((runs["whole"] / "config.json").read_text())["batch_size"] == TWO.batch_size
    assert "2" in json.loads((runs["whole"] / "run.json").read_text())["learners"]


@pytest.mark.parametrize("name", ["resumed", "disk"])
def test_a_resumed_run_ends_with_the_same_weights(runs, name) -> None:
    assert agent_bytes(runs[name]) == agent_bytes(runs["whole"])


def test_all_end_together_where_one_hears_a_signal_and_go_on(runs) -> None:
    for said in runs["said"]:
        assert said["ended"].startswith("Interrupted")
        assert said["continued"] == ""
    state = checkpoint.read_state(newest(runs["ended"]))
    assert (state["updates"], state["continued"]) == (TWO.epochs * TWO.updates_per_epoch, [5])


def test_ranks_that_do_not_go_together_are_told(runs) -> None:
    first, second = runs["said"]
    assert "seed: rank 1 was started with 5, the first rank with 0" in second["unlike"]
    assert first["again"].startswith("ConfigurationError")
    assert "the first rank: " in second["again"]
    assert "expected a new or an empty directory" in second["again"]


def test_where_one_cannot_begin_none_does_and_nothing_is_left(runs) -> None:
    first, second = runs["said"]
    assert first["failed"] == "RankError: no room here"
    assert second["failed"] == "ConfigurationError: no room here"
    assert {path.name for path in runs["failed"].iterdir()} <= {OWNER_NAME, START_NAME}


def test_another_number_of_learners_is_refused(runs) -> None:
    with pytest.raises(checkpoint.CheckpointError, match=r"written by 2 learners.*with 1"):
        resume(runs["whole"], quiet(), epochs=8)


def test_the_same_processes_make_a_second_run() -> None:
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    results = CONTEXT.Queue()
    processes = [CONTEXT.Process(target=ranks.join_twice, args=(rank, store.port, results)) for rank in range(2)]
    for process in processes:
        process.start()
    said = sorted(results.get(timeout=120) for _ in range(4))
    for process in processes:
        process.join()
    assert said == [(0, "0"), (0, "1"), (1, "0"), (1, "1")]


def test_a_variable_of_this_name_alone_is_not_torchruns(monkeypatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert is_first()
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert not is_first()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(TWO, batch_size=5), "batch_size: expected a multiple of the 2 learners, got 5"),
        (CONFIG, "collect.environments: expected a multiple of the 2 learners, got 3"),
        (replace(TWO, optimizer=replace(TWO.optimizer, accumulation_steps=4)), "expected a divisor of 2"),
        (replace(TWO, replay=replace(TWO.replay, capacity_steps=100)), "60 steps for each of the 2 learners"),
    ],
    ids=["batch", "actors", "microbatches", "replay"],
)
def test_what_cannot_be_divided_is_named(config, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Ranks(size=2).part(config)
