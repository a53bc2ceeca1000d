"""Trials: several attempts at one hidden task as one episode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from twohot._moved import renamed_arguments
from twohot.envs.checked import LARGEST, as_numbers, shown
from twohot.envs.errors import InfoError
from twohot.errors import BrokenEnvironmentError

RESULTS = {"attempt_returns": np.float32, "attempt_lengths": np.int32, "attempt_success": bool}
"""What the info of a trial's last step holds besides `task` and `success_told`, one entry for each attempt, and its
dtype."""
SUCCESS = ("success", "is_success")
"""Entries of an info that tell of a success; the first that is there counts."""


def told_success(info: Mapping[str, Any]) -> bool | None:
    """Whether a step's info tells of a success; None where it says nothing.

    Raises:
        InfoError: for anything but one truth value: a bool or a number, alone or in an array.
    """
    for name in SUCCESS:
        value = info.get(name)
        if value is None:
            continue
        if value.__class__ is bool:
            return value
        told = as_numbers(value)
        if told is None or told.size != 1:
            raise InfoError(f"info[{name!r}]: expected one truth value, got {shown(value)}: fix the environment")
        return bool(told.item() > 0)
    return None


class Attempts(gym.Wrapper):
    """`attempts` episodes of the inner environment as one trial, which is one episode for the outside.

    When an attempt ends before the last, the inner environment is reset at once, with a fresh seed from the
    trial's own generator: the step that ended it returns its reward together with the first observation of the
    next attempt, neither terminated nor truncated, and no step is spent on the reset. The last attempt's end is
    the trial's end, and its info also holds `attempt_returns` (float32, (attempts,), true returns, unscored ones
    too), `attempt_lengths` (int32, (attempts,), steps), `attempt_success` (bool, (attempts,), whether a step's
    info told of a success, see `told_success`) and `success_told` (bool, whether any info said anything of it). Where
    the trial has one attempt, an environment that holds attempts itself may put its own first three into its last info,
    for any number of attempts; `attempt_success` only if it knows successes.

    An environment whose attribute `hidden_task` is true is reset with `options={"attempt": i}`: it draws what is
    hidden at 0 and keeps it at 1, 2, ...

    Args:
        env: any environment.
        attempts: attempts in a trial, at least 1.
        unscored_attempts: in the first `unscored_attempts` attempts the returned reward is 0; fewer than `attempts`.

    Attributes:
        attempt: index of the attempt that the last returned observation belongs to.
        last_reward: the true reward of the last step, in an unscored attempt too; 0 after a reset.

    Raises:
        ValueError: `attempts` or `unscored_attempts` is outside its range.
    """

    @renamed_arguments(free_attempts="unscored_attempts")
    def __init__(self, env: gym.Env, attempts: int, unscored_attempts: int = 0) -> None:
        super().__init__(env)
        check_attempts(attempts, unscored_attempts)
        self.attempts, self.unscored_attempts = attempts, unscored_attempts
        self._hides = env.has_wrapper_attr("hidden_task") and bool(env.get_wrapper_attr("hidden_task"))
        self._generator = np.random.default_rng()
        self._begin()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        self._begin()
        return self._reset(options)

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        attempt = self.attempt
        self.last_reward = reward = float(reward)
        self._returns[attempt] += reward
        self._lengths[attempt] += 1
        if info and (success := told_success(info)) is not None:
            self._told = True
            self._successes[attempt] |= success
        if attempt < self.unscored_attempts:
            reward = 0.0
        if terminated or truncated:
            if attempt < self.attempts - 1:
                self.attempt += 1
                observation, info = self._reset()
                terminated = truncated = False
            else:
                own = own_results(info) if self.attempts == 1 else {}
                self._told |= "attempt_success" in own
                info = {**info, **self.results(), **own}
        return observation, reward, terminated, truncated, info

    def results(self) -> dict[str, Any]:
        """What the attempts so far have come to, as in the info of the last one's end."""
        check_returns(self._returns)
        values = self._returns, self._lengths, self._successes
        columns = {name: np.array(each, RESULTS[name]) for name, each in zip(RESULTS, values, strict=True)}
        return {**columns, "success_told": self._told}

    def _reset(self, options: dict[str, Any] | None = None):
        if self._hides:
            options = {**(options or {}), "attempt": self.attempt}
        return self.env.reset(seed=draw_seed(self._generator), options=options)

    def _begin(self) -> None:
        self.attempt = 0
        self.last_reward = 0.0
        self._returns = [0.0] * self.attempts
        self._lengths = [0] * self.attempts
        self._successes = [False] * self.attempts
        self._told = False


def own_results(info: dict[str, Any]) -> dict[str, np.ndarray]:
    """What an environment that holds attempts itself says of them, in arrays that are the caller's own.

    Raises:
        BrokenEnvironmentError: their numbers of attempts differ, or they are no numbers that the arrays can hold.
    """
    if info.keys().isdisjoint(RESULTS):
        return {}
    own = {name: _column(name, info[name]) for name in RESULTS if name in info}
    # Of successes alone an environment may have nothing to say.
    lengths = [len(own[name]) if name in own else 1 for name in RESULTS if name in own or name != "attempt_success"]
    if len(set(lengths)) > 1:
        raise BrokenEnvironmentError(f"expected {', '.join(RESULTS)} of as many attempts each, got {lengths}")
    return own


def _column(name: str, values: Any) -> np.ndarray:
    """One of `RESULTS`, [attempts], a new array of its dtype."""
    array, dtype = as_numbers(values), RESULTS[name]
    with np.errstate(over="ignore", invalid="ignore"):
        column = np.array(array, dtype) if array is not None and array.ndim == 1 else None
    if column is None or not np.isfinite(column).all() or (dtype is not np.float32 and (column != array).any()):
        raise BrokenEnvironmentError(f"expected {name} as {np.dtype(dtype)} [attempts], all finite, got {values}")
    return column


def check_returns(returns: Iterable[float]) -> None:
    """Raises BrokenEnvironmentError unless float32 holds all of them."""
    for value in returns:
        if not abs(value) <= LARGEST:
            raise BrokenEnvironmentError(f"expected the rewards of an attempt to add up within float32, got {value}")


def check_attempts(attempts: int, unscored_attempts: int) -> None:
    """Raises ValueError unless 1 <= attempts and 0 <= unscored_attempts < attempts."""
    if attempts < 1:
        raise ValueError(f"expected at least 1 attempt, got {attempts}")
    if not 0 <= unscored_attempts < attempts:
        raise ValueError(f"expected unscored_attempts from 0 to below {attempts} attempts, got {unscored_attempts}")


def draw_seed(generator: np.random.Generator) -> int:
    """A seed in [0, 2**31 - 1), which every environment's own seeding accepts."""
    return int(generator.integers(2**31 - 1))
