"""Runs with tasks of several suites: trained, resumed bit for bit, evaluated, acting; and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch

import twohot
from layout_suite import OWN
from small import CONFIG, agent_bytes, quiet
from twohot import envs
from twohot.agent import Member, MixedNetworks
from twohot.cli.main import main
from twohot.config import CollectConfig, ConfigurationError, EnvironmentConfig
from twohot.config.files import load_config
from twohot.data.domains import _names, apportion, domains_of, is_mixed, splits_left_out, without_missing
from twohot.data.rollouts import Rollouts
from twohot.envs import MissingExtraError, Suite, UnknownEnvironmentError, registry
from twohot.inference import export
from twohot.inference.errors import ActingError
from twohot.learning.learner import Learner
from twohot.learning.mixed_batch import MixedBatch
from twohot.runs import checkpoint
from twohot.runs import replay as run_replay
from twohot.runs.metrics import read_metrics
from twohot.spaces import as_dict_space
from twohot.training.interruption import Interrupted
from twohot.training.mixed_session import MixedExperience
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
    for name in ("toys", "absent"):
        registry._SUITES.pop(name, None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, _suites) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    train(MIXED, run, quiet())
    return run


def tasks(*names: str, **changes):
    return replace(MIXED, environment=EnvironmentConfig(tasks=names, **changes))


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


def norms(run: Path) -> list[float]:
    return [row.metrics["gradient/norm"] for row in read_metrics(run) if row.kind == "update"]


def test_resumed_at_a_checkpoint_ends_with_the_same_weights(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints" / "epoch-000004")
    assert agent_bytes(run) != agent_bytes(whole)
    resume(run, quiet())
    assert agent_bytes(run) == agent_bytes(whole)
    assert norms(run) == norms(whole)


def test_a_replay_on_disk_and_a_resumed_run_are_the_same(whole: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(run_replay, "SEGMENT_BYTES", 2000)
    run = tmp_path / "run"
    train(with_storage("disk", epochs=2), run, quiet())
    resume(run, quiet(), 4)
    assert agent_bytes(run) == agent_bytes(whole)
    assert norms(run) == norms(whole)
    assert {path.name for path in run.glob("replay-*")} == {"replay-toys", "replay-toys-2", "replay-popgym"}


def test_in_processes_it_is_the_same_run(whole: Path, tmp_path: Path) -> None:
    evaluate = replace(MIXED.evaluate, every=9, trials=1, final_trials=1)
    apart = replace(MIXED, collect=replace(MIXED.collect, workers="processes"), evaluate=evaluate)
    train(replace(apart, epochs=2), tmp_path / "run", quiet())
    theirs = whole / "checkpoints" / "epoch-000002" / "agent.safetensors"
    assert agent_bytes(tmp_path / "run") == theirs.read_bytes()


@pytest.mark.parametrize(("owner", "name", "number"), [(Rollouts, "collect", 2), (Learner, "step", 4)])
def test_a_signal_leaves_a_checkpoint_from_which_it_goes_on(owner, name, number, tmp_path, monkeypatch) -> None:
    run, calls, method = tmp_path / "run", [], getattr(owner, name)

    def signalled(self, *arguments, **options):
        calls.append(0)
        if len(calls) == number:
            signal.raise_signal(signal.SIGTERM)
        return method(self, *arguments, **options)

    monkeypatch.setattr(owner, name, signalled)
    with pytest.raises(Interrupted):
        train(replace(MIXED, epochs=2), run, quiet())
    state = checkpoint.read_state(checkpoint.latest(run))
    assert state["unplanned"] is not None
    resume(run, quiet())
    rows = read_metrics(run)
    assert rows[-1].updates == 2 * MIXED.updates_per_epoch
    assert rows[-1].environment_steps == 2 * 60 * 5


def test_metrics_name_tasks_with_their_suites(whole: Path) -> None:
    metrics = {name: value for row in read_metrics(whole) for name, value in row.metrics.items()}
    for task in TASKS:
        for kind in ("random/return", "evaluation/return", "filter/pass_rate"):
            assert f"{kind}/{task}" in metrics
    told = {name.removeprefix("collect/success/") for name in metrics if name.startswith("collect/success/")}
    assert told == {TASKS[0], TASKS[2]}  # of the others nobody says it
    assert (
        metrics["collect/return/toys:vector-choice-discrete"] == metrics["collect/return/toys:vector-tokens-box"] == 3
    )
    assert metrics["value/target_min"] <= metrics["value/target_mean"] <= metrics["value/target_max"]
    report = twohot.Run(whole).report().read_text()
    assert all(task.replace(":", ":<wbr>") in report or task in report for task in TASKS)
    assert set(twohot.Run(whole).scores) == set(TASKS)


MORE = (*TASKS, "popgym:RepeatPreviousEasy", "popgym:CountRecallEasy")


class Stored:
    """A replay of so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def stats(self):
        return SimpleNamespace(steps=self.steps, trajectories=1)

    def loader(self, rows, length, *, batches):
        for _ in range(batches):
            yield SimpleNamespace(mask=np.ones((rows, length), bool))


@pytest.mark.parametrize(
    ("balance", "rows"),
    [
        ("task", {"toys": 2, "toys-2": 2, "popgym": 8}),
        ("suite", {"toys": 3, "toys-2": 3, "popgym": 6}),
        ("step", {"toys": 1, "toys-2": 4, "popgym": 7}),
    ],
)
def test_each_domain_has_its_rows_of_a_batch(balance, rows) -> None:
    config = replace(MIXED, environment=EnvironmentConfig(tasks=MORE), replay=replace(MIXED.replay, balance=balance))
    domains = {domain.name: domain for domain in domains_of(config)}
    replays = {name: Stored(steps) for name, steps in (("toys", 10), ("toys-2", 40), ("popgym", 70))}
    sampler = MixedExperience(config, domains).sampler(SimpleNamespace(each=replays))
    (batch,) = sampler.loader(12, 4, batches=1)
    assert {name: len(part.mask) for name, part in batch.parts.items()} == rows


def test_an_update_has_the_rows_of_its_domains(whole: Path, tmp_path, monkeypatch) -> None:
    seen: list[MixedBatch] = []
    step = Learner.step_with_parts
    monkeypatch.setattr(Learner, "step_with_parts", lambda self, batch: (seen.append(batch), step(self, batch))[1])
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    resume(run, quiet(), 5)
    assert {name: len(batch.mask) for name, batch in seen[0].parts.items()} == {"toys": 1, "toys-2": 1, "popgym": 2}


def test_it_is_evaluated_and_filmed_domain_by_domain(whole: Path, tmp_path: Path, capsys) -> None:
    result = tmp_path / "result.json"
    assert main(["evaluate", str(whole), "--trials", "2", "--json", str(result)]) == 0
    tasks = json.loads(result.read_text())["tasks"]
    assert {each["task"]: each["return"]["mean"] for each in tasks}["toys:vector-choice-discrete"] == 3
    assert {each["task"] for each in tasks} == set(TASKS)
    two = ["toys:vector-tokens-box", "HigherLowerMedium"]  # of environment.suite
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
    cart_pole = gym.make("CartPole-v1")
    with pytest.raises(ActingError, match="popgym: expected task="):  # whose tasks differ in their rewards
        agent.wrap(cart_pole)
    mine = agent.for_task("popgym:RepeatFirstEasy")
    observation, _ = cart_pole.reset(seed=0)
    for name in ("RepeatFirstEasy", "popgym:RepeatFirstEasy"):
        assert mine.for_task(name).wrap(cart_pole).act(observation) in (0, 1)
        assert mine.wrap(cart_pole, task=name).act(observation) in (0, 1)
    env = envs.make_task("popgym", "RepeatFirstEasy").env
    raw, _ = env.reset(seed=0)
    seen = agent.encode("popgym:RepeatFirstEasy", raw, last_reward=2.0)
    assert np.array_equal(seen, mine.encode("RepeatFirstEasy", raw, last_reward=2.0))
    assert np.array_equal(seen, mine.encode("popgym:RepeatFirstEasy", raw, last_reward=2.0))
    with pytest.raises(ActingError, match=r"expected agent\.for_task\(NAME\)"):
        agent.observation_space  # noqa: B018


def test_an_agent_can_be_read_where_its_suite_is_not_registered(whole: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delitem(registry._SUITES, "toys")
    agent = twohot.Agent.from_checkpoint(whole)
    env = OWN.make("vector-tokens-box")
    observation, _ = env.reset(seed=0)
    assert env.action_space.contains(agent.for_task("toys:vector-tokens-box").wrap(env).act(observation))
    assert '"toys"' in (agent.save_pretrained(tmp_path / "saved") / "README.md").read_text()


def test_spaces_that_fit_into_several_domains_need_a_task() -> None:
    seen = as_dict_space(gym.spaces.Box(-9, 9, (4,), np.float32))
    members = {
        name: Member(names, seen, gym.spaces.Discrete(2), name)
        for name, names in (("one", ("one:a",)), ("two", ("two:b", "two:c")))
    }
    config = tasks("one:a", "two:b", "two:c", reward_multipliers=(1.0, 1.0, 2.0), context_features=False)
    agent = twohot.Agent(MixedNetworks(config.agent, members), config)
    with pytest.raises(ActingError, match=r"fit into several domains, one, two"):
        agent.wrap(gym.make("CartPole-v1"))
    assert agent.wrap(gym.make("CartPole-v1"), task="two:c").num_envs == 1


def test_an_agent_of_one_domain_loads_no_suites() -> None:
    code = "import sys, twohot; twohot.Agent; assert not any(name.startswith('twohot.envs') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_domain_is_exported_and_the_whole_is_saved(whole: Path, tmp_path: Path, monkeypatch) -> None:
    agent, exported = twohot.Agent.from_checkpoint(whole), {}
    monkeypatch.setattr(export, "export_policy", lambda networks, path: exported.update({path.name: networks}))
    agent.export(tmp_path / "policy.pt2")
    assert exported == {f"policy-{name}.pt2": agent.networks[name] for name in agent.domains}
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


def test_splits_are_those_that_a_suite_has(monkeypatch) -> None:
    monkeypatch.setitem(registry._SUITES, "levels", replace(OWN, name="levels", splits=("train", "test")))
    both = replace(MIXED.evaluate, splits=("train", "test"))
    config = replace(tasks("levels:vector-tokens-box", "popgym:RepeatFirstEasy"), evaluate=both)
    assert [domain.config.evaluate.splits for domain in domains_of(config)] == [("train", "test"), ("train",)]
    assert splits_left_out(config) == ["popgym has no split test: its tasks are played on train."]
    with pytest.raises(ConfigurationError, match=r"^evaluate\.splits: .*toys, popgym has, train, got test"):
        domains_of(replace(MIXED, evaluate=both))


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


def test_suites_that_are_not_installed_are_named_or_left_out(tmp_path, monkeypatch) -> None:
    names = ("absent:a", "popgym:RepeatFirstEasy", "absent:b")
    with pytest.raises(MissingExtraError, match=r"absent:a, absent:b needs no_such_module.*--environment\.skip-m"):
        train(tasks(*names), tmp_path / "run", quiet())
    with pytest.raises(MissingExtraError) as found:  # a run that goes on cannot leave them out
        domains_of(tasks(*names))
    assert "skip-missing" not in str(found.value)
    with monkeypatch.context() as patch:
        patch.setitem(registry._SUITES, "absent", replace(ABSENT, install=""))
        with pytest.raises(MissingExtraError, match=r"which is not installed$"):
            domains_of(tasks(*names))
    asked = tasks(*names, reward_multipliers=(1.0, 7.0, 2.0), skip_missing=True)
    config, sentence = without_missing(asked)
    assert sentence.startswith("Left out: absent:a, absent:b needs no_such_module")
    assert config.environment.tasks == ("popgym:RepeatFirstEasy",)
    assert config.environment.reward_multipliers == (7.0,)
    run = tmp_path / "run"
    train(replace(asked, epochs=1), run, quiet())
    assert load_config(run / "config.json").environment.tasks == ("popgym:RepeatFirstEasy",)
    monkeypatch.setitem(registry._SUITES, "absent", replace(ABSENT, requires=()))  # is installed by now
    twohot.train(
        replace(asked, epochs=1), run=run, epochs=2, continue_=True, quiet=True
    )  # as it was asked for the first time
    assert checkpoint.latest(run).name == "epoch-000002"
    monkeypatch.setitem(registry._SUITES, "absent", ABSENT)
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


@pytest.mark.parametrize(
    ("suite", "name", "meant"),
    [
        ("w", "w:1", ("w", "w:1")),
        ("w", "gym:1", ("w", "gym:1")),
        ("w", "gym:CartPole-v1", ("gym", "CartPole-v1")),
        ("popgym", "w:1", ("w", "1")),
        ("gym", "popgym:popgym-RepeatFirstEasy-v0", ("gym", "popgym:popgym-RepeatFirstEasy-v0")),
        ("gym", "popgym:RepeatFirstEasy", ("popgym", "RepeatFirstEasy")),
        ("gym", "gym:CartPole-v1", ("gym", "CartPole-v1")),
        ("gym", "my_file:Mine-v0", ("gym", "my_file:Mine-v0")),
        ("popgym", "gym:my_file:Mine-v0", ("gym", "my_file:Mine-v0")),
    ],
)
def test_a_name_means_a_task_of_the_own_suite_first(suite, name, meant, monkeypatch) -> None:
    monkeypatch.setitem(registry._SUITES, "w", replace(OWN, name="w", tasks=("w:1", "gym:1", "1")))
    assert envs.split_name(name, suite) == meant
    assert envs.names_suite(name, suite) == (name != meant[1])
    assert envs.plain_name(name, meant[0], suite) == meant[1]
    assert is_mixed(tasks(name, suite=suite)) == (name != meant[1])


def test_tasks_of_a_uniform_suite_are_known_before_anything_begins(monkeypatch) -> None:
    monkeypatch.setitem(registry._SUITES, "even", replace(OWN, name="even", uniform=True))
    config = tasks("even:vector-tokens-box", "popgym:RepeatFirstEasy")
    config = replace(config, evaluate=replace(MIXED.evaluate, held_out_tasks=("even:vector-tokens-bx",)))
    with pytest.raises(UnknownEnvironmentError, match="no even task named 'vector-tokens-bx'"):
        domains_of(config)


def test_a_share_that_is_too_small_is_said_of_its_domain() -> None:
    config = replace(MIXED, replay=replace(MIXED.replay, capacity_steps=200))
    with pytest.raises(ConfigurationError, match=r"^agent\.context: .* domain toys: 1 environments, 50 steps"):
        domains_of(config)


def test_names_of_domains_are_all_different() -> None:
    assert _names(["gym", "gym", "gym-2", "gym"]) == ["gym", "gym-3", "gym-2", "gym-4"]


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
    shutil.copytree(whole, run)
    path = checkpoint.latest(run)
    state = json.loads((path / "state.json").read_bytes())
    state.pop("crc32")
    state["spaces"]["domains"]["toys"]["action"]["n"] = 5
    (path / "state.json").write_bytes(checkpoint.signed(state))
    with pytest.raises(checkpoint.CheckpointError, match=r"spaces\.domains\.toys\.action"):
        resume(run, quiet(), 5)


def test_plain_names_are_a_run_of_one_domain_as_ever() -> None:
    (domain,) = domains_of(CONFIG)
    assert domain.name == ""
    assert domain.config is CONFIG
