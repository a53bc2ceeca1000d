"""Rollouts of several domains, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from twohot.data.rollout import Policy, Rollout, RolloutState, Trial

__all__ = ["Rollouts"]


class Rollouts:
    """One `Rollout` for each domain; they take their steps in turn, so that all environments have taken as many.

    Args:
        rollouts: by the name of the domain. tasks: the index in the run of each task of a domain.
    """

    def __init__(self, rollouts: Mapping[str, Rollout], tasks: Mapping[str, Sequence[int]]) -> None:
        self.rollouts, self._tasks = dict(rollouts), tasks

    @property
    def environment_steps(self) -> int:
        """Steps taken, of all environments together."""
        return sum(rollout.environment_steps for rollout in self.rollouts.values())

    def set_policies(self, policies: Mapping[str, Policy]) -> None:
        """Act by these from now on."""
        for name, rollout in self.rollouts.items():
            rollout.policy = policies[name]

    def state_dict(self) -> RolloutState:
        """As `Rollout.state_dict`."""
        states = [rollout.state_dict()["generator"] for rollout in self.rollouts.values()]
        return {"environment_steps": self.environment_steps, "generator": torch.stack(states)}

    def load_state_dict(self, state: RolloutState) -> None:
        """As `Rollout.load_state_dict`."""
        counts = [rollout.environments.num_envs for rollout in self.rollouts.values()]
        each, rest = divmod(state["environment_steps"], sum(counts))
        if rest or len(state["generator"]) != len(counts):
            raise ValueError(f"expected as many steps of {sum(counts)} environments, got {state['environment_steps']}")
        for rollout, count, generator in zip(self.rollouts.values(), counts, state["generator"], strict=True):
            rollout.load_state_dict({"environment_steps": each * count, "generator": generator.clone()})

    def cut(self) -> None:
        """As `Rollout.cut`."""
        for rollout in self.rollouts.values():
            rollout.cut()

    def restart(self, seeds: Sequence[int]) -> None:
        """As `Rollout.restart`; one seed for each environment of all domains."""
        first = 0
        for rollout in self.rollouts.values():
            count = rollout.environments.num_envs
            rollout.restart(seeds[first : first + count])
            first += count

    def collect(self, steps: int, stop: Callable[[], bool] | None = None) -> list[Trial]:
        """As `Rollout.collect`, where `stop` is asked when all environments have taken a step; tasks are the run's."""
        trials: list[Trial] = []
        for _ in range(steps):
            for name, rollout in self.rollouts.items():
                trials += [replace(trial, task=self._tasks[name][trial.task]) for trial in rollout.collect(1)]
            if stop is not None and stop():
                break
        return trials
