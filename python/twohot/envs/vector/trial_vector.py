"""Trials, in this process or in workers, as a gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from twohot.envs.vector.serial import SerialEnvironments, env_seeds, reset_mask
from twohot.envs.vector.workers import Workers
from twohot.envs.wrappers.actions import check_actions
from twohot.spaces import OBSERVATION

WorkerChoice = Literal["auto", "in-process", "processes"]


class TrialEnvironments(Protocol):
    """Trials of many environments without autoreset, stepped together: what `make_vector` makes."""

    @property
    def num_envs(self) -> int:
        """Number of environments."""
        ...

    @property
    def single_observation_space(self) -> spaces.Space:
        """Of one environment."""
        ...

    @property
    def single_action_space(self) -> spaces.Space:
        """Of one environment."""
        ...

    @property
    def workers(self) -> WorkerChoice:
        """Where they are: "in-process" or "processes"."""
        ...

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Observations and infos of new trials: in all environments, or where `options["reset_mask"]` is True."""
        ...

    def step(self, actions: np.ndarray, /) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Observation, reward, terminated, truncated and info of every environment."""
        ...

    def render(self) -> tuple[Any, ...] | None:
        """A picture of each environment, where the suite draws any."""
        ...

    def close(self) -> None:
        """Close all environments; a second call does nothing."""
        ...


class TrialVector(VectorEnv):
    """`TrialEnv`s as a gymnasium vector environment without autoreset.

    Arrays that `reset` and `step` return are the caller's own: no later call writes into them. An environment whose
    trial has ended stands still, with its last observation and reward 0, until it is reset. `reset` takes a seed for
    each environment and the options "reset_mask" (bool, (environments,), which to reset; all without it) and "task" (a
    name, or one for each environment).

    An environment whose worker process died has `info["interrupted"]` True: discard its trial; the observation is the
    first one of another.

    Args:
        trials: the environments, in this process or in workers.
        environments: how many. observation_space, action_space: of one.

    Attributes:
        workers: "in-process" or "processes".
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 (gymnasium's own way)

    def __init__(
        self,
        trials: SerialEnvironments | Workers,
        environments: int,
        observation_space: spaces.Box | spaces.Dict,
        action_space: spaces.Space,
    ) -> None:
        self.trials, self.num_envs = trials, environments
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, environments)
        self.action_space = batch_space(action_space, environments)
        self._single = not isinstance(observation_space, spaces.Dict)
        self.workers: WorkerChoice = "processes" if isinstance(trials, Workers) else "in-process"
        self._closed = False

    def reset(self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None):
        options = dict(options or {})
        indices = np.flatnonzero(reset_mask(options, self.num_envs)).tolist()
        options.pop("reset_mask", None)
        seeds = env_seeds(seed, self.num_envs)
        task = options.pop("task", None)
        tasks = [task] * self.num_envs if task is None or isinstance(task, str) else task
        each = [{**options, "task": tasks[index]} for index in indices]
        infos = self.trials.reset(indices, [seeds[index] for index in indices], each)
        return self._observation(), self._merged(infos)

    def step(self, actions):
        """One step of every environment; raises ActionError for actions that the space does not have."""
        arrays = self.trials.arrays
        arrays.action[...] = check_actions(actions, self.single_action_space, self.num_envs)
        infos = self.trials.step()
        ends = arrays.terminated.copy(), arrays.truncated.copy()
        return self._observation(), arrays.reward.copy(), *ends, self._merged(infos)

    def render(self) -> tuple[Any, ...]:
        """A picture of each environment, uint8 [H, W, 3], where its suite draws any."""
        return tuple(picture for _, picture in self.trials.render())

    def close(self, **_: Any) -> None:
        """Close all environments; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self.trials.close()

    def _observation(self) -> Any:
        parts = self.trials.arrays.observation
        if self._single:
            return parts[OBSERVATION].copy()
        return {name: part.copy() for name, part in parts.items()}

    def _merged(self, infos: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for index, info in infos:
            merged = self._add_info(merged, info, index)
        return merged
