"""The whole loop: it learns, it repeats itself bit for bit, and it survives SIGKILL."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import forked
from broken_env import Broken
from small import CONFIG, agent_bytes, quiet, with_epochs
from twohot import Agent
from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import load_config, save_config
from twohot.data.rollout import Rollout
from twohot.envs import NonFiniteError, Suite, register, registered_suites
from twohot.inference.agent import load_networks
from twohot.learning.learner import NonFiniteLossError
from twohot.nets.frozen import FrozenPolicy, freeze
from twohot.replay import Replay
from twohot.runs import checkpoint
from twohot.runs import replay as run_replay
from twohot.runs.checkpoint import CheckpointError
from twohot.runs.metrics import read_metrics
from twohot.training.train import Session, resume, train


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of 8 epochs that nobody interrupted."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(with_epochs(8), run, quiet())
    return run


def rows_without_clocks(run: Path) -> list:
    timed = ("per_second", "time/")
    return [
        (
            row.kind,
            row.environment_steps,
            row.updates,
            {k: v for k, v in row.metrics.items() if not any(t in k for t in timed)},
        )
        for row in read_metrics(run)
    ]


def test_the_same_seed_gives_the_same_run(whole: Path, tmp_path: Path) -> None:
    train(with_epochs(8), tmp_path / "again", quiet())
    assert agent_bytes(tmp_path / "again") == agent_bytes(whole)
    assert rows_without_clocks(tmp_path / "again") == rows_without_clocks(whole)


def test_a_replay_on_disk_gives_the_same_run_and_forgets_the_same(whole: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(run_replay, "SEGMENT_BYTES", 2000)
    run = tmp_path / "disk"
    train(on_disk(with_epochs(8)), run, quiet())
    assert agent_bytes(run) == agent_bytes(whole)
    assert rows_without_clocks(run) == rows_without_clocks(whole)
    assert not list(run.glob("checkpoints/*/replay*"))
    names = sorted(path.stem for path in (run / "replay").glob("*.data"))
    assert not any(name.endswith("-00000000") for name in names)
    with Replay.open(run / "replay") as replay:
        assert replay.stats().steps <= with_epochs(8).replay.capacity_steps
        assert replay.verify() == []
    oldest = min((run / "checkpoints").iterdir())
    saved = json.loads((oldest / "state.json").read_text())["replay"]
    assert set(saved["position"]) <= set(names)


def test_another_seed_gives_another_run(whole: Path, tmp_path: Path) -> None:
    train(dataclasses.replace(with_epochs(8), seed=1), tmp_path / "other", quiet())
    assert agent_bytes(tmp_path / "other") != agent_bytes(whole)


def on_disk(config: TrainConfig) -> TrainConfig:
    """`config` with its replay on disk."""
    return dataclasses.replace(config, replay=dataclasses.replace(config.replay, storage="disk"))


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_killed_at_random_moments_and_resumed_ends_with_the_same_weights(
    whole: Path, tmp_path: Path, storage: str
) -> None:
    run, kills = tmp_path / "killed", 0
    config = on_disk(with_epochs(8)) if storage == "disk" else with_epochs(8)
    metrics = run / "metrics.jsonl"
    for _ in range(3):
        size = metrics.stat().st_size if metrics.exists() else -1
        process = forked.training(config, run)
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and process.is_alive():
            if metrics.exists() and metrics.stat().st_size != size:
                break
            time.sleep(0.002)
        delay = random.SystemRandom().uniform(0.0, 0.5)
        print(f"killed {delay:.3f} s after the first row")
        time.sleep(delay)
        kills += process.is_alive()
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    assert kills > 0
    resume(run, quiet())
    assert agent_bytes(run) == agent_bytes(whole)
    assert rows_without_clocks(run) == rows_without_clocks(whole)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_a_checkpoint_is_written(whole: Path, tmp_path: Path, moment: str) -> None:
    run = tmp_path / "killed"
    process = forked.training(with_epochs(8), run, (moment, "epoch-000004"))
    process.join(600)
    assert process.exitcode == -signal.SIGKILL
    assert checkpoint.latest(run).name == ("epoch-000002" if moment == "before" else "epoch-000004")
    resume(run, quiet())
    assert agent_bytes(run) == agent_bytes(whole)
    assert rows_without_clocks(run) == rows_without_clocks(whole)


def test_made_longer_at_a_checkpoint(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "stopped"
    train(with_epochs(4), run, quiet())
    resume(run, quiet(), epochs=8)
    assert load_config(run / "config.json").epochs == 8
    assert agent_bytes(run) == agent_bytes(whole)


def test_the_evaluation_disturbs_nothing(whole: Path, tmp_path: Path) -> None:
    config = with_epochs(8)
    more = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, every=1, trials=1))
    train(more, tmp_path / "more", quiet())
    assert agent_bytes(tmp_path / "more") == agent_bytes(whole)


def test_metrics_cover_every_part(whole: Path) -> None:
    rows = read_metrics(whole)
    assert [row.kind for row in rows[:3]] == ["random", "collect", "update"]
    assert sum(row.kind == "evaluation" for row in rows) == 4
    last = {kind: next(row for row in reversed(rows) if row.kind == kind).metrics for kind in ("collect", "update")}
    names = {
        "loss/total",
        "loss/actor",
        "loss/critic",
        "gradient/norm",
        "filter/pass_rate",
        "policy/entropy",
        "value/bin_histogram",
        "time/collect_share",
        "time/update_share",
        "replay/steps",
    }
    assert names <= set(last["update"])
    assert sum(last["update"]["value/bin_histogram"]) == pytest.approx(1, abs=1e-4)
    assert len(last["update"]["value/bin_centers"]) == CONFIG.agent.bins.count
    assert {"collect/trials", "collect/epsilon", "collect/steps_per_second"} <= set(last["collect"])
    shares = [last["update"][f"time/{phase}_share"] for phase in ("collect", "sample", "update", "evaluate")]
    assert all(share >= 0 for share in shares)
    assert 0.5 < sum(shares) <= 1
    assert [row.seconds for row in rows] == sorted(row.seconds for row in rows)


@pytest.mark.parametrize("memory", ["gru", "set"])
def test_other_memories_and_predictions_resume_bit_for_bit_whatever_is_evaluated(memory: str, tmp_path: Path) -> None:
    changes = {
        "agent": dataclasses.replace(CONFIG.agent, memory=memory, latent_steps=7),
        "objective": dataclasses.replace(CONFIG.objective, prediction_weight=0.5),
    }
    train(dataclasses.replace(with_epochs(4), **changes), tmp_path / "whole", quiet())
    often = dataclasses.replace(CONFIG.evaluate, every=1)
    train(dataclasses.replace(with_epochs(2), **changes, evaluate=often), tmp_path / "run", quiet())
    resume(tmp_path / "run", quiet(), epochs=4)
    assert agent_bytes(tmp_path / "run") == agent_bytes(tmp_path / "whole")
    metrics = next(row.metrics for row in reversed(read_metrics(tmp_path / "run")) if row.kind == "update")
    kl = {"trajectory_encoder/kl"} if memory == "set" else set()
    added = {name.removeprefix("loss/") for name in metrics if name.count("/") > 1 and name.startswith("loss/")}
    assert added == {"prediction/reward", "prediction/observation", *kl}
    agent = Agent.from_checkpoint(tmp_path / "run")
    observation, _ = agent.make_environments(2).reset(seed=0)
    agent.reset(2)
    assert agent.act(observation).shape == (2,)


def test_a_loaded_agent_acts(whole: Path) -> None:
    config, agent = load_networks(whole)
    policy = freeze(agent)
    state = policy.initial_state(5)
    for _ in range(3):
        action = policy.act(
            state,
            {"observation": torch.zeros(5, *agent.observation_space["observation"].shape)},
            torch.zeros(5, dtype=torch.int64),
            torch.zeros(5),
            generator=torch.Generator().manual_seed(0),
        )
        assert action.shape == (5,)
        assert int(action.max()) < agent.action_space.n
    assert config == load_config(whole / "config.json")


def test_each_collection_and_evaluation_acts_with_the_weights_of_its_time(tmp_path: Path, monkeypatch) -> None:
    sessions, collected, evaluated = [], [], []

    def answer(policy) -> torch.Tensor:
        (size,) = sessions[0].agent.observation_space["observation"].shape
        given = {"observation": torch.ones(2, size)}, torch.zeros(2, dtype=torch.int64), torch.ones(2)
        return policy.encode_step(policy.initial_state(2), *given)

    def note(answers: list, policy) -> None:
        answers.append(answer(policy))
        assert torch.equal(answers[-1], answer(freeze(sessions[0].agent)))

    class Watched(Session):
        def __init__(self, *arguments) -> None:
            sessions.append(self)
            super().__init__(*arguments)

        def _play(self, policy, **options):
            if isinstance(policy, FrozenPolicy):
                note(evaluated, policy)
            return super()._play(policy, **options)

    def collect(rollout: Rollout, *arguments):
        if rollout is getattr(sessions[0], "rollout", None):
            note(collected, rollout.policy)
        return collecting(rollout, *arguments)

    collecting = Rollout.collect
    monkeypatch.setattr(Rollout, "collect", collect)
    monkeypatch.setattr("twohot.training.train.Session", Watched)
    train(with_epochs(4), tmp_path / "watched", quiet())
    assert (len(collected), len(evaluated)) == (4, 2)
    for answers in (collected, evaluated):
        assert not any(torch.equal(before, after) for before, after in itertools.pairwise(answers))


def test_a_directory_with_a_run_is_not_written_over(whole: Path) -> None:
    before = agent_bytes(whole)
    with pytest.raises(ConfigurationError, match=r"holds a run already; continue it with"):
        train(with_epochs(1), whole, quiet())
    assert agent_bytes(whole) == before


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(with_epochs(2), run, quiet())
    config = load_config(run / "config.json")
    save_config(dataclasses.replace(config, agent=dataclasses.replace(config.agent, width=32)), run / "config.json")
    with pytest.raises(CheckpointError, match=r"agent\.width = 16, this run has 32"):
        resume(run, quiet())


def test_a_corrupt_checkpoint_is_refused_and_the_one_before_serves(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    train(with_epochs(4), run, quiet())
    newest = checkpoint.latest(run)
    file = newest / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: corrupt"):
        resume(run, quiet(), epochs=8)
    file.write_bytes(b"")
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    resume(run, quiet(), epochs=8)
    assert agent_bytes(run) == agent_bytes(whole)


def test_an_exploding_loss_ends_in_a_sentence(tmp_path: Path) -> None:
    config = dataclasses.replace(
        with_epochs(2), optimizer=dataclasses.replace(CONFIG.optimizer, learning_rate=1e30, warmup_updates=0)
    )
    with pytest.raises(NonFiniteLossError, match=r"update \d+: .* lower --optimizer.learning-rate"):
        train(config, tmp_path / "run", quiet())


def test_a_nan_from_an_environment_ends_in_a_sentence(tmp_path: Path, monkeypatch) -> None:
    if "broken" not in registered_suites():
        register(Suite("broken", "turns NaN", (), "", ("after_three",), lambda task, split, render: Broken()))
    environment = dataclasses.replace(CONFIG.environment, suite="broken", tasks=("after_three",), reward_multipliers=())
    with pytest.raises(NonFiniteError, match="after_three"):
        train(dataclasses.replace(CONFIG, environment=environment), tmp_path / "run", quiet())


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"device: expected .* got 'abacus'"):
        train(dataclasses.replace(CONFIG, device="abacus"), tmp_path / "run", quiet())


def test_the_saved_configuration_is_the_resolved_one(whole: Path) -> None:
    data = json.loads((whole / "config.json").read_text())
    assert data["device"] == "cpu"
    assert data["threads"] == 1


def test_it_learns_to_remember(tmp_path: Path) -> None:
    """RepeatFirstEasy asks for the first of 52 cards: without memory no policy exceeds -0.5 on average."""
    config = dataclasses.replace(
        CONFIG,
        seed=2,
        epochs=6,
        updates_per_epoch=60,
        batch_size=16,
        window=52,
        checkpoint_every=6,
        environment=dataclasses.replace(CONFIG.environment, tasks=("RepeatFirstEasy",), reward_multipliers=(10.0,)),
        agent=dataclasses.replace(CONFIG.agent, width=32, heads=2, feed_forward=64, encoder_hidden=32, head_hidden=32),
        objective=dataclasses.replace(CONFIG.objective, action_samples=0, target_action_samples=0, target_rate=0.02),
        optimizer=dataclasses.replace(CONFIG.optimizer, learning_rate=2e-3, warmup_updates=20),
        collect=dataclasses.replace(CONFIG.collect, environments=16, steps_per_epoch=52, epsilon_steps=4000),
        evaluate=dataclasses.replace(CONFIG.evaluate, every=6, final_trials=32),
        replay=dataclasses.replace(CONFIG.replay, capacity_steps=100_000),
    )
    train(config, tmp_path / "run", quiet())
    final = [row for row in read_metrics(tmp_path / "run") if row.kind == "evaluation"][-1].metrics
    assert np.isfinite(final["evaluation/return/RepeatFirstEasy"])
    assert final["evaluation/return/RepeatFirstEasy"] > -0.2


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_a_run_that_could_not_begin_is_in_nobodys_way(storage, monkeypatch, tmp_path) -> None:
    """As where actors find no cluster, or lack the suite: the same line is given again, with other settings."""
    config, run = dataclasses.replace(CONFIG, epochs=1), tmp_path / "run"
    config = dataclasses.replace(config, replay=dataclasses.replace(config.replay, storage=storage))

    def refuse(self, steps: int = 0) -> Rollout:
        raise ConfigurationError("no such node")

    with monkeypatch.context() as patched:
        patched.setattr(Session, "_make_rollout", refuse)
        with pytest.raises(ConfigurationError, match="no such node"):
            train(config, run, quiet())
    assert not {"config.json", "replay"} & {path.name for path in run.iterdir()}
    train(dataclasses.replace(config, seed=7), run, quiet())
    assert load_config(run / "config.json").seed == 7
