"""Rollouts of several domains: who is asked, and in which order."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from twohot.data.rollout import Trial
from twohot.data.rollouts import Rollouts


class Domain:
    """A player that notes what is asked of it; a trial of its second task ends at each step."""

    def __init__(self, name, environments, calls):
        self.name, self.calls, self.environment_steps = name, calls, 0
        self.environments = SimpleNamespace(num_envs=environments)
        self.generator = torch.Generator().manual_seed(environments)

    def start(self, state, seeds):
        self.state = state
        self.calls.append(("start", self.name, state, list(seeds)))

    def given(self):
        return f"given to {self.name}"

    def step(self, actions):
        self.calls.append(("step", self.name, actions))
        self.environment_steps += self.environments.num_envs
        return [Trial(0, 1, np.zeros(1), np.zeros(1), np.zeros(1), False)]

    def cut(self):
        self.calls.append(("cut", self.name))

    def state_dict(self):
        return {"environment_steps": self.environment_steps, "generator": self.generator.get_state()}

    def load_state_dict(self, state):
        self.environment_steps = state["environment_steps"]
        self.generator.set_state(state["generator"])


class Policies:
    """Notes what it is asked."""

    def __init__(self, calls):
        self.calls = calls

    def initial_states(self, environments):
        return {name: f"{count} rows" for name, count in environments.items()}

    def act(self, states, given, generators):
        self.calls.append(("act", states, given, {name: each.initial_seed() for name, each in generators.items()}))
        return {name: f"actions of {name}" for name in given}


def make():
    calls = []
    domains = {"a": Domain("a", 2, calls), "b": Domain("b", 3, calls)}
    return Rollouts(domains, Policies(calls), {"a": [0, 2], "b": [1, 3]}), calls


def test_each_domain_begins_with_its_own_seeds_and_rows() -> None:
    rollouts, calls = make()
    rollouts.restart([5, 6, 7, 8, 9])
    assert calls == [("start", "a", "2 rows", [5, 6]), ("start", "b", "3 rows", [7, 8, 9])]


def test_all_are_asked_together_and_then_step() -> None:
    rollouts, calls = make()
    rollouts.restart(range(5))
    calls.clear()
    asked = []
    trials = rollouts.collect(9, lambda: len(asked) == 1 or asked.append(0))
    act = (
        *("act", {"a": "2 rows", "b": "3 rows"}, {"a": "given to a", "b": "given to b"}),
        {"a": 2, "b": 3},
    )
    assert calls == [act, ("step", "a", "actions of a"), ("step", "b", "actions of b")] * 2
    assert [trial.task for trial in trials] == [2, 3] * 2
    assert rollouts.environment_steps == 2 * 5


def test_what_is_saved_is_put_back() -> None:
    rollouts, calls = make()
    rollouts.restart(range(5))
    rollouts.collect(4)
    for player in rollouts.players.values():
        torch.rand(3, generator=player.generator)
    saved, (other, _) = rollouts.state_dict(), make()
    other.load_state_dict(saved)
    assert other.environment_steps == rollouts.environment_steps == 20
    assert [each.environment_steps for each in other.players.values()] == [8, 12]
    for name, player in rollouts.players.items():
        assert torch.equal(player.generator.get_state(), other.players[name].generator.get_state())
    with pytest.raises(ValueError, match="as many steps of 5 environments, got 21"):
        other.load_state_dict({**saved, "environment_steps": 21})
    calls.clear()
    rollouts.cut()
    assert calls == [("cut", "a"), ("cut", "b")]
