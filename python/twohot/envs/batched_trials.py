"""Trials of many rows at once: what `TrialEnv`s in a vector do, in a few numpy calls for all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from twohot.envs.attempts import check_attempts, draw_seed
from twohot.envs.batched import EnvBatch
from twohot.envs.multitask import CONTEXT, CONTEXT_FEATURES
from twohot.envs.padding import OBSERVATION
from twohot.envs.registry import UnknownEnvironmentError


class BatchedTrials(VectorEnv):
    """A vector of trials without autoreset, the same bit for bit as a `TrialVector` with the same seeds.

    Observations, rewards, `reset(options={"reset_mask": ..., "task": ...})` and infos are those of
    `make_vector(suite, tasks, ...)`. All tasks have all actions, so that none is illegal.

    Args:
        batch: plays attempts at any of `tasks`.
        tasks: their names.
        attempts, free_attempts, reward_multipliers: as for `TrialEnv`.
        observation_size: entries of a flat observation before the features, 0 for the tasks' own.
        context_features: whether the four features are shown.
        step_limit: steps after which a trial is truncated; 0 means never.
        plays: for each row, indices of the tasks that are drawn in it; empty means all in every row.

    Raises:
        ValueError: an argument is outside its range, or the observation is larger than `observation_size`.
    """

    def __init__(
        self,
        batch: EnvBatch,
        tasks: Sequence[str],
        *,
        attempts: int = 1,
        free_attempts: int = 0,
        reward_multipliers: Sequence[float] = (),
        observation_size: int = 0,
        context_features: bool = True,
        step_limit: int = 0,
        plays: Sequence[Sequence[int]] = (),
    ) -> None:
        check_attempts(attempts, free_attempts)
        self.batch, self.num_envs, self.workers = batch, batch.rows, "in-process"
        self.tasks, self.attempts, self.free_attempts = tuple(tasks), attempts, free_attempts
        self.reward_multipliers = np.array(tuple(reward_multipliers) or (1.0,) * len(self.tasks))
        self._features = len(CONTEXT_FEATURES) if context_features else 0
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = self._space(observation_size)
        self.single_action_space = batch.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        rows = self.num_envs
        self._plays = tuple(map(tuple, plays)) or (tuple(range(len(self.tasks))),) * rows
        self._index = np.arange(rows)
        self._random: list[np.random.Generator] = [np.random.default_rng() for _ in range(rows)]
        # For each task that the row has played since it was seeded; runs on from trial to trial.
        self._attempt_random: list[dict[int, np.random.Generator]] = [{} for _ in range(rows)]
        self._task, self._steps, self._attempt = np.zeros((3, rows), np.int64)
        self._last_reward = np.zeros(rows)
        self._multiplier = np.ones(rows)
        self._returns = np.zeros((rows, attempts))
        self._lengths = np.zeros((rows, attempts), np.int32)
        self._successes = np.zeros((rows, attempts), bool)
        self._ended = np.ones(rows, bool)
        self._step_limit = step_limit or np.inf
        self._last = {
            name: np.zeros(space.shape, space.dtype) for name, space in _parts(self.observation_space).items()
        }

    def _space(self, size: int) -> spaces.Box | spaces.Dict:
        own = self.batch.observation_space
        if len(own.shape) > 1:
            context = {CONTEXT: spaces.Box(-np.inf, np.inf, (self._features,), np.float32)} if self._features else {}
            return spaces.Dict({OBSERVATION: own, **context})
        size = size or own.shape[0]
        if size < own.shape[0]:
            raise ValueError(f"expected at most {size} observation entries, got {own.shape[0]}: raise observation_size")
        return spaces.Box(-np.inf, np.inf, (size + self._features,), np.float32)

    def reset(self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None):
        """Starts new trials: in all rows, or where `options["reset_mask"]`, bool [rows], is True.

        Args:
            seed: one for each row, or one from which row i takes seed + i; None goes on with the row's own stream.
            options: also "task", a name or one for each row, of which None is drawn.

        Raises:
            ValueError: a mask of another shape or dtype, or without a True; another number of seeds.
            UnknownEnvironmentError: a task that is none of `tasks`.
        """
        mask = (options or {}).get("reset_mask")
        mask = np.ones(self.num_envs, bool) if mask is None else np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(f"reset_mask: expected bool [{self.num_envs}] with a True, got {mask}")
        seeds = [seed + row for row in range(self.num_envs)] if isinstance(seed, int) else seed
        if seeds is not None and len(seeds) != self.num_envs:
            raise ValueError(f"seed: expected {self.num_envs}, got {len(seeds)}")
        names = (options or {}).get("task")
        for row in np.flatnonzero(mask).tolist():
            name = names if names is None or isinstance(names, str) else names[row]
            self._begin(row, None if seeds is None else seeds[row], name)
        for array in (self._steps, self._last_reward, self._returns, self._lengths, self._successes, self._ended):
            array[mask] = 0
        return self._observe(self._ended), {"task": np.where(mask, self._task, 0), "_task": mask.copy()}

    def _begin(self, row: int, seed: int | None, name: str | None) -> None:
        """Begin a trial in a row, drawing as `TrialEnv` does."""
        if seed is not None:
            self._random[row] = _generator(seed)
            self._attempt_random[row].clear()
        if name is None:
            plays = self._plays[row]
            task = plays[self._random[row].integers(len(plays))]
        elif name in self.tasks:
            task = self.tasks.index(name)
        else:
            raise UnknownEnvironmentError(f"expected a task of this environment, {self.tasks}, got {name!r}")
        if task not in self._attempt_random[row]:
            self._attempt_random[row][task] = _generator(draw_seed(self._random[row]))
        self._task[row], self._multiplier[row] = task, self.reward_multipliers[task]
        self.batch.choose(row, task)
        self._attempt[row] = 0
        self._begin_attempt(row)

    def _begin_attempt(self, row: int) -> None:
        new_task = not self.batch.hidden_task or self._attempt[row] == 0
        random = self._attempt_random[row][self._task[row]]
        self.batch.reset(row, _generator(draw_seed(random)), new_task=new_task)

    def step(self, actions: np.ndarray):
        """Rows that have ended stand still. Raises ValueError for actions that the tasks do not have."""
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
        for row in np.flatnonzero(over & ~own_end).tolist():
            self._attempt[row] += 1
            self._begin_attempt(row)
        observation = self._observe(~live)
        if ended.any():
            self._ended |= ended
            for name, part in _parts(observation).items():
                self._last[name][ended] = part[ended]
        counted = np.where(attempt < self.free_attempts, 0.0, self._last_reward) * self._multiplier
        return observation, counted, terminated & own_end, (truncated & own_end) | cut, info

    def close(self, **_: Any) -> None:
        """Close the batch; a second call does nothing."""
        self.batch.close()

    def _observe(self, still: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        """What the rows show, those that stand still what they showed last."""
        own = self.batch.observe()
        if own.ndim > 2:
            observation = {OBSERVATION: own}
            if self._features:
                observation[CONTEXT] = np.empty((self.num_envs, self._features), np.float32)
                self._write_context(observation[CONTEXT])
        else:
            observation = np.zeros(self.observation_space.shape, np.float32)
            observation[:, : own.shape[1]] = own
            if self._features:
                self._write_context(observation)
        if still.any():
            for name, part in _parts(observation).items():
                part[still] = self._last[name][still]
        return observation

    def _write_context(self, values: np.ndarray) -> None:
        """Sets the last four columns of `values`."""
        values[:, -4] = self._steps / 1000
        values[:, -3] = self._attempt / max(1, self.attempts - 1)
        values[:, -2] = 1.0
        values[:, -1] = self._last_reward * self._multiplier

    def _results(self, ended: np.ndarray) -> dict[str, np.ndarray]:
        """The infos of rows whose trial has ended; those of other rows do not count, as `_name` says."""
        results = {
            "task": np.where(ended, self._task, 0),
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


def _parts(observation: Any) -> dict[str, Any]:
    """An observation, or its space, by name."""
    if isinstance(observation, spaces.Dict):
        return dict(observation.spaces)
    return observation if isinstance(observation, dict) else {OBSERVATION: observation}


def _generator(seed: int) -> np.random.Generator:
    """As gymnasium's own seeding, without its checks."""
    return np.random.Generator(np.random.PCG64(seed))
