"""A learner and its actors in processes of Ray's, which is started here: they do together what one process does."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.cases.beside import LENGTH, VECTOR, Beside, Offer, fake_config
from bench.harness.group import ROOT
from small import CONFIG, quiet
from twohot.cli.main import main
from twohot.config import ConfigurationError, EnvironmentConfig, RayConfig
from twohot.envs import BrokenEnvironmentError
from twohot.replay import Replay
from twohot.runs import checkpoint
from twohot.training import cluster
from twohot.training.interruption import Interrupted
from twohot.training.train import resume, train

ACTORS = replace(
    CONFIG,
    actors=2,
    collect=replace(CONFIG.collect, environments=4),
    replay=replace(CONFIG.replay, storage="disk", capacity_steps=100_000),
)
STEPS = ACTORS.epochs * ACTORS.collect.environments * ACTORS.collect.steps_per_epoch


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    import ray

    before = dict(os.environ)
    paths = str(ROOT), str(Path(__file__).parents[1] / "helpers")
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(paths)}
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=100 << 20,
    )
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def run(ray, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("actors") / "run"
    train(ACTORS, path, quiet())
    return path


def rows(run: Path, kind: str) -> list[dict]:
    return [row for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if row["kind"] == kind]


def stored(run: Path) -> Replay:
    return Replay.open(run / "replay", "read", capacity_steps=10**9)


def newest(run: Path) -> Path:
    found = checkpoint.latest(run)
    assert found is not None
    return found


def test_all_steps_and_updates_are_done(run) -> None:
    last = rows(run, "update")[-1]
    assert last["updates"] == ACTORS.epochs * ACTORS.updates_per_epoch
    assert last["environment_steps"] == STEPS
    with stored(run) as replay:
        assert 0 < replay.stats().steps <= STEPS  # open trials are not stored
        assert set(replay.tasks().tolist()) == {0, 1}


def test_rows_say_how_the_actors_are(run) -> None:
    found = rows(run, "collect")
    assert sum(row["metrics"].get("collect/trials", 0) for row in found) > 0
    last = found[-1]["metrics"]
    assert {f"actors/steps_per_second/{actor}" for actor in range(2)} <= set(last)
    assert last["actors/updates_per_step"] == pytest.approx(ACTORS.epochs * ACTORS.updates_per_epoch / STEPS, rel=1e-12)
    for row in found:
        assert 0 <= row["metrics"]["actors/learner_wait_share"] <= 1
        assert row["metrics"]["actors/restarts"] == 0
    assert max(row["metrics"].get("actors/max_lag", 0) for row in found) <= ACTORS.ray.max_lag
    assert any(row["metrics"]["actors/received_per_second"] > 0 for row in found)


def test_the_run_says_that_it_had_actors(run) -> None:
    assert "2, by Ray" in json.loads((run / "run.json").read_text())["actors"]


def test_the_report_draws_them(run) -> None:
    assert main(["report", str(run)]) == 0
    assert "actors/max_lag" in (run / "report.html").read_text()


def test_a_run_that_is_interrupted_goes_on_with_other_actors(ray, tmp_path) -> None:
    path = tmp_path / "run"
    longer = replace(ACTORS, epochs=200, evaluate=replace(ACTORS.evaluate, every=1000))
    timer = threading.Thread(target=_signal_when, args=(path, 2), daemon=True)
    timer.start()
    with pytest.raises(Interrupted):
        train(longer, path, quiet())
    timer.join()
    state = checkpoint.read_state(newest(path))
    with stored(path) as replay:
        before = replay.ids().tolist()
        steps = replay.stats().steps
    assert state["environment_steps"] >= steps
    resume(path, quiet(), epochs=state["epoch"] + 2, actors=1)
    assert rows(path, "update")[-1]["updates"] == (state["epoch"] + 2) * ACTORS.updates_per_epoch
    with stored(path) as replay:
        assert replay.ids().tolist()[: len(before)] == before
    assert json.loads((path / "config.json").read_text())["actors"] == 1


def _signal_when(run: Path, checkpoints: int) -> None:
    until = time.monotonic() + 120
    while len(list(run.glob("checkpoints/epoch-*"))) < checkpoints:
        if time.monotonic() > until:
            return
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


def test_what_was_committed_after_the_checkpoint_stays(run, ray, tmp_path) -> None:
    """As where the learner is killed between two checkpoints."""
    path = tmp_path / "run"
    train(replace(ACTORS, epochs=2), path, quiet())
    count, before = checkpoint.read_state(newest(path))["environment_steps"], stored(path)
    ids = before.ids().tolist()
    with Replay.open(path / "replay", "append", capacity_steps=10**9, keep_evicted=True) as replay:
        later = replay.add(**before.get(ids[0]) | {"reward": np.full(before.lengths()[0], 7.0, np.float32)})
    before.close()
    resume(path, quiet(), epochs=3)
    with stored(path) as replay:
        assert (replay.get(later)["reward"] == 7).all()
        length = len(replay.get(later)["reward"])
    assert rows(path, "collect")[-1]["environment_steps"] >= count + length


def test_environments_that_fail_end_the_run_with_a_sentence(ray, tmp_path) -> None:
    environment = EnvironmentConfig(suite="gym", tasks=("broken_env:Broken-v0",))  # broken in its third step
    with pytest.raises(BrokenEnvironmentError, match="expected finite observations"):
        train(replace(ACTORS, environment=environment), tmp_path / "run", quiet())


def test_trials_longer_than_the_capacity_are_said_to_be(ray, tmp_path) -> None:
    small = replace(ACTORS, replay=replace(ACTORS.replay, capacity_steps=60), window=16)
    environment = replace(ACTORS.environment, tasks=("RepeatFirstMedium",), reward_multipliers=())  # 415 steps
    with pytest.raises(ConfigurationError, match=r"replay\.capacity_steps: too small for one trial"):
        train(replace(small, environment=environment), tmp_path / "run", quiet())


def test_the_bench_has_actors_that_play_nothing(ray) -> None:
    with Beside(fake_config("quickstart", 2, 20_000), VECTOR, Offer(calls=10.0, trajectories=2)) as beside:
        beside.fill()
        found = beside.rates(1.0, learns=True, collects=True)
        assert set(beside.replay.lengths().tolist()) == {LENGTH}
    assert min(found["steps"], found["bytes"], found["calls"], found["updates"]) > 0


def test_a_cluster_with_too_few_cpus_is_refused(ray, tmp_path) -> None:
    config = replace(ACTORS, ray=RayConfig(address="auto", cpus_per_actor=64.0))
    with pytest.raises(ConfigurationError, match="2 with 64 CPUs each need 128 CPUs, the cluster has 4"):
        train(config, tmp_path / "run", quiet())


def test_no_cluster_at_the_address(monkeypatch, tmp_path) -> None:
    import ray as module

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(module, "is_initialized", lambda: False)
    found = pytest.raises(ConfigurationError, match=f"ray: no cluster can be joined at '{address}'")
    with found, cluster.cluster(replace(ACTORS, ray=RayConfig(address=address))):
        pass


def test_without_ray_the_command_says_what_to_install(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert main(["train", "gym-small", "--actors", "2", "--run", str(tmp_path / "run")]) == 1
    assert "[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.json").exists()
