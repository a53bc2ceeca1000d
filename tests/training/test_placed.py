"""What Ray places: learners, trials of an evaluation, runs of a study; they die, hear signals and fail."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
from rich.console import Console

from ranks import run_ranks, train_run
from small import CONFIG, agent_bytes, quiet
from twohot.config import ConfigurationError, TrainConfig
from twohot.data.spaces import agent_layout
from twohot.errors import UsageError
from twohot.info import read_start
from twohot.nets.frozen import freeze
from twohot.runs import checkpoint
from twohot.studies import placed_runs
from twohot.studies.placed_runs import PlacedRun, StudyRun, room_for
from twohot.studies.runner import finished_runs, run_missing
from twohot.studies.study import RunKey, load_study
from twohot.training import evaluate, placed_evaluation, placed_learners
from twohot.training.actor_pool import ActorError
from twohot.training.build import make_environments, make_networks
from twohot.training.evaluate import evaluate_all, parts_of
from twohot.training.interruption import Interrupted, Interruption
from twohot.training.placed_evaluation import Player, evaluate_placed
from twohot.training.placed_learners import Learner, place_learners
from twohot.training.progress import Progress
from twohot.training.ranks import LostLearnerError, RankError
from twohot.training.train import resume, train

ray = pytest.importorskip("ray")

ALONE = replace(CONFIG, epochs=6, collect=replace(CONFIG.collect, environments=2))
PLACED = replace(ALONE, learners=2)


@pytest.fixture(scope="module")
def small_ray():
    """Ray on this machine, which the runs of these tests find."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options = {"num_cpus": 4, "num_gpus": 0, "object_store_memory": 80_000_000}
    ray.init("local", **options, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def updates(run: Path) -> int:
    found = checkpoint.latest(run)
    assert found is not None
    return checkpoint.read_state(found)["updates"]


def test_they_are_torchruns_and_a_death_changes_nothing(tmp_path: Path, small_ray: None) -> None:
    run_ranks(tmp_path, {"train": (train_run, ALONE, tmp_path / "torchrun")})
    said, died = io.StringIO(), tmp_path / "died"

    def die_once(end) -> dict[str, int]:
        if end.epoch == 3 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"process": os.getpid()}

    train(PLACED, tmp_path / "ray", Progress(Console(file=said, width=200)), [die_once])
    assert agent_bytes(tmp_path / "ray") == agent_bytes(tmp_path / "torchrun")
    assert updates(tmp_path / "ray") == 6 * CONFIG.updates_per_epoch
    assert read_start(tmp_path / "ray")["learners"] == "2, by Ray"
    assert read_start(tmp_path / "ray")["command"] == shlex.join(sys.orig_argv)
    assert "Learner 0 on " in said.getvalue()
    assert "restart 1 of at most 3" in said.getvalue()
    assert "continued after epoch 2" in said.getvalue()
    assert '"own/process"' in (tmp_path / "ray" / "metrics.jsonl").read_text()


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals reach main threads")
def test_a_signal_saves_learners_with_actors_and_what_one_raises_ends_all(tmp_path: Path, small_ray: None) -> None:
    driver, run = os.getpid(), tmp_path / "run"

    def terminate(end) -> None:
        if end.epoch == 1:
            os.kill(driver, signal.SIGTERM)

    config = replace(PLACED, actors=2)
    with pytest.raises(Interrupted) as interrupted:
        train(config, run, quiet(), [terminate])
    assert interrupted.value.exit_code == 143
    assert 0 < updates(run) < 6 * CONFIG.updates_per_epoch

    def divide(end) -> None:
        raise ZeroDivisionError("of a callback")

    with pytest.raises(ZeroDivisionError, match="of a callback"):
        resume(run, quiet(), callbacks=[divide])


def test_there_are_no_more_restarts_than_asked_for(
    tmp_path: Path, small_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, work = [LostLearnerError(f"{number}") for number in range(9)], []
    monkeypatch.setattr(
        placed_learners._Group, "train", lambda self, *arguments: (work.append(arguments[0]), lost[len(work)])[1]
    )
    config = replace(PLACED, ray=replace(PLACED.ray, max_restarts=2))
    with pytest.raises(LostLearnerError, match="3"):
        place_learners(config, tmp_path / "run", quiet(), print, max)
    assert [cloudpickle.loads(each) for each in work] == [print] * 3  # nothing had begun
    assert not (tmp_path / "run").exists()


def test_what_fails_after_a_signal_is_said_but_the_ends_of_others_are_not() -> None:
    """As where the disk is full when learners save, or where the system ends some of them before they have."""
    group, interruption = object.__new__(placed_learners._Group), Interruption()
    group._ray, group._hosts = ray, ["here", "there"]
    interruption.hear(signal.SIGTERM)
    died, left = ray.exceptions.ActorDiedError(), RankError("another has ended")
    with pytest.raises(OSError, match="no space"):
        group._judged({0: OSError("no space"), 1: left}, interruption)
    for ended in ({0: left}, {0: died}, {0: died, 1: left}, {0: LostLearnerError("it is gone")}, {0: signal.SIGTERM}):
        with pytest.raises(Interrupted):
            group._judged(ended, interruption)
    assert group._judged({0: None, 1: None}, interruption) is None  # all were done already


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 3}, "batch_size: expected a multiple of the 2 learners, got 3"),
        ({"collect": replace(CONFIG.collect, environments=3)}, "collect.environments: expected a multiple of the 2"),
        ({"device": "cuda:1"}, "device: expected auto, cpu or cuda, of which"),
        ({"device": "cuda"}, "learners: 2 need a GPU each, the cluster has 0"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    tmp_path: Path, small_ray: None, changes: dict, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        train(replace(PLACED, **changes), tmp_path / "run", quiet())
    assert not (tmp_path / "run").exists()


def test_learners_of_torchrun_are_not_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="learners: expected 1 under torchrun, which has started 2"):
        train(PLACED, tmp_path / "run", quiet())


def test_callbacks_that_cannot_be_copied_are_refused(tmp_path: Path) -> None:
    lock = threading.Lock()
    with pytest.raises(UsageError, match="callbacks, writers: expected objects that can be copied"):
        train(PLACED, tmp_path / "run", quiet(), [lambda end: lock.acquire()])


def test_actors_are_shared_equally() -> None:
    with pytest.raises(ConfigurationError, match="actors: expected a multiple of the 2 learners, got 3"):
        TrainConfig(actors=3, learners=2)


def test_a_directory_that_a_node_does_not_see_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(ConfigurationError, match=r"runs/mine: a learner on .* does not see"):
        Learner(0, 2).work(b"", str(tmp_path), "runs/mine", ("127.0.0.1", 1), {})


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(5)
    _, environments = make_environments(CONFIG)
    spaces = environments.single_observation_space, environments.single_action_space
    environments.close()
    return make_networks(CONFIG.agent, *spaces, torch.device("cpu"))


ASKED = CONFIG.environment, replace(CONFIG.evaluate, held_out_tasks=("RepeatFirstMedium",))


def test_trials_are_divided_and_those_of_a_dead_actor_are_played_again(
    networks, tmp_path: Path, small_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"layout": agent_layout(*ASKED), "trials": 5, "seed": 3}
    alone = evaluate_all(freeze(networks), *ASKED, greedy=True, **how)
    counts: list[int] = []
    died = tmp_path / "died"

    class Mortal(Player):
        def play(self, part, jobs):
            if not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().play(part, jobs)

    monkeypatch.setattr(placed_evaluation, "Player", Mortal)
    together = evaluate_placed(networks, *ASKED, greedy=True, actors=2, played=counts.append, **how)
    assert died.exists()
    assert sum(counts) == 3 * 5
    assert [(score.task, score.split, score.kind) for score in together] == [
        (score.task, score.split, score.kind) for score in alone
    ]
    for mine, theirs in zip(together, alone, strict=True):
        np.testing.assert_array_equal(mine.lengths, theirs.lengths)
        np.testing.assert_array_equal(mine.returns, theirs.returns)


def test_a_share_is_played_the_same_by_whoever_plays_it(networks, monkeypatch: pytest.MonkeyPatch) -> None:
    streams, seeded = [], evaluate.seeded_generator
    monkeypatch.setattr(
        evaluate, "seeded_generator", lambda seed, *stream: (streams.append(stream), seeded(seed, *stream))[1]
    )
    part, options = parts_of(*ASKED)[0], {"trials": 5, "seed": 3, "layout": None, "step_limit": 99, "greedy": False}
    played = [Player(networks, options).play(part, jobs) for jobs in ([1, 4, 7], [1, 4, 7], [2, 5])]
    first, again, _ = ([trial.attempt_returns.tolist() for trial in trials] for trials in played)
    assert first == again
    assert streams == [(0, 1), (0, 1), (0, 2)]  # of the actions that are sampled


def test_shares_are_all_trials_once() -> None:
    part = parts_of(*ASKED)[0]
    for trials, actors in ((5, 2), (1, 9), (400, 1), (64, 3)):
        shares = placed_evaluation._shares(part, trials, actors)
        assert sorted(job for share in shares for job in share) == list(range(2 * trials))
        assert all(0 < len(share) <= 64 for share in shares)
        assert len(shares) >= min(2 * actors, 2 * trials)


def test_what_a_node_cannot_play_is_said_with_its_name(networks) -> None:
    part = parts_of(replace(ASKED[0], tasks=("Nothing",), reward_multipliers=(1.0,)), CONFIG.evaluate)[0]
    player = Player(networks, {"trials": 1, "seed": 1, "layout": None, "step_limit": 9, "greedy": True})
    with pytest.raises(ActorError, match=r"an actor on .*: there is no popgym task named 'Nothing'"):
        player.play(part, [0])


STUDY = """
summary = "Nothing is learnt."
preset = "dark-key-small"
seeds = [3]

[options]
epochs = 2
updates_per_epoch = 2
warmup_epochs = 0
batch_size = 2
threads = 1
evaluate = {every = 1, trials = 2, final_trials = 3}
collect = {environments = 2, steps_per_epoch = 110, workers = "in-process"}
agent = {width = 16, heads = 2, layers = 1, feed_forward = 16, encoder_hidden = 16, head_hidden = 16}

[settings.two_hot]
agent.critic = "two_hot"

[settings.scalar]
agent.critic = "scalar"
"""


def test_runs_of_a_study_are_placed_and_come_home(
    tmp_path: Path, small_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    study, runs, died = load_study(tmp_path / "study.toml"), tmp_path / "runs", tmp_path / "died"
    (runs / "two_hot-3").mkdir(parents=True)
    (runs / "two_hot-3/something").write_text("of somebody else")

    class Mortal(StudyRun):
        def work(self, config, key, *arguments):
            if str(key) == "scalar-3" and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().work(config, key, *arguments)

    monkeypatch.setattr(placed_runs, "StudyRun", Mortal)
    assert room_for(study) == 4
    screen = io.StringIO()
    failed = run_missing(study, study.runs, runs, 2, Console(file=screen, width=400), PlacedRun)
    assert died.exists()
    assert failed == [RunKey("two_hot", 3)]
    assert "expected a new or an empty directory" in screen.getvalue()
    assert finished_runs(study) == {RunKey("scalar", 3)}
    assert read_start(runs / "scalar-3")["command"] == shlex.join(sys.orig_argv)


def test_a_placed_run_hears_a_signal(tmp_path: Path, small_ray: None) -> None:
    (tmp_path / "study.toml").write_text(STUDY.replace("epochs = 2", "epochs = 999").replace("every = 1", "every = 99"))
    study, runs, key = load_study(tmp_path / "study.toml"), tmp_path / "runs", RunKey("scalar", 3)
    runs.mkdir()
    metrics, deadline = runs / "scalar-3" / "metrics.jsonl", time.monotonic() + 300
    child = PlacedRun(study, key, runs)
    while not (metrics.is_file() and metrics.read_bytes().count(b"\n") > 3) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.05)
    child.pass_on(signal.SIGTERM)
    while (code := child.poll()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert code == 143
    assert finished_runs(study) == set()
    assert checkpoint.latest(runs / "scalar-3") is not None
