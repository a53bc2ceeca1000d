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
from twohot.envs.multitask import CONTEXT, CONTEXT_FEATURES, RESULTS
from twohot.envs.padding import OBSERVATION
from twohot.envs.registry import UnknownEnvironmentError, non_finite
from twohot.envs.rows import LOST, reset_mask, row_seeds


class BatchedTrials(VectorEnv):
    """A vector of trials without autoreset, the same bit for bit as a `TrialVector` with the same seeds.

    Observations, rewards, `reset(options={"reset_mask": ..., "task": ...})` and infos are those of
    `make_vector(suite, tasks, ...)`.

    Args:
        batch: plays attempts at any of `tasks`.
        suite, tasks: their names.
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
        suite: str,
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
        if attempts > 1 and batch.one_attempt:
            raise ValueError(
                f"expected 1 attempt of {suite!r}, whose rows end and begin by autoreset, got {attempts}: use a vector "
                "environment with autoreset DISABLED"
            )
        self.batch, self.num_envs, self.workers = batch, batch.rows, "in-process"
        self.suite, self.tasks = suite, tuple(tasks)
        self.attempts, self.free_attempts = attempts, free_attempts
        self.reward_multipliers = np.array(tuple(reward_multipliers) or (1.0,) * len(self.tasks))
        self._features = len(CONTEXT_FEATURES) if context_features else 0
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = self._space(observation_size)
        self.single_action_space = batch.action_space
        self._count = int(batch.action_space.n) if isinstance(batch.action_space, spaces.Discrete) else 0
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        rows = self.num_envs
        self._plays = tuple(map(tuple, plays)) or (tuple(range(len(self.tasks))),) * rows
        self._random: list[np.random.Generator] = [np.random.default_rng() for _ in range(rows)]
        # For each task that the row has played since it was seeded; runs on from trial to trial.
        self._attempt_random: list[dict[int, np.random.Generator]] = [{} for _ in range(rows)]
        self._task, self._attempt, self._attempt_start = ([0] * rows for _ in range(3))
        self._over: list[list[tuple[float, int, bool]]] = [[] for _ in range(rows)]  # attempts of the trial so far
        self._steps = np.zeros(rows, np.int64)
        self._last_reward, self._attempt_return = np.zeros((2, rows))
        self._attempt_success, self._free = np.zeros((2, rows), bool)
        self._attempt_share, self._multiplier = np.zeros(rows), np.ones(rows)
        self._ended, self._any_ended = np.ones(rows, bool), True
        self._never = np.zeros(rows, bool)
        self._step_limit = step_limit
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
            ValueError, TypeError: a mask of another shape or dtype, or without a True; another number of seeds.
            UnknownEnvironmentError: a task that is none of `tasks`.
        """
        options = options or {}
        mask, seeds = reset_mask(options, self.num_envs), row_seeds(seed, self.num_envs)
        if mask.all():
            self.batch.restart(seeds[0])
        names = options.get("task")
        for row in np.flatnonzero(mask).tolist():
            self._begin(row, seeds[row], names if names is None or isinstance(names, str) else names[row])
        self._any_ended = bool(self._ended.any())
        return self._observe(), {"task": np.where(mask, self._task, 0), "_task": mask.copy()}

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
        self._task[row], self._multiplier[row] = task, self.reward_multipliers[task]
        self.batch.choose(row, task)
        self.batch.legal[row] = True
        if task not in self._attempt_random[row]:
            task_seed = draw_seed(self._random[row])
            self._attempt_random[row][task] = _generator(task_seed)
            self.batch.seed_actions(row, task_seed)
        self._steps[row] = self._last_reward[row] = 0
        self._ended[row] = False
        self._over[row] = []
        self._begin_attempt(row, 0)

    def _begin_attempt(self, row: int, attempt: int) -> None:
        self._attempt[row], self._attempt_start[row] = attempt, int(self._steps[row])
        self._attempt_return[row] = self._attempt_success[row] = 0
        self._attempt_share[row], self._free[row] = attempt / max(1, self.attempts - 1), attempt < self.free_attempts
        self.batch.begin(row, draw_seed(self._attempt_random[row][self._task[row]]), attempt)

    def step(self, actions: np.ndarray):
        """Rows that have ended stand still. Raises ValueError for actions that the space does not have."""
        reward, terminated, truncated = self.batch.step(self._checked(actions))
        success = self.batch.success
        if self._any_ended:
            live = ~self._ended
            reward, success, terminated, truncated = (x * live for x in (reward, success, terminated, truncated))
            self._steps += live
        else:
            self._steps += 1
        began = self._begun()
        self._last_reward = reward.astype(np.float64)
        self._attempt_return += self._last_reward
        self._attempt_success |= success
        counted = self._last_reward * self._multiplier
        if self.free_attempts:
            counted[self._free] = 0.0
        over = terminated | truncated
        cut = self._steps >= self._step_limit if self._step_limit else self._never
        stops = over | cut if self._step_limit else over
        if not stops.any():
            return self._observe(), counted, terminated, truncated, began
        ended = []
        for row in np.flatnonzero(stops & ~self._ended).tolist():
            self._end_attempt(row)
            if over[row] and len(self._over[row]) < self.attempts:
                terminated[row], truncated[row] = False, cut[row]
                self._begin_attempt(row, len(self._over[row]))
                if not cut[row]:
                    continue
            elif not over[row]:
                truncated[row] = True
            self.batch.stop(row)
            ended.append(row)
        observation = self._observe()
        if not ended:
            return observation, counted, terminated, truncated, began
        self._ended[ended] = self._any_ended = True
        for name, part in _parts(observation).items():
            self._last[name][ended] = part[ended]
        results = self._results(ended)
        if began:
            results["task"], results["_task"] = results["task"] + began["task"], results["_task"] | began["_task"]
        return observation, counted, terminated, truncated, began | results

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        actions = np.asarray(actions)
        fits = actions.shape == self.action_space.shape
        if fits and self._count:
            listed = actions.tolist()
            fits = min(listed) >= 0 and max(listed) < self._count
        if not fits:
            raise ValueError(f"expected actions [{self.num_envs}] of {self.single_action_space}, got {actions}")
        return actions

    def _begun(self) -> dict[str, np.ndarray]:
        """Begin anew where a row could not at its reset, and say so as where a worker has died: nothing counts yet."""
        began = self.batch.began
        if began is None or not began.any():
            return {}
        self._steps[began] = 0
        self._attempt_return[began] = self._attempt_success[began] = 0
        return {LOST: began, f"_{LOST}": began, "task": np.where(began, self._task, 0), "_task": began}

    def _end_attempt(self, row: int) -> None:
        steps = int(self._steps[row]) - self._attempt_start[row]
        self._over[row].append((float(self._attempt_return[row]), steps, bool(self._attempt_success[row])))

    def close(self, **_: Any) -> None:
        """Close the batch; a second call does nothing."""
        self.batch.close()

    def _observe(self) -> np.ndarray | dict[str, np.ndarray]:
        """What the rows show, those that stand still what they showed last."""
        own = self.batch.observe()
        image = own.ndim > 2
        if not (np.isfinite(self._last_reward).all() and (image or np.isfinite(own).all())):
            self._refuse(own)
        if image:
            observation = {OBSERVATION: own}
            if self._features:
                observation[CONTEXT] = np.empty((self.num_envs, self._features), np.float32)
                self._write_context(observation[CONTEXT])
        else:
            observation = np.zeros(self.observation_space.shape, np.float32)
            observation[:, : own.shape[1]] = own
            if self._features:
                self._write_context(observation)
        if self._any_ended:
            for name, part in _parts(observation).items():
                part[self._ended] = self._last[name][self._ended]
        return observation

    def _write_context(self, values: np.ndarray) -> None:
        """Sets the last four columns of `values`."""
        values[:, -4] = self._steps / 1000
        values[:, -3] = self._attempt_share
        values[:, -2] = self.batch.legal
        values[:, -1] = self._last_reward * self._multiplier

    def _refuse(self, own: np.ndarray) -> None:
        finite = np.isfinite(own).reshape(self.num_envs, -1).all(1) & np.isfinite(self._last_reward)
        row = int(finite.argmin())
        raise non_finite(self.suite, self.tasks[self._task[row]], own[row], self._last_reward[row], self._steps[row])

    def _results(self, ended: list[int]) -> dict[str, np.ndarray]:
        """The infos of rows whose trial has ended; those of other rows do not count, as `_name` says."""
        shape = self.num_envs, self.attempts
        results = {
            "task": np.zeros(self.num_envs, np.int64),
            "attempt_returns": np.zeros(shape, np.float32),
            "attempt_lengths": np.zeros(shape, np.int32),
            "attempt_success": np.zeros(shape, bool),
        }
        mask = np.zeros(self.num_envs, bool)
        mask[ended] = True
        for row in ended:
            results["task"][row] = self._task[row]
            for name, values in zip(RESULTS, zip(*self._over[row], strict=True), strict=True):
                results[name][row, : len(values)] = values
            for name, own in self.batch.info(row).items() if self.attempts == 1 else ():
                if results[name].shape[1:] != own.shape:
                    results[name] = np.zeros((self.num_envs, *own.shape), own.dtype)
                results[name][row] = own
        return {**results, **{f"_{name}": mask.copy() for name in results}}


def _parts(observation: Any) -> dict[str, Any]:
    """An observation, or its space, by name."""
    if isinstance(observation, spaces.Dict):
        return dict(observation.spaces)
    return observation if isinstance(observation, dict) else {OBSERVATION: observation}


def _generator(seed: int) -> np.random.Generator:
    """As gymnasium's own seeding, without its checks."""
    return np.random.Generator(np.random.PCG64(seed))
