"""Environments stepped one after the other, and the arrays that they write into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from twohot._moved import renamed_attributes
from twohot.spaces import OBSERVATION, dtype_of, shape_of

INTERRUPTED = "interrupted"
"""Info key: the worker of this environment died, or its reset failed. Discard everything since its last reset; a new
episode has begun."""

Infos = list[tuple[int, dict[str, Any]]]
"""What environments have to say besides numbers: their index and their info."""


@dataclass(frozen=True)
class Arrays:
    """Everything of `E` environments that has a fixed shape.

    Args:
        observation: each part, (E, *shape). action: (E, *shape). reward: float64, (E,). terminated, truncated: bool,
            (E,).
    """

    observation: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    def part(self, of: slice) -> Arrays:
        """Views of some environments."""
        observation = {name: array[of] for name, array in self.observation.items()}
        return Arrays(observation, self.action[of], self.reward[of], self.terminated[of], self.truncated[of])


def allocate(
    observation_space: gym.Space,
    action_space: gym.Space,
    num_envs: int,
    empty: Callable[[tuple[int, ...], np.dtype], np.ndarray] = np.zeros,
) -> Arrays:
    """Arrays for `num_envs` environments, each made by `empty(shape, dtype)`, always in the same order."""
    dict_space = isinstance(observation_space, gym.spaces.Dict)
    parts = observation_space.spaces if dict_space else {OBSERVATION: observation_space}
    return Arrays(
        {name: empty((num_envs, *shape_of(part)), dtype_of(part)) for name, part in parts.items()},
        empty((num_envs, *shape_of(action_space)), dtype_of(action_space)),
        *(empty((num_envs,), np.dtype(dtype)) for dtype in (np.float64, bool, bool)),
    )


def reset_mask(options: Mapping[str, Any], num_envs: int) -> np.ndarray:
    """The environments to reset: `options["reset_mask"]`, bool [num_envs], or all.

    Raises:
        ValueError, TypeError: it has another shape or dtype, or no True.
    """
    mask = options.get("reset_mask")
    if mask is None:
        return np.ones(num_envs, bool)
    if not isinstance(mask, np.ndarray) or mask.dtype != bool:
        raise TypeError(f"expected reset_mask to be a bool array, got {mask!r}")
    if mask.shape != (num_envs,) or not mask.any():
        raise ValueError(f"expected a reset_mask of shape ({num_envs},) with at least one True, got {mask}")
    return mask


def env_seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> Sequence[int | None]:
    """One seed for each environment: those given, or counting up from one, or None for all.

    Raises:
        ValueError: another number of seeds.
    """
    if seed is None:
        return [None] * num_envs
    seeds = [seed + index for index in range(num_envs)] if isinstance(seed, int) else seed
    if len(seeds) != num_envs:
        raise ValueError(f"expected {num_envs} seeds, one for each environment, got {len(seeds)}")
    return seeds


class SerialEnvironments:
    """Environments in this process, stepped one after the other, whose observations, rewards and ends go into arrays.

    An environment that has ended stands still, its observation the last one and its reward 0, until it is reset.

    Args:
        environments: any number.
        arrays: of as many; read and written here.
    """

    def __init__(self, environments: Sequence[gym.Env], arrays: Arrays) -> None:
        self.environments, self.arrays = list(environments), arrays
        self._still = np.ones(len(self.environments), bool)
        single = not isinstance(environments[0].observation_space, gym.spaces.Dict)
        self._single = arrays.observation[OBSERVATION] if single else None

    def reset(
        self, indices: Sequence[int], seeds: Sequence[int | None], options: Sequence[dict[str, Any] | None]
    ) -> Infos:
        """Begin an episode in each environment of `indices`, each with a seed and options."""
        arrays, infos = self.arrays, []
        for index, seed, option in zip(indices, seeds, options, strict=True):
            observation, info = self.environments[index].reset(seed=seed, options=option)
            self._store(index, observation)
            arrays.reward[index] = 0
            arrays.terminated[index] = arrays.truncated[index] = self._still[index] = False
            infos.append((index, info))
        return infos

    def step(self) -> Infos:
        """Take the actions that stand in the arrays."""
        arrays, infos = self.arrays, []
        reward, terminated, truncated = arrays.reward, arrays.terminated, arrays.truncated
        actions = arrays.action.tolist() if arrays.action.ndim == 1 else arrays.action
        still = self._still.tolist()
        for index, (environment, action) in enumerate(zip(self.environments, actions, strict=True)):
            if still[index]:
                reward[index] = 0
                terminated[index] = truncated[index] = False
                continue
            observation, reward[index], ended, cut, info = environment.step(action)
            self._store(index, observation)
            terminated[index], truncated[index] = ended, cut
            if ended or cut:
                self._still[index] = True
            if info:
                infos.append((index, info))
        return infos

    def render(self) -> list[tuple[int, Any]]:
        """Each environment's index and picture, an array of the caller's own."""
        return [(index, environment.render()) for index, environment in enumerate(self.environments)]

    def close(self) -> None:
        """Close every environment."""
        for environment in self.environments:
            environment.close()

    def _store(self, index: int, observation: Any) -> None:
        if self._single is not None:
            self._single[index] = observation
            return
        for name, part in self.arrays.observation.items():
            part[index] = observation[name]


__getattr__ = renamed_attributes(__name__, LOST="INTERRUPTED", Rows="SerialEnvironments", row_seeds="env_seeds")
