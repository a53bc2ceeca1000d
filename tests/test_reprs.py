"""What public objects say of themselves."""

from __future__ import annotations

import numpy as np

from small import quiet, with_epochs
from twohot import Agent, Replay
from twohot.replay import Field, Mixture, Schema
from twohot.training.train import train


def test_a_replay_says_its_capacity_and_where_it_is(tmp_path) -> None:
    schema = Schema(observation={"x": Field("float32", (2,))}, action=Field("int32"))
    here = Replay.create(schema, capacity_steps=30)
    there = Replay.create(schema, capacity_trajectories=4, directory=tmp_path / "replay")
    assert repr(here) == "Replay(capacity_steps=30)"
    assert repr(there) == f"Replay(capacity_trajectories=4, directory='{tmp_path / 'replay'}')"
    assert repr(Mixture([here, there], [1, 3])) == f"Mixture([{here!r}, {there!r}], weights=[0.25, 0.75])"
    there.close()
    assert "capacity_trajectories=4" in repr(there)
    here.add(
        observation={"x": np.zeros((4, 2), np.float32)},
        action=np.zeros(3, np.int32),
        reward=np.zeros(3, np.float32),
        terminated=np.array([False, False, True]),
        truncated=np.zeros(3, bool),
    )
    assert repr(here.sample(2, 5)) == "Batch(2 windows of 5 steps, observation={'x': [2, 6, 2]})"


def test_an_agent_says_what_it_plays(tmp_path) -> None:
    train(with_epochs(1), tmp_path / "run", quiet())
    agent = Agent.from_checkpoint(tmp_path / "run")
    size = sum(parameter.numel() for parameter in agent.networks.parameters())
    assert repr(agent) == f"Agent({size:,} parameters on cpu, 2 tasks of popgym, {agent.action_space})"
