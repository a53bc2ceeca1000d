"""Rollouts of several domains, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from twohot.data.rollout import Player, RolloutState, Trial
from twohot.nets.frozen_members import FrozenPolicies

__all__ = ["Rollouts"]


class Rollouts:
    """A `Player` for each domain; their policies act together, so that all environments have taken as many steps.

    Args:
        players: by the name of the domain.
        policies: of each; between two collections others may take their place, which go on from their states.
        tasks: the index in the run of each task of a domain.
    """

    def __init__(
        self, players: Mapping[str, Player], policies: FrozenPolicies, tasks: Mapping[str, Sequence[int]]
    ) -> None:
        self.players, self.policies, self._tasks = dict(players), policies, tasks

    @property
    def environment_steps(self) -> int:
        """Steps taken, of all environments together."""
        return sum(player.environment_steps for player in self.players.values())

    def state_dict(self) -> RolloutState:
        """As `Rollout.state_dict`."""
        states = [player.state_dict()["generator"] for player in self.players.values()]
        return {"environment_steps": self.environment_steps, "generator": torch.stack(states)}

    def load_state_dict(self, state: RolloutState) -> None:
        """As `Rollout.load_state_dict`."""
        counts = [player.environments.num_envs for player in self.players.values()]
        each, rest = divmod(state["environment_steps"], sum(counts))
        if rest or len(state["generator"]) != len(counts):
            raise ValueError(f"expected as many steps of {sum(counts)} environments, got {state['environment_steps']}")
        for player, count, generator in zip(self.players.values(), counts, state["generator"], strict=True):
            player.load_state_dict({"environment_steps": each * count, "generator": generator.clone()})

    def cut(self) -> None:
        """As `Rollout.cut`."""
        for player in self.players.values():
            player.cut()

    def restart(self, seeds: Sequence[int]) -> None:
        """As `Rollout.restart`; one seed for each environment of all domains."""
        counts = {name: player.environments.num_envs for name, player in self.players.items()}
        states, first = self.policies.initial_states(counts), 0
        for name, player in self.players.items():
            player.start(states[name], seeds[first : first + counts[name]])
            first += counts[name]

    def collect(self, steps: int, stop: Callable[[], bool] | None = None) -> list[Trial]:
        """As `Rollout.collect`, where `stop` is asked when all environments have taken a step; tasks are the run's."""
        trials: list[Trial] = []
        players = self.players.items()
        states = {name: player.state for name, player in players}
        generators = {name: player.generator for name, player in players}
        for _ in range(steps):
            actions = self.policies.act(states, {name: player.given() for name, player in players}, generators)
            for name, player in players:
                trials += [replace(trial, task=self._tasks[name][trial.task]) for trial in player.step(actions[name])]
            if stop is not None and stop():
                break
        return trials
