"""Runs with tasks of several suites: trained, resumed bit for bit, evaluated, acting; and what is refused."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import twohot
from layout_suite import OWN
from small import CONFIG, agent_bytes, quiet
from twohot import envs
from twohot.cli.main import main
from twohot.config import CollectConfig, ConfigurationError, EnvironmentConfig, ReplayConfig
from twohot.config.files import load_config
from twohot.data.domains import apportion, domains_of, without_missing
from twohot.data.rollouts import Rollouts
from twohot.envs import MissingExtraError, Suite, UnknownEnvironmentError
from twohot.inference.errors import ActingError
from twohot.learning.learner import Learner
from twohot.learning.mixed_batch import MixedBatch
from twohot.runs import checkpoint
from twohot.runs import replay as run_replay
from twohot.runs.metrics import read_metrics
from twohot.training.interruption import Interrupted
from twohot.training.mixed_session import MixedSession
from twohot.training.train import resume, train

TASKS = ("toys:vector-choice-discrete", "popgym:RepeatFirstEasy", "toys:vector-tokens-box", "popgym:HigherLowerEasy")
MIXED = replace(
    CONFIG,
    environment=EnvironmentConfig(tasks=TASKS, reward_multipliers=(0.01, 1000.0, 2.0, 3.0)),
    collect=CollectConfig(environments=5, steps_per_epoch=60, epsilon_steps=500, workers="in-process"),
)
ABSENT = Suite("absent", "Not here.", ("no_such_module",), "pip install absent", ("a", "b"), OWN.make)


@pytest.fixture(autouse=True, scope="module")
def _suites():
    """Suites of the tests: "toys" with several domains, and one that is not installed."""
    found = envs.registered_suites()
    for suite in (replace(OWN, name="toys"), ABSENT):
        if suite.name not in found:
            envs.register(suite)
    yield
    from twohot.envs import registry

    for name in ("toys", "absent"):
        registry._SUITES.pop(name, None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, _suites) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    train(MIXED, run, quiet())
    return run


def with_storage(storage: str, **changes):
    return replace(MIXED, replay=replace(MIXED.replay, storage=storage), **changes)


def test_tasks_of_one_suite_share_a_domain_where_their_spaces_go_together() -> None:
    domains = domains_of(MIXED)
    assert [(domain.name, list(domain.tasks.values())) for domain in domains] == [
        ("toys", ["toys:vector-choice-discrete"]),
        ("toys-2", ["toys:vector-tokens-box"]),
        ("popgym", ["popgym:RepeatFirstEasy", "popgym:HigherLowerEasy"]),
    ]
    assert [domain.config.environment.reward_multipliers for domain in domains] == [(0.01,), (2.0,), (1000.0, 3.0)]
    assert [domain.config.collect.environments for domain in domains] == [1, 1, 3]
    assert [domain.config.replay.capacity_steps for domain in domains] == [250, 250, 500]
    assert [domain.config.collect.epsilon_steps for domain in domains] == [100, 100, 300]


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [(24, [1, 1, 1, 1], [6] * 4), (24, [1, 1, 1, 1, 1], [5, 5, 5, 5, 4]), (10, [1, 9], [1, 9]), (4, [1, 1000], [1, 3])],
)
def test_parts_are_in_proportion_and_none_is_empty(total, weights, parts) -> None:
    assert apportion(total, weights) == parts


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_resumed_at_a_checkpoint_ends_with_the_same_weights(whole: Path, tmp_path: Path, monkeypatch, storage) -> None:
    monkeypatch.setattr(run_replay, "SEGMENT_BYTES", 2000)
    run = tmp_path / "run"
    train(with_storage(storage, epochs=2), run, quiet())
    assert agent_bytes(run) != agent_bytes(whole)
    resume(run, quiet(), 4)
    assert agent_bytes(run) == agent_bytes(whole)
    mine, theirs = (
        [row.metrics["gradient/norm"] for row in read_metrics(each) if row.kind == "update"] for each in (run, whole)
    )
    assert mine == theirs
    if storage == "disk":
        assert {path.name for path in run.glob("replay-*")} == {"replay-toys", "replay-toys-2", "replay-popgym"}


def test_in_processes_it_is_the_same_run(whole: Path, tmp_path: Path) -> None:
    apart = replace(MIXED, collect=replace(MIXED.collect, workers="processes"))
    run = tmp_path / "run"
    train(replace(apart, epochs=2), run, quiet())
    resume(run, quiet(), 4)
    assert agent_bytes(run) == agent_bytes(whole)


@pytest.mark.parametrize(("owner", "name", "number"), [(Rollouts, "collect", 3), (Learner, "step", 5)])
def test_a_signal_leaves_a_checkpoint_from_which_it_goes_on(owner, name, number, tmp_path, monkeypatch, whole) -> None:
    run, calls, method = tmp_path / "run", [], getattr(owner, name)

    def signalled(self, *arguments, **options):
        calls.append(0)
        if len(calls) == number:
            signal.raise_signal(signal.SIGTERM)
        return method(self, *arguments, **options)

    monkeypatch.setattr(owner, name, signalled)
    with pytest.raises(Interrupted):
        train(MIXED, run, quiet())
    state = checkpoint.read_state(checkpoint.latest(run))
    assert state["unplanned"] is not None
    resume(run, quiet())
    rows = read_metrics(run)
    assert rows[-1].updates == read_metrics(whole)[-1].updates
    assert rows[-1].environment_steps == 4 * 60 * 5


def test_metrics_name_tasks_with_their_suites(whole: Path) -> None:
    metrics = {name: value for row in read_metrics(whole) for name, value in row.metrics.items()}
    for task in TASKS:
        for kind in ("random/return", "evaluation/return", "filter/pass_rate"):
            assert f"{kind}/{task}" in metrics
        assert f"collect/success/{task}" in metrics or task.startswith("popgym")
    assert (
        metrics["collect/return/toys:vector-choice-discrete"] == metrics["collect/return/toys:vector-tokens-box"] == 3
    )
    assert metrics["value/target_min"] <= metrics["value/target_mean"] <= metrics["value/target_max"]
    report = twohot.Run(whole).report().read_text()
    assert all(task.replace(":", ":<wbr>") in report or task in report for task in TASKS)
    assert set(twohot.Run(whole).scores) == set(TASKS)


@pytest.mark.parametrize(
    ("balance", "rows"),
    [("task", {"toys": 2, "toys-2": 2, "popgym": 4}), ("suite", {"toys": 2, "toys-2": 2, "popgym": 4}), ("step", None)],
)
def test_each_domain_has_its_rows_of_a_batch(balance, rows, tmp_path, monkeypatch) -> None:
    seen: list[MixedBatch] = []
    step = Learner.step_with_parts
    monkeypatch.setattr(Learner, "step_with_parts", lambda self, batch: (seen.append(batch), step(self, batch))[1])
    config = replace(MIXED, epochs=1, batch_size=8, replay=replace(MIXED.replay, balance=balance))
    train(config, tmp_path / "run", quiet())
    found = {name: len(batch.mask) for name, batch in seen[0].parts.items()}
    if rows is None:  # a step each of one, one and three environments, but for what is not finished
        assert found["popgym"] > found["toys"] == found["toys-2"] >= 1
        assert sum(found.values()) == 8
    else:
        assert found == rows


def test_balance_by_suite_is_not_by_task(tmp_path) -> None:
    tasks = (*TASKS, "popgym:RepeatPreviousEasy", "popgym:CountRecallEasy")
    domains = {domain.name: domain for domain in domains_of(replace(MIXED, environment=EnvironmentConfig(tasks=tasks)))}
    experience = MixedSession._make_experience.__get__(type("Session", (), {"config": MIXED, "domains": domains})())()
    shares = {}
    for experience._balance in ("task", "suite"):
        shares[experience._balance] = apportion(12, experience._weights(dict.fromkeys(domains)))
    assert shares == {"task": [2, 2, 8], "suite": [3, 3, 6]}


def test_it_is_evaluated_and_filmed_domain_by_domain(whole: Path, tmp_path: Path, capsys) -> None:
    result = tmp_path / "result.json"
    assert main(["evaluate", str(whole), "--trials", "2", "--json", str(result)]) == 0
    tasks = json.loads(result.read_text())["tasks"]
    assert {each["task"]: each["return"]["mean"] for each in tasks}["toys:vector-choice-discrete"] == 3
    assert {each["task"] for each in tasks} == set(TASKS)
    two = ["toys:vector-tokens-box", "popgym:HigherLowerMedium"]
    assert main(["evaluate", str(whole), "--trials", "2", "--json", str(result), "--tasks", *two]) == 0
    assert {each["task"] for each in json.loads(result.read_text())["tasks"]} == set(two)
    assert main(["evaluate", str(whole), "--tasks", "toys:vector-mask_binary-multi_binary"]) != 0
    assert "--tasks: expected tasks that fit the spaces" in capsys.readouterr().err


def test_the_agent_acts_in_each_of_its_tasks(whole: Path, tmp_path: Path) -> None:
    agent = twohot.Agent.from_checkpoint(whole)
    for task in TASKS:
        mine = agent.for_task(task)
        environments = mine.make_environments(2)
        observation, info = environments.reset(seed=0)
        assert info["task"].tolist() == [0, 0]
        mine.reset(2)
        environments.step(mine.act(observation))
    with pytest.raises(ActingError, match=r"for_task: .*got 'popgym:Nothing'"):
        agent.for_task("popgym:Nothing")
    for call in (agent.act, agent.reset, agent.make_environments):
        with pytest.raises(ActingError, match=r"expected agent\.for_task\(NAME\).*toys-2: toys:vector-tokens-box"):
            call()


def test_an_environment_of_ones_own_is_matched_by_its_spaces(whole: Path) -> None:
    agent = twohot.Agent.from_checkpoint(whole)
    env = OWN.make("vector-tokens-box")
    observation, _ = env.reset(seed=0)
    action = agent.wrap(env).act(observation)
    assert env.action_space.contains(action)
    again = agent.wrap(env, task="toys:vector-tokens-box")
    assert np.array_equal(again.act(observation), action)
    with pytest.raises(ActingError, match="fits into no domain of the agent"):
        agent.wrap(gym.make("Pendulum-v1"))
    with pytest.raises(ActingError, match="popgym: expected task="):  # whose tasks differ in their rewards
        agent.wrap(gym.make("CartPole-v1"))


def test_each_domain_is_exported_and_the_whole_is_saved(whole: Path, tmp_path: Path) -> None:
    agent = twohot.Agent.from_checkpoint(whole)
    agent.export(tmp_path / "policy.pt2")
    assert {path.name for path in tmp_path.glob("*.pt2")} == {f"policy-{name}.pt2" for name in agent.domains}
    agent.save_pretrained(tmp_path / "saved")
    assert "`toys:vector-tokens-box`" in (card := (tmp_path / "saved" / "README.md").read_text())
    assert '.for_task("toys:vector-choice-discrete")' in card
    other = twohot.Agent.from_pretrained(tmp_path / "saved")
    assert other.domains == agent.domains
    for key, value in other.networks.state_dict().items():
        assert torch.equal(value, agent.networks.state_dict()[key])


def test_a_task_held_out_joins_the_domain_that_it_fits() -> None:
    config = replace(MIXED, evaluate=replace(MIXED.evaluate, held_out_tasks=("popgym:HigherLowerMedium",)))
    domains = {domain.name: domain for domain in domains_of(config)}
    assert domains["popgym"].config.evaluate.held_out_tasks == ("HigherLowerMedium",)
    assert domains["toys"].config.evaluate.held_out_tasks == ()
    for name in ("toys:vector-mask_binary-multi_binary", "gym:CartPole-v1"):
        config = replace(MIXED, evaluate=replace(MIXED.evaluate, held_out_tasks=(name,)))
        with pytest.raises(ConfigurationError, match=f"held_out_tasks: expected .* got {name}"):
            domains_of(config)


def test_splits_are_those_that_a_suite_has() -> None:
    config = replace(
        MIXED,
        environment=EnvironmentConfig(tasks=("procgen:coinrun-easy", "popgym:RepeatFirstEasy")),
        evaluate=replace(MIXED.evaluate, splits=("train", "test")),
    )
    if envs.get_suite("procgen").missing():
        pytest.skip("needs procgen")
    assert [domain.config.evaluate.splits for domain in domains_of(config)] == [("train", "test"), ("train",)]


REFUSED = {
    "actors": {"actors": 5, "collect": {"environments": 5}},
    "learners": {"learners": 2, "actors": 0},
    "optimizer.compile": {"optimizer": {"compile": True}},
    "data.sources": {"data": {"sources": ("npz:here",)}},
    "replay.relabel": {"replay": {"relabel": True}},
    "environment.observation_size": {"environment": {"observation_size": 90}},
    "environment.actions": {"environment": {"actions": 9}},
    "collect.environments": {"collect": {"environments": 2}},
    "batch_size": {"batch_size": 2},
}


@pytest.mark.parametrize("setting", REFUSED)
def test_what_needs_one_domain_is_refused_before_anything_begins(setting, tmp_path) -> None:
    changes = {
        name: replace(getattr(MIXED, name), **value) if isinstance(value, dict) else value
        for name, value in REFUSED[setting].items()
    }
    with pytest.raises(ConfigurationError, match=rf"^{setting}: "):
        train(replace(MIXED, **changes), tmp_path / "run", quiet())
    assert not (tmp_path / "run" / "config.json").exists()


def tasks(*names: str, **changes):
    return replace(MIXED, environment=EnvironmentConfig(tasks=names, **changes))


def test_suites_that_are_not_installed_are_named_or_left_out(tmp_path) -> None:
    names = ("absent:a", "popgym:RepeatFirstEasy", "absent:b")
    with pytest.raises(MissingExtraError, match=r"absent:a, absent:b needs no_such_module.*--environment\.skip-m"):
        train(tasks(*names), tmp_path / "run", quiet())
    asked = tasks(*names, reward_multipliers=(1.0, 7.0, 2.0), skip_missing=True)
    config, sentence = without_missing(asked)
    assert sentence.startswith("Left out: absent:a, absent:b needs no_such_module")
    assert config.environment.tasks == ("popgym:RepeatFirstEasy",)
    assert config.environment.reward_multipliers == (7.0,)
    run = tmp_path / "run"
    train(replace(asked, epochs=1), run, quiet())
    assert load_config(run / "config.json").environment.tasks == ("popgym:RepeatFirstEasy",)
    twohot.train(
        replace(asked, epochs=1), run=run, epochs=2, continue_=True, quiet=True
    )  # as it was asked for the first time
    assert checkpoint.latest(run).name == "epoch-000002"
    with pytest.raises(MissingExtraError, match="no task is left"):
        train(tasks("absent:a", skip_missing=True), tmp_path / "none", quiet())


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        (("popgm:RepeatFirstEasy", "gym:CartPole-v1"), UnknownEnvironmentError, "no suite named 'popgm'.*popgym"),
        (("popgym:RepeatFirst", "gym:CartPole-v1"), UnknownEnvironmentError, "no popgym task named 'RepeatFirst'"),
        (("popgym:RepeatFirstEasy", "RepeatFirstEasy"), ConfigurationError, "are the same task"),
    ],
)
def test_names_that_mean_nothing_are_refused(names, kind, message, tmp_path) -> None:
    with pytest.raises(kind, match=message):
        train(tasks(*names), tmp_path / "run", quiet())
    assert not (tmp_path / "run" / "config.json").exists()


class Odd(gym.Env):
    """Acts in a space that no head takes."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Box(-np.inf, np.inf, (1,))


def test_a_space_that_no_head_takes_is_refused_by_the_name_of_its_task(tmp_path) -> None:
    gym.register("OddSpace-v0", entry_point=Odd)
    try:
        with pytest.raises(twohot.errors.TwohotError, match=r"gym:OddSpace-v0.*expected a Box action with bounds"):
            train(tasks("gym:OddSpace-v0", "popgym:RepeatFirstEasy"), tmp_path / "run", quiet())
    finally:
        del gym.registry["OddSpace-v0"]


def test_a_checkpoint_of_other_spaces_is_refused(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(replace(MIXED, epochs=1, checkpoint_every=1), run, quiet())
    path = checkpoint.latest(run)
    state = json.loads((path / "state.json").read_bytes())
    state.pop("crc32")
    state["spaces"]["domains"]["toys"]["action"]["n"] = 5
    (path / "state.json").write_bytes(checkpoint.signed(state))
    with pytest.raises(checkpoint.CheckpointError, match=r"spaces\.domains\.toys\.action"):
        resume(run, quiet(), 2)


def test_plain_names_are_a_run_of_one_domain_as_ever() -> None:
    (domain,) = domains_of(CONFIG)
    assert domain.name == ""
    assert domain.config is CONFIG
    assert isinstance(CONFIG.replay, ReplayConfig)
