"""Environments stepped one after the other, and the arrays that they write into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from twohot.envs.wrappers.padding import OBSERVATION

LOST = "lost"
"""In the info of a row of which nothing since its reset counts, and in which another episode has begun with this step:
its worker died, or it could not begin at its reset."""

Infos = list[tuple[int, dict[str, Any]]]
"""What rows have to say besides numbers: their index and their info."""


@dataclass(frozen=True)
class Arrays:
    """Everything of `E` rows that has a fixed shape.

    Args:
        observation: each part, (E, *shape). action: (E, *shape). reward: float64, (E,). terminated, truncated: bool,
            (E,).
    """

    observation: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    def part(self, rows: slice) -> Arrays:
        """Views of some rows."""
        observation = {name: array[rows] for name, array in self.observation.items()}
        return Arrays(observation, self.action[rows], self.reward[rows], self.terminated[rows], self.truncated[rows])


def allocate(
    observation_space: gym.Space,
    action_space: gym.Space,
    rows: int,
    empty: Callable[[tuple[int, ...], np.dtype], np.ndarray] = np.zeros,
) -> Arrays:
    """Arrays for `rows` rows of these spaces, each made by `empty(shape, dtype)`, always in the same order."""
    dict_space = isinstance(observation_space, gym.spaces.Dict)
    parts = observation_space.spaces if dict_space else {OBSERVATION: observation_space}
    return Arrays(
        {name: empty((rows, *part.shape), part.dtype) for name, part in parts.items()},
        empty((rows, *action_space.shape), action_space.dtype),
        *(empty((rows,), np.dtype(dtype)) for dtype in (np.float64, bool, bool)),
    )


def reset_mask(options: Mapping[str, Any], rows: int) -> np.ndarray:
    """The rows to reset: `options["reset_mask"]`, bool [rows], or all.

    Raises:
        ValueError, TypeError: it has another shape or dtype, or no True.
    """
    mask = options.get("reset_mask")
    if mask is None:
        return np.ones(rows, bool)
    if not isinstance(mask, np.ndarray) or mask.dtype != bool:
        raise TypeError(f"expected reset_mask to be a bool array, got {mask!r}")
    if mask.shape != (rows,) or not mask.any():
        raise ValueError(f"expected a reset_mask of shape ({rows},) with at least one True, got {mask}")
    return mask


def row_seeds(seed: int | Sequence[int | None] | None, rows: int) -> Sequence[int | None]:
    """One seed for each row: those given, or counting up from one, or None for all.

    Raises:
        ValueError: another number of seeds.
    """
    if seed is None:
        return [None] * rows
    seeds = [seed + row for row in range(rows)] if isinstance(seed, int) else seed
    if len(seeds) != rows:
        raise ValueError(f"expected {rows} seeds, one for each row, got {len(seeds)}")
    return seeds


class Rows:
    """Environments whose observations, rewards and ends go into the rows of arrays.

    An environment that has ended stands still, its observation the last one and its reward 0, until it is reset.

    Args:
        environments: one for each row.
        arrays: of as many rows; read and written here.
    """

    def __init__(self, environments: Sequence[gym.Env], arrays: Arrays) -> None:
        self.environments, self.arrays = list(environments), arrays
        self._still = np.ones(len(self.environments), bool)
        single = not isinstance(environments[0].observation_space, gym.spaces.Dict)
        self._single = arrays.observation[OBSERVATION] if single else None

    def reset(
        self, rows: Sequence[int], seeds: Sequence[int | None], options: Sequence[dict[str, Any] | None]
    ) -> Infos:
        """Begin an episode in each of `rows`, with a seed and options of its own."""
        arrays, infos = self.arrays, []
        for row, seed, option in zip(rows, seeds, options, strict=True):
            observation, info = self.environments[row].reset(seed=seed, options=option)
            self._store(row, observation)
            arrays.reward[row] = 0
            arrays.terminated[row] = arrays.truncated[row] = self._still[row] = False
            infos.append((row, info))
        return infos

    def step(self) -> Infos:
        """Take the actions that stand in the arrays."""
        arrays, infos = self.arrays, []
        reward, terminated, truncated = arrays.reward, arrays.terminated, arrays.truncated
        actions = arrays.action.tolist() if arrays.action.ndim == 1 else arrays.action
        still = self._still.tolist()
        for row, (environment, action) in enumerate(zip(self.environments, actions, strict=True)):
            if still[row]:
                reward[row] = 0
                terminated[row] = truncated[row] = False
                continue
            observation, reward[row], ended, cut, info = environment.step(action)
            self._store(row, observation)
            terminated[row], truncated[row] = ended, cut
            if ended or cut:
                self._still[row] = True
            if info:
                infos.append((row, info))
        return infos

    def render(self) -> list[tuple[int, Any]]:
        """Each row's index and picture, an array of the caller's own."""
        return [(row, environment.render()) for row, environment in enumerate(self.environments)]

    def close(self) -> None:
        """Close every environment."""
        for environment in self.environments:
            environment.close()

    def _store(self, row: int, observation: Any) -> None:
        if self._single is not None:
            self._single[row] = observation
            return
        for name, part in self.arrays.observation.items():
            part[row] = observation[name]
