"""Gymnasium wrappers that bring any task to one shape: flat observations, one action count, trials of attempts.

Each can be used alone. They sit on the path of every environment step, so a step does no look-up that the
constructor could do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import UnsupportedSpaceError

SUPPORTED_OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Tuple or Dict of those"
SUPPORTED_ACTIONS = "Discrete and MultiDiscrete"

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
        low, high, self._write = _one_hot_writer(env.observation_space, 0)
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


def _one_hot_writer(space: gym.Space, start: int) -> tuple[np.ndarray, np.ndarray, _Write]:
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
            low, high, write_part = _one_hot_writer(space.spaces[key], start)
            start += low.size
            lows.append(low)
            highs.append(high)
            writers.append((key, write_part))

        def write_parts(value: Any, encoded: np.ndarray) -> None:
            for key, write_part in writers:
                write_part(value[key], encoded)

        return np.concatenate(lows), np.concatenate(highs), write_parts
    raise UnsupportedSpaceError(f"expected an observation space of {SUPPORTED_OBSERVATIONS}, got {space}")


class FlatDiscreteAction(gym.Wrapper):
    """MultiDiscrete actions as one Discrete, counted in C order; Discrete actions stay as they are.

    Args:
        env: action space Discrete or MultiDiscrete.

    Raises:
        UnsupportedSpaceError: any other action space; continuous actions are not supported yet.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        space = env.action_space
        if isinstance(space, spaces.MultiDiscrete):
            counts = space.nvec.ravel().astype(np.int64)
            self._counts, self._first, self._shape = counts, space.start.ravel(), space.shape
            self._strides = np.cumprod(np.append(counts[1:], 1)[::-1])[::-1]
            self.action_space = spaces.Discrete(math.prod(counts.tolist()))
        elif isinstance(space, spaces.Discrete):
            self._counts = None
        else:
            advice = "; continuous actions are not supported yet" if isinstance(space, spaces.Box) else ""
            raise UnsupportedSpaceError(f"expected an action space of {SUPPORTED_ACTIONS}, got {space}{advice}")

    def step(self, action):
        if self._counts is not None:
            action = (action // self._strides % self._counts + self._first).reshape(self._shape)
        return self.env.step(action)


class ScaleReward(gym.Wrapper):
    """Multiplies every reward by one number. Rewards are never clipped.

    Raises:
        ValueError: the multiplier is not finite.
    """

    def __init__(self, env: gym.Env, multiplier: float) -> None:
        super().__init__(env)
        if not math.isfinite(multiplier):
            raise ValueError(f"expected a finite reward multiplier, got {multiplier}")
        self.multiplier = float(multiplier)

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward * self.multiplier, terminated, truncated, info


class TimeLimitTerminates(gym.Wrapper):
    """Ends by a time limit become terminations: for games whose clock is part of the rules.

    A truncated step would bootstrap from the value of a state that the game never reaches.
    """

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated or truncated, False, info


class PadObservation(gym.Wrapper):
    """Appends zeros to a flat observation until it has `size + spare` entries. Every step returns a new array.

    Args:
        env: observation a one-dimensional Box of at most `size` entries.
        size: entries for the observation.
        spare: further entries, never the observation's, in which a caller may write features.

    Raises:
        UnsupportedSpaceError: the observation is not a one-dimensional Box.
        ValueError: the observation is larger than `size`.
    """

    def __init__(self, env: gym.Env, size: int, spare: int = 0) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise UnsupportedSpaceError(f"expected a one-dimensional Box observation, got {space}: OneHotObservation")
        self._own_size, self._size = space.shape[0], size + spare
        if self._own_size > size:
            raise ValueError(
                f"expected at most {size} observation entries, got {self._own_size} from {env}: raise observation_size"
            )
        padding = (0, self._size - self._own_size)
        self.observation_space = spaces.Box(
            np.pad(space.low.astype(np.float32), padding), np.pad(space.high.astype(np.float32), padding)
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        observation, info = self.env.reset(seed=seed, options=options)
        return self._pad(observation), info

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._pad(observation), reward, terminated, truncated, info

    def _pad(self, observation: np.ndarray) -> np.ndarray:
        padded = np.zeros(self._size, np.float32)
        padded[: self._own_size] = observation
        return padded


class PadActions(gym.Wrapper):
    """Offers `count` actions; one beyond the task's own becomes a uniformly random legal one.

    Random choices come from a generator of its own, seeded by `reset(seed=...)`, so that they change no
    random number of the environment.

    Attributes:
        legal: whether the last action was one of the task's own; True after a reset.

    Raises:
        UnsupportedSpaceError: the action space is not Discrete.
        ValueError: the task has more than `count` actions, or an action is outside [0, count).
    """

    def __init__(self, env: gym.Env, count: int) -> None:
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, spaces.Discrete):
            raise UnsupportedSpaceError(f"expected a Discrete action space, got {space}: FlatDiscreteAction")
        self._own_count, self._count, self._first = int(space.n), int(count), int(space.start)
        if self._own_count > count:
            raise ValueError(f"expected at most {count} actions, got {self._own_count} from {env}: raise actions")
        self.action_space = spaces.Discrete(self._count)
        self._random = np.random.default_rng().random
        self.legal = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if seed is not None:
            # The second word keeps this stream apart from that of an environment with the same seed.
            self._random = np.random.default_rng((seed, 1)).random
        self.legal = True
        return self.env.reset(seed=seed, options=options)

    def step(self, action):
        action = int(action)
        if not 0 <= action < self._count:
            raise ValueError(f"expected an action in [0, {self._count}), got {action}")
        self.legal = action < self._own_count
        if not self.legal:
            # Three times faster than Generator.integers for one number; uniform to 2**-53 * own_count.
            action = int(self._random() * self._own_count)
        return self.env.step(self._first + action)


class Attempts(gym.Wrapper):
    """`attempts` episodes of the inner environment as one trial, which is one episode for the outside.

    When an attempt ends before the last, the inner environment is reset at once, with a fresh seed from the
    trial's own generator: the step that ended it returns its reward together with the first observation of the
    next attempt, neither terminated nor truncated, and no step is spent on the reset. The last attempt's end is
    the trial's end, and its info also holds `attempt_returns` (float32, (attempts,), true returns, free attempts
    too) and `attempt_lengths` (int32, (attempts,), steps).

    Args:
        env: any environment.
        attempts: attempts in a trial, at least 1.
        free_attempts: in the first `free_attempts` attempts the returned reward is 0; fewer than `attempts`.

    Attributes:
        attempt: index of the attempt that the last returned observation belongs to.
        last_reward: the true reward of the last step, in a free attempt too; 0 after a reset.

    Raises:
        ValueError: `attempts` or `free_attempts` is outside its range.
    """

    def __init__(self, env: gym.Env, attempts: int, free_attempts: int = 0) -> None:
        super().__init__(env)
        check_attempts(attempts, free_attempts)
        self.attempts, self.free_attempts = attempts, free_attempts
        self._generator = np.random.default_rng()
        self._begin()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        self._begin()
        return self.env.reset(seed=draw_seed(self._generator), options=options)

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        attempt = self.attempt
        self.last_reward = reward = float(reward)
        self._returns[attempt] += reward
        self._lengths[attempt] += 1
        if attempt < self.free_attempts:
            reward = 0.0
        if terminated or truncated:
            if attempt < self.attempts - 1:
                self.attempt += 1
                observation, info = self.env.reset(seed=draw_seed(self._generator))
                terminated = truncated = False
            else:
                info = {
                    **info,
                    "attempt_returns": np.array(self._returns, np.float32),
                    "attempt_lengths": np.array(self._lengths, np.int32),
                }
        return observation, reward, terminated, truncated, info

    def _begin(self) -> None:
        self.attempt = 0
        self.last_reward = 0.0
        self._returns = [0.0] * self.attempts
        self._lengths = [0] * self.attempts


def check_attempts(attempts: int, free_attempts: int) -> None:
    """Raises ValueError unless 1 <= attempts and 0 <= free_attempts < attempts."""
    if attempts < 1:
        raise ValueError(f"expected at least 1 attempt, got {attempts}")
    if not 0 <= free_attempts < attempts:
        raise ValueError(f"expected 0 <= free_attempts < attempts = {attempts}, got free_attempts {free_attempts}")


def draw_seed(generator: np.random.Generator) -> int:
    """A seed in [0, 2**31 - 1), which every environment's own seeding accepts."""
    return int(generator.integers(2**31 - 1))
