"""Observations of finite choices and numbers as one flat vector."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import UnsupportedSpaceError

SUPPORTED_OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Tuple or Dict of those"

_Write = Callable[[Any, np.ndarray], None]


class OneHotObservation(gym.Wrapper):
    """Any observation of finite choices and numbers as one flat float32 vector.

    Discrete(n) becomes n entries with a single 1; MultiDiscrete one such block for each entry; Box and
    MultiBinary are copied; Tuple and Dict are laid side by side in the order of their space.

    Args:
        env: observation space of the kinds above.

    Raises:
        UnsupportedSpaceError: any other observation space.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        low, high, self._write = _encoding(env.observation_space, 0)
        self._size = low.size
        self.observation_space = spaces.Box(low, high, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        observation, info = self.env.reset(seed=seed, options=options)
        return self._encode(observation), info

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._encode(observation), reward, terminated, truncated, info

    def _encode(self, observation: Any) -> np.ndarray:
        encoded = np.zeros(self._size, np.float32)
        self._write(observation, encoded)
        return encoded


def one_hot_writer(space: gym.Space) -> _Write:
    """write(value, encoded) that sets what `OneHotObservation` shows of a value of `space`, in zeros of its size."""
    return _encoding(space, 0)[2]


def _encoding(space: gym.Space, start: int) -> tuple[np.ndarray, np.ndarray, _Write]:
    """Bounds of the encoded space and a function that writes a value of it into entries from `start` on."""
    if isinstance(space, spaces.Discrete):
        offset, size = start - int(space.start), int(space.n)

        def write_discrete(value: Any, encoded: np.ndarray) -> None:
            encoded[offset + value] = 1.0

        return np.zeros(size, np.float32), np.ones(size, np.float32), write_discrete
    if isinstance(space, spaces.MultiDiscrete):
        counts, firsts = space.nvec.ravel(), space.start.ravel()
        size = int(counts.sum())
        offsets = start + np.cumsum(counts) - counts - firsts

        def write_multi_discrete(value: Any, encoded: np.ndarray) -> None:
            encoded[offsets + np.ravel(value)] = 1.0

        return np.zeros(size, np.float32), np.ones(size, np.float32), write_multi_discrete
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        size = math.prod(space.shape)
        low, high = (space.low, space.high) if isinstance(space, spaces.Box) else (np.zeros(size), np.ones(size))

        def write_numbers(value: Any, encoded: np.ndarray) -> None:
            encoded[start : start + size] = np.ravel(value)

        return low.astype(np.float32).ravel(), high.astype(np.float32).ravel(), write_numbers
    if isinstance(space, (spaces.Tuple, spaces.Dict)):
        keys = list(space.spaces) if isinstance(space, spaces.Dict) else list(range(len(space.spaces)))
        lows, highs, writers = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)], []
        for key in keys:
            low, high, write_part = _encoding(space.spaces[key], start)
            start += low.size
            lows.append(low)
            highs.append(high)
            writers.append((key, write_part))

        def write_parts(value: Any, encoded: np.ndarray) -> None:
            for key, write_part in writers:
                write_part(value[key], encoded)

        return np.concatenate(lows), np.concatenate(highs), write_parts
    raise UnsupportedSpaceError(f"expected an observation space of {SUPPORTED_OBSERVATIONS}, got {space}")
