"""Trials: several attempts at one hidden task as one episode."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Attempts(gym.Wrapper):
    """`attempts` episodes of the inner environment as one trial, which is one episode for the outside.

    When an attempt ends before the last, the inner environment is reset at once, with a fresh seed from the
    trial's own generator: the step that ended it returns its reward together with the first observation of the
    next attempt, neither terminated nor truncated, and no step is spent on the reset. The last attempt's end is
    the trial's end, and its info also holds `attempt_returns` (float32, (attempts,), true returns, free attempts
    too), `attempt_lengths` (int32, (attempts,), steps) and `attempt_success` (bool, (attempts,), whether a step's
    info had a true `success`). Where the trial has one attempt, an environment
    that holds attempts itself may put its own three into its last info.

    An environment whose attribute `hidden_task` is true is reset with `options={"attempt": i}`: it draws what is
    hidden at 0 and keeps it at 1, 2, ...

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
        if info.get("success"):
            self._successes[attempt] = True
        if attempt < self.free_attempts:
            reward = 0.0
        if terminated or truncated:
            if attempt < self.attempts - 1:
                self.attempt += 1
                observation, info = self._reset()
                terminated = truncated = False
            else:
                info = {**self.results(), **info} if self.attempts == 1 else {**info, **self.results()}
        return observation, reward, terminated, truncated, info

    def results(self) -> dict[str, np.ndarray]:
        """What the attempts so far have come to, as in the info of the last one's end."""
        return {
            "attempt_returns": np.array(self._returns, np.float32),
            "attempt_lengths": np.array(self._lengths, np.int32),
            "attempt_success": np.array(self._successes, bool),
        }

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


def check_attempts(attempts: int, free_attempts: int) -> None:
    """Raises ValueError unless 1 <= attempts and 0 <= free_attempts < attempts."""
    if attempts < 1:
        raise ValueError(f"expected at least 1 attempt, got {attempts}")
    if not 0 <= free_attempts < attempts:
        raise ValueError(f"expected 0 <= free_attempts < attempts = {attempts}, got free_attempts {free_attempts}")


def draw_seed(generator: np.random.Generator) -> int:
    """A seed in [0, 2**31 - 1), which every environment's own seeding accepts."""
    return int(generator.integers(2**31 - 1))
