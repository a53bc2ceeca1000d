"""Trials of one task for many rows at once: what `TrialEnv`s in a vector do, in a few numpy calls for all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from twohot.envs.attempts import check_attempts, draw_seed
from twohot.envs.batched import EnvBatch


class BatchedTrials(VectorEnv):
    """A vector of trials without autoreset, the same bit for bit as a `TrialVector` with the same seeds.

    Observations, rewards, `reset(options={"reset_mask": ...})` and infos are those of
    `make_vector(suite, (task,), ...)`. The task is the only one, so that no action is illegal.

    Args:
        batch: plays attempts. attempts, free_attempts: as for `TrialEnv`.
        multiplier: factor on every reward.
        observation_size: entries before the features, 0 for the task's own.
        context_features: whether the four features are appended.
        step_limit: steps after which a trial is truncated; 0 means never.

    Raises:
        ValueError: an argument is outside its range, or the observation is larger than `observation_size`.
    """

    def __init__(
        self,
        batch: EnvBatch,
        *,
        attempts: int = 1,
        free_attempts: int = 0,
        multiplier: float = 1.0,
        observation_size: int = 0,
        context_features: bool = True,
        step_limit: int = 0,
    ) -> None:
        check_attempts(attempts, free_attempts)
        own_size = batch.observation_space.shape[0]
        size = observation_size or own_size
        if size < own_size:
            raise ValueError(f"expected at most {size} observation entries, got {own_size}: raise observation_size")
        self.batch, self.num_envs, self.workers = batch, batch.rows, "in-process"
        self.attempts, self.free_attempts, self.multiplier = attempts, free_attempts, float(multiplier)
        self._own_size, self._size, self._features = own_size, size, 4 if context_features else 0
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (size + self._features,), np.float32)
        self.single_action_space = batch.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        rows = self.num_envs
        self._index = np.arange(rows)
        self._random: list[np.random.Generator] = [np.random.default_rng() for _ in range(rows)]
        self._attempt_random: list[np.random.Generator | None] = [None] * rows  # seeded by the row's first trial
        self._steps, self._attempt = np.zeros((2, rows), np.int64)
        self._last_reward = np.zeros(rows)
        self._returns = np.zeros((rows, attempts))
        self._lengths = np.zeros((rows, attempts), np.int32)
        self._successes = np.zeros((rows, attempts), bool)
        self._ended = np.ones(rows, bool)
        self._step_limit = step_limit or np.inf
        self._shown = np.zeros((rows, size + self._features), np.float32)

    def reset(self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None):
        """Starts new trials: in all rows, or where `options["reset_mask"]`, bool [rows], is True.

        Args:
            seed: one for each row, or one from which row i takes seed + i; None goes on with the row's own stream.

        Raises:
            ValueError: a mask of another shape or dtype, or without a True; another number of seeds.
        """
        mask = (options or {}).get("reset_mask")
        mask = np.ones(self.num_envs, bool) if mask is None else np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(f"reset_mask: expected bool [{self.num_envs}] with a True, got {mask}")
        seeds = [seed + row for row in range(self.num_envs)] if isinstance(seed, int) else seed
        if seeds is not None and len(seeds) != self.num_envs:
            raise ValueError(f"seed: expected {self.num_envs}, got {len(seeds)}")
        for row in np.flatnonzero(mask):
            if seeds is not None and seeds[row] is not None:
                self._random[row] = _generator(seeds[row])
                self._attempt_random[row] = None
            if self._attempt_random[row] is None:
                self._attempt_random[row] = _generator(draw_seed(self._random[row]))
            self._attempt[row] = 0
            self._begin_attempt(row)
        for array in (self._steps, self._last_reward, self._returns, self._lengths, self._successes, self._ended):
            array[mask] = 0
        return self._observe(self._ended), {"task": np.zeros(self.num_envs, np.int64), "_task": mask.copy()}

    def step(self, actions: np.ndarray):
        """Rows that have ended stand still. Raises ValueError for actions that the task does not have."""
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or (actions < 0).any() or (actions >= self.single_action_space.n).any():
            raise ValueError(f"expected actions [{self.num_envs}] of {self.single_action_space}, got {actions}")
        reward, terminated, truncated = self.batch.step(actions)
        index, attempt, live = self._index, self._attempt.copy(), ~self._ended
        self._last_reward = np.where(live, reward, 0.0).astype(np.float64)
        self._steps += live
        self._returns[index, attempt] += self._last_reward
        self._lengths[index, attempt] += live
        self._successes[index, attempt] |= self.batch.success & live
        over = (terminated | truncated) & live
        own_end = over & (attempt == self.attempts - 1)
        cut = live & ~own_end & (self._steps >= self._step_limit)
        ended = own_end | cut
        info = self._results(ended) if ended.any() else {}
        for row in np.flatnonzero(over & ~own_end):
            self._attempt[row] += 1
            self._begin_attempt(row)
        self._ended |= ended
        counted = np.where(attempt < self.free_attempts, 0.0, self._last_reward) * self.multiplier
        return self._observe(~live), counted, terminated & own_end, (truncated & own_end) | cut, info

    def _begin_attempt(self, row: int) -> None:
        new_task = not self.batch.hidden_task or self._attempt[row] == 0
        self.batch.reset(row, _generator(draw_seed(self._attempt_random[row])), new_task=new_task)

    def _observe(self, still: np.ndarray) -> np.ndarray:
        """What the rows show, those that stand still what they showed before."""
        observation = np.zeros((self.num_envs, self._size + self._features), np.float32)
        observation[:, : self._own_size] = self.batch.observe()
        if self._features:
            observation[:, -4] = self._steps / 1000
            observation[:, -3] = self._attempt / max(1, self.attempts - 1)
            observation[:, -2] = 1.0
            observation[:, -1] = self._last_reward * self.multiplier
        observation[still] = self._shown[still]
        self._shown = observation
        return observation.copy()

    def _results(self, ended: np.ndarray) -> dict[str, np.ndarray]:
        """The infos of rows whose trial has ended; those of other rows do not count, as `_name` says."""
        results = {
            "task": np.zeros(self.num_envs, np.int64),
            "attempt_returns": np.where(ended[:, None], self._returns, 0.0).astype(np.float32),
            "attempt_lengths": np.where(ended[:, None], self._lengths, 0),
            "attempt_success": self._successes & ended[:, None],
        }
        for row in np.flatnonzero(ended) if self.attempts == 1 else ():
            for name, own in self.batch.info(row).items():
                if results[name].shape[1:] != own.shape:
                    results[name] = np.zeros((self.num_envs, *own.shape), own.dtype)
                results[name][row] = own
        return {**results, **{f"_{name}": ended.copy() for name in results}}


def _generator(seed: int) -> np.random.Generator:
    """As gymnasium's own seeding, without its checks."""
    return np.random.Generator(np.random.PCG64(seed))
