"""Trials of many rows at once: what `TrialEnv`s in a vector do, in a few numpy calls for all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from twohot.envs.checked import LARGEST, asked, close
from twohot.envs.observations import ObservationReader, as_parts
from twohot.envs.registry import UnknownEnvironmentError, get_suite, non_finite, registered_suites, task_name
from twohot.envs.vector.batched import EnvBatch
from twohot.envs.vector.rows import LOST, reset_mask, row_seeds
from twohot.envs.wrappers.actions import check_actions
from twohot.envs.wrappers.attempts import RESULTS, check_attempts, check_returns, draw_seed
from twohot.envs.wrappers.padding import CONTEXT, common_observation_space, with_context
from twohot.envs.wrappers.trial import CONTEXT_FEATURES
from twohot.errors import BrokenEnvironmentError
from twohot.spaces import OBSERVATION


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
        # What errors call the batch; one that knows which row has failed names its task alone.
        self._names = " or ".join(task_name(suite, task) for task in self.tasks)
        self.attempts, self.free_attempts = attempts, free_attempts
        self.reward_multipliers = np.array(tuple(reward_multipliers) or (1.0,) * len(self.tasks))
        self._features = len(CONTEXT_FEATURES) if context_features else 0
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self._reader = ObservationReader(
            *(batch.observation_space, batch.action_space, self._names),
            one_vector=suite in registered_suites() and get_suite(suite).one_vector,
            leading=(self.num_envs,),
        )
        self.single_observation_space = self._space(observation_size)
        self._has_parts = isinstance(self.single_observation_space, spaces.Dict)
        seen = as_parts(self._reader.space)
        self._floats = [name for name, part in seen.items() if part.dtype == np.float32]
        self.single_action_space = batch.action_space
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
        self._attempt_success, self._told, self._free = np.zeros((3, rows), bool)
        self._attempt_share, self._multiplier = np.zeros(rows), np.ones(rows)
        self._largest = np.full(rows, LARGEST)  # reward that float32 holds, multiplied and not
        self._ended, self._any_ended = np.ones(rows, bool), True
        self._never = np.zeros(rows, bool)
        self._step_limit = step_limit
        self._last = {
            name: np.zeros(space.shape, space.dtype) for name, space in as_parts(self.observation_space).items()
        }

    def _space(self, size: int) -> spaces.Box | spaces.Dict:
        space = common_observation_space([self._reader.space], self.batch.action_space, size)
        if isinstance(space, spaces.Dict):
            return with_context(space, self._features)
        return spaces.Box(-np.inf, np.inf, (space.shape[0] + self._features,), np.float32)

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
            asked(self._names, "reset", self.batch.restart, seeds[0])
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
        self._largest[row] = LARGEST / max(1.0, abs(self._multiplier[row]))
        self.batch.choose(row, task)
        self.batch.legal[row] = True
        if task not in self._attempt_random[row]:
            task_seed = draw_seed(self._random[row])
            self._attempt_random[row][task] = _generator(task_seed)
            self.batch.seed_actions(row, task_seed)
        self._steps[row] = self._last_reward[row] = 0
        self._ended[row] = self._told[row] = False
        self._over[row] = []
        self._begin_attempt(row, 0)

    def _begin_attempt(self, row: int, attempt: int) -> None:
        self._attempt[row], self._attempt_start[row] = attempt, int(self._steps[row])
        self._attempt_return[row] = self._attempt_success[row] = 0
        self._attempt_share[row], self._free[row] = attempt / max(1, self.attempts - 1), attempt < self.free_attempts
        seed = draw_seed(self._attempt_random[row][self._task[row]])
        asked(self._names, "reset", self.batch.begin, row, seed, attempt)

    def step(self, actions: np.ndarray):
        """Rows that have ended stand still. Raises ActionError for actions that the space does not have."""
        actions = check_actions(actions, self.single_action_space, self.num_envs)
        reward, terminated, truncated = asked(self._names, "step", self.batch.step, actions)
        success, told = self.batch.success, self.batch.told
        if self._any_ended:
            live = ~self._ended
            reward = np.where(live, reward, 0.0)
            success, told, terminated, truncated = (x & live for x in (success, told, terminated, truncated))
            self._steps += live
        else:
            self._steps += 1
        began = self._begun()
        self._last_reward = reward.astype(np.float64)
        if not (np.abs(self._last_reward) <= self._largest).all():
            self._refuse(as_parts(self._reader.read(self.batch.observe())))
        self._attempt_return += self._last_reward
        self._attempt_success |= success
        self._told |= told
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
        for name, part in as_parts(observation).items():
            self._last[name][ended] = part[ended]
        results = self._results(ended)
        if began:
            results["task"], results["_task"] = results["task"] + began["task"], results["_task"] | began["_task"]
        return observation, counted, terminated, truncated, began | results

    def _begun(self) -> dict[str, np.ndarray]:
        """Begin anew where a row could not at its reset, and say so as where a worker has died: nothing counts yet."""
        began = self.batch.began
        if began is None or not began.any():
            return {}
        self._steps[began] = 0
        self._attempt_return[began] = self._attempt_success[began] = self._told[began] = 0
        return {LOST: began, f"_{LOST}": began, "task": np.where(began, self._task, 0), "_task": began}

    def _end_attempt(self, row: int) -> None:
        steps = int(self._steps[row]) - self._attempt_start[row]
        name = task_name(self.suite, self.tasks[self._task[row]])
        asked(name, "step", check_returns, (float(self._attempt_return[row]),))
        self._over[row].append((float(self._attempt_return[row]), steps, bool(self._attempt_success[row])))

    def close(self, **_: Any) -> None:
        """Close the batch; a second call does nothing."""
        close(self.batch, self._names)

    def _observe(self) -> np.ndarray | dict[str, np.ndarray]:
        """What the rows show, those that stand still what they showed last."""
        own = self._reader.read(self.batch.observe())
        if self._has_parts:
            observation: Any = dict(as_parts(own))
            finite = all(np.isfinite(observation[name]).all() for name in self._floats)
            if self._features:
                observation[CONTEXT] = np.empty((self.num_envs, self._features), np.float32)
                self._write_context(observation[CONTEXT])
        else:
            finite = np.isfinite(own).all()
            observation = np.zeros(self.observation_space.shape, np.float32)
            observation[:, : own.shape[1]] = own
            if self._features:
                self._write_context(observation)
        if not finite:
            self._refuse(as_parts(own))
        if self._any_ended:
            for name, part in as_parts(observation).items():
                part[self._ended] = self._last[name][self._ended]
        return observation

    def _write_context(self, values: np.ndarray) -> None:
        """Sets the last four columns of `values`."""
        values[:, -4] = self._steps / 1000
        values[:, -3] = self._attempt_share
        values[:, -2] = self.batch.legal
        values[:, -1] = self._last_reward * self._multiplier

    def _refuse(self, parts: dict[str, np.ndarray]) -> None:
        finite = np.abs(self._last_reward) <= self._largest  # as no NaN is
        for part in parts.values():
            finite = finite & np.isfinite(part).reshape(self.num_envs, -1).all(1)
        row = int(finite.argmin())
        own = {name: part[row] for name, part in parts.items()}
        shown = own[OBSERVATION] if set(own) == {OBSERVATION} else own
        reward = float(self._last_reward[row]) * float(self._multiplier[row])
        raise non_finite(self.suite, self.tasks[self._task[row]], shown, reward, self._steps[row])

    def _results(self, ended: list[int]) -> dict[str, np.ndarray]:
        """The infos of rows whose trial has ended; those of other rows do not count, as `_name` says."""
        shape = self.num_envs, self.attempts
        results = {
            "task": np.zeros(self.num_envs, np.int64),
            "attempt_returns": np.zeros(shape, np.float32),
            "attempt_lengths": np.zeros(shape, np.int32),
            "attempt_success": np.zeros(shape, bool),
            "success_told": np.zeros(self.num_envs, bool),
        }
        mask = np.zeros(self.num_envs, bool)
        mask[ended] = True
        for row in ended:
            results["task"][row] = self._task[row]
            results["success_told"][row] = self._told[row] or any(success for *_, success in self._over[row])
            for name, values in zip(RESULTS, zip(*self._over[row], strict=True), strict=True):
                results[name][row, : len(values)] = values
            for name, own in self.batch.info(row).items() if self.attempts == 1 else ():
                results["success_told"][row] |= name == "attempt_success"
                if results[name].shape[1:] != own.shape and row == ended[0]:
                    results[name] = np.zeros((self.num_envs, *own.shape), own.dtype)
                if results[name].shape[1:] != own.shape:
                    raise BrokenEnvironmentError(f"{self._names}: expected as many attempts in every trial, got {own}")
                results[name][row] = own
        return {**results, **{f"_{name}": mask.copy() for name in results}}


def _generator(seed: int) -> np.random.Generator:
    """As gymnasium's own seeding, without its checks."""
    return np.random.Generator(np.random.PCG64(seed))
