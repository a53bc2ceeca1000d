"""Runs that begin with the weights of another: what fits is taken, what is new begins anew, and it is said."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from rich.console import Console

import twohot
from small import CONFIG, quiet
from twohot.agent import AgentNetworks, MixedNetworks
from twohot.agent.mixed import Member
from twohot.agent.saved import spaces_of
from twohot.cli.main import main
from twohot.config import ConfigurationError, EnvironmentConfig
from twohot.config.files import to_json
from twohot.data.spaces import replay_schema
from twohot.errors import UsageError
from twohot.inference.networks import load_networks
from twohot.replay import Replay
from twohot.runs import checkpoint
from twohot.runs.checkpoint import CheckpointError
from twohot.spaces import as_dict_space
from twohot.training.progress import Progress
from twohot.training.session import Session
from twohot.training.train import resume, train
from twohot.training.transfer import take_weights

SHORT = replace(CONFIG, epochs=1, checkpoint_every=1, evaluate=replace(CONFIG.evaluate, final_trials=1))


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("single") / "run"
    train(SHORT, run, quiet())
    return run


def test_a_run_of_several_domains_takes_that_of_one(single: Path, tmp_path: Path) -> None:
    tasks = ("popgym:RepeatFirstEasy", "popgym:PositionOnlyCartPoleEasy", "gym:CartPole-v1")
    collect = replace(SHORT.collect, environments=3)
    environment = EnvironmentConfig(tasks=tasks, reward_multipliers=(10.0, 0.1, 1.0))
    asked = replace(SHORT, environment=environment, collect=collect, updates_per_epoch=0)
    output = io.StringIO()
    train(asked, tmp_path / "run", Progress(Console(file=output, width=200)), source=single)
    _, mine = load_networks(tmp_path / "run")
    _, theirs = load_networks(single)
    for key, value in theirs.state_dict().items():
        assert torch.equal(mine["popgym"].state_dict()[key], value), key
    assert "trajectory_encoder.norm.weight" in theirs.state_dict()
    said = output.getvalue()
    assert f"From {single}: the trajectory encoder." in said
    assert "  popgym: taken timestep encoder, actor, critics." in said
    assert "  gym: anew timestep encoder, actor, critics." in said
    assert twohot.Run(tmp_path / "run").start["from"] == str(single)


def networks_of(single: Path, observation: int, actions: int, **changes):
    config, theirs = load_networks(single)
    box = as_dict_space(twohot.spaces.spaces.Box(-1, 1, (observation,)))
    config = replace(config, agent=replace(config.agent, **changes))
    torch.manual_seed(7)
    return config, AgentNetworks(config.agent, box, twohot.spaces.spaces.Discrete(actions)), theirs


def test_spaces_that_grew_keep_what_they_share(single: Path) -> None:
    _, theirs = load_networks(single)
    size, actions = theirs.observation_space["observation"].shape[0], int(theirs.action_space.n)
    config, mine, _ = networks_of(single, size + 3, actions + 1)
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    taken = take_weights(mine, config, single)
    after, found = mine.state_dict(), theirs.state_dict()
    for key, value in after.items():
        fits = value.shape == found[key].shape
        if key.startswith(("trajectory_encoder", "timestep_encoder.hidden", "timestep_encoder.norm.")):
            assert torch.equal(value, found[key]), key
        assert fits or torch.equal(value, before[key]), key
    assert torch.equal(after["timestep_encoder.normalization.count"], before["timestep_encoder.normalization.count"])
    assert any("layers of the timestep encoder" in sentence for sentence in taken.sentences())


def test_values_of_another_meaning_begin_anew(single: Path) -> None:
    _, theirs = load_networks(single)
    size, actions = theirs.observation_space["observation"].shape[0], int(theirs.action_space.n)
    config, mine, _ = networks_of(single, size, actions, discount=0.8)
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    taken = take_weights(mine, config, single)
    for key, value in mine.state_dict().items():
        other = before if key.startswith(("critics", "target_critics", "values")) else theirs.state_dict()
        assert torch.equal(value, other[key]), key
    assert taken.values_anew == {"": "agent.discount"}
    assert "Values begin anew, for agent.discount is another." in list(taken.sentences())[-1]


def test_a_domain_of_a_mixed_agent_goes_to_an_agent_of_its_own(single: Path, tmp_path: Path) -> None:
    tasks = ("gym:CartPole-v1", "popgym:RepeatFirstEasy", "popgym:PositionOnlyCartPoleEasy")
    collect = replace(SHORT.collect, environments=3)
    run = tmp_path / "run"
    environment = EnvironmentConfig(tasks=tasks, reward_multipliers=(1.0, 10.0, 0.1))
    train(replace(SHORT, environment=environment, collect=collect), run, quiet())
    config, mine = load_networks(single)
    _, mixed = load_networks(run)
    taken = take_weights(mine, config, run)
    for key, value in mine.state_dict().items():
        assert torch.equal(value, mixed["popgym"].state_dict()[key]), key
    assert all(count == every for count, every in taken.layers.values())
    members = {
        name: Member(("x",), each.observation_space, each.action_space, name) for name, each in mixed.each().items()
    }
    other = MixedNetworks(config.agent, {**members, "new": replace(members["gym"], suite="new")})
    taken = take_weights(other, config, run)
    for key, value in other["gym"].actor.state_dict().items():
        assert torch.equal(value, mixed["gym"].actor.state_dict()[key]), key
    assert {domain for (domain, part), (count, _) in taken.layers.items() if not count} == {"new"}


def test_a_memory_that_does_not_fit_is_refused_before_anything_begins(single: Path, tmp_path: Path) -> None:
    wide = replace(SHORT, agent=replace(SHORT.agent, width=32, heads=4))
    with pytest.raises(ConfigurationError, match=r"--from .*agent\.width = 16 there, 32 here"):
        train(wide, tmp_path / "run", quiet(), source=single)
    deep = replace(SHORT, agent=replace(SHORT.agent, layers=2))
    with pytest.raises(ConfigurationError, match=r"agent\.layers = 1 there, 2 here"):
        train(deep, tmp_path / "run", quiet(), source=single)
    rotary = replace(SHORT, agent=replace(SHORT.agent, positions="rotary"))  # of the same shapes
    with pytest.raises(ConfigurationError, match=r"agent\.positions = 'fixed' there, 'rotary' here"):
        train(rotary, tmp_path / "run", quiet(), source=single)
    with pytest.raises(CheckpointError, match="no checkpoint here to begin from"):
        train(SHORT, tmp_path / "run", quiet(), source=tmp_path / "nothing")
    assert not (tmp_path / "run" / "config.json").exists()
    with pytest.raises(UsageError, match="resume: takes the place"):
        twohot.train(resume=single, from_=single)


BOX, CHOICES = spaces.Box(-1, 1, (1,), np.float32), spaces.Discrete(2)  # whose actors have layers of equal shapes
SEEN = {"box": as_dict_space(spaces.Box(-1, 1, (3,), np.float32)), "choices": as_dict_space(spaces.Box(-1, 1, (4,)))}


def saved(tmp_path: Path, networks, config=SHORT) -> Path:
    """A checkpoint of these networks."""
    replay = Replay.create(replay_schema(SEEN["box"], BOX), capacity_steps=1)
    state = {"config": to_json(config), "spaces": spaces_of(networks)}
    return checkpoint.save(tmp_path, 1, {"agent": networks.state_dict()}, state, replay)


def of_order(*names: str) -> MixedNetworks:
    actions = {"box": BOX, "choices": CHOICES}
    members = {
        "gym" if index == 0 else "gym-2": Member((f"gym:{name}",), SEEN[name], actions[name], "gym")
        for index, name in enumerate(names)
    }
    return MixedNetworks(SHORT.agent, members)


def test_domains_of_a_suite_are_matched_by_their_spaces(tmp_path: Path) -> None:
    theirs, mine = of_order("box", "choices"), of_order("choices", "box")
    taken = take_weights(mine, SHORT, saved(tmp_path, theirs))
    for name, other in (("gym", "gym-2"), ("gym-2", "gym")):
        for key, value in mine[name].state_dict().items():
            assert torch.equal(value, theirs[other].state_dict()[key]), key
    assert not taken.actions_anew


@pytest.mark.parametrize(
    ("actions", "changes", "why"),
    [
        (CHOICES, {}, "its actions are others"),
        (BOX, {"continuous": "beta"}, "agent.continuous is another"),
    ],
)
def test_an_actor_of_other_actions_ends_anew(tmp_path: Path, actions, changes, why) -> None:
    config = replace(SHORT, agent=replace(SHORT.agent, **changes))
    theirs, mine = AgentNetworks(SHORT.agent, SEEN["box"], BOX), AgentNetworks(config.agent, SEEN["box"], actions)
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    taken = take_weights(mine, config, saved(tmp_path, theirs))
    anew = {"actor.network.2", "target_actor.network.2"}
    if actions != BOX:
        anew |= {"timestep_encoder.previous_action", "critics.action", "target_critics.action"}
    for key, value in mine.state_dict().items():
        other = before if key.rpartition(".")[0] in anew else theirs.state_dict()
        assert torch.equal(value, other[key]), key
    assert taken.actions_anew == {"popgym": why}
    assert f"  What popgym knows of actions begins anew, for {why}." in list(taken.sentences())


def test_values_in_other_units_begin_anew(tmp_path: Path) -> None:
    source = saved(tmp_path, theirs := AgentNetworks(SHORT.agent, SEEN["box"], BOX))
    task = SHORT.environment.tasks[0]
    for changed, whose, why in (
        ({"objective": replace(SHORT.objective, reward_multiplier=1.0)}, "", "objective.reward_multiplier"),
        (
            {"environment": replace(SHORT.environment, reward_multipliers=(1.0, 0.1))},
            "popgym",
            f"environment.reward_multipliers of {task}",
        ),
    ):
        mine = AgentNetworks(SHORT.agent, SEEN["box"], BOX)
        before = {key: value.clone() for key, value in mine.state_dict().items()}
        taken = take_weights(mine, replace(SHORT, **changed), source)
        assert taken.values_anew == {whose: why}
        for key, value in mine.state_dict().items():
            other = before if key.startswith(("critics", "target_critics", "values")) else theirs.state_dict()
            assert torch.equal(value, other[key]), key


def test_a_run_resumed_before_its_first_checkpoint_takes_them_again(single: Path, tmp_path: Path, monkeypatch) -> None:
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(single, source)
    asked = replace(SHORT, updates_per_epoch=0)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "loop", lambda *_: None)  # as if it was killed
        train(asked, run, quiet(), source=source)
    shutil.copytree(run, tmp_path / "other")
    resume(run, quiet())
    _, mine = load_networks(run)
    for key, value in load_networks(single)[1].state_dict().items():
        assert torch.equal(mine.state_dict()[key], value), key
    shutil.rmtree(source)
    with pytest.raises(CheckpointError, match="has no checkpoint yet, and would begin anew with the weights of anoth"):
        resume(tmp_path / "other", quiet())


def test_a_checkpoint_that_is_removed_while_it_is_read_is_looked_for_again(single: Path, monkeypatch) -> None:
    found, looked = checkpoint.latest(single), []
    monkeypatch.setattr(
        checkpoint, "latest", lambda run: (looked.append(run), run / "gone" if len(looked) == 1 else found)[1]
    )
    config, mine = load_networks(found)
    take_weights(mine, config, single)
    assert len(looked) == 2


def test_the_usage_names_it(capsys) -> None:
    assert main(["train", "--help"]) == 0
    assert "twohot train PRESET --from RUN" in capsys.readouterr().out
