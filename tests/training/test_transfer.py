"""Runs that begin with the weights of another: what fits is taken, what is new begins anew, and it is said."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import twohot
from small import CONFIG, quiet
from twohot.agent import AgentNetworks, MixedNetworks
from twohot.agent.mixed import Member
from twohot.config import ConfigurationError, EnvironmentConfig
from twohot.errors import UsageError
from twohot.inference.networks import load_networks
from twohot.runs.checkpoint import CheckpointError
from twohot.spaces import as_dict_space
from twohot.training.progress import Progress
from twohot.training.train import train
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
    asked = replace(SHORT, environment=EnvironmentConfig(tasks=tasks), collect=collect, updates_per_epoch=0)
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
    assert twohot.Run(tmp_path / "run").start["from"].startswith("the weights of ")


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
    assert taken.critics_anew == "discount"
    assert "Values begin anew, for agent.discount is another." in list(taken.sentences())[-1]


def test_a_domain_of_a_mixed_agent_goes_to_an_agent_of_its_own(single: Path, tmp_path: Path) -> None:
    tasks = ("gym:CartPole-v1", "popgym:RepeatFirstEasy", "popgym:PositionOnlyCartPoleEasy")
    collect = replace(SHORT.collect, environments=3)
    run = tmp_path / "run"
    train(replace(SHORT, environment=EnvironmentConfig(tasks=tasks), collect=collect), run, quiet())
    config, mine = load_networks(single)
    _, mixed = load_networks(run)
    taken = take_weights(mine, config, run)
    for key, value in mine.state_dict().items():
        assert torch.equal(value, mixed["popgym"].state_dict()[key]), key
    assert all(count == every for count, every in taken.layers.values())
    members = {name: Member(("x",), each.observation_space, each.action_space) for name, each in mixed.each().items()}
    other = MixedNetworks(config.agent, {**members, "new": members["gym"]})
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
    with pytest.raises(CheckpointError, match="no checkpoint here to begin from"):
        train(SHORT, tmp_path / "run", quiet(), source=tmp_path / "nothing")
    assert not (tmp_path / "run" / "config.json").exists()
    with pytest.raises(UsageError, match="resume: takes the place"):
        twohot.train(resume=single, from_=single)
