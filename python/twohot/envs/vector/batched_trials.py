"""Trials of many environments at once: what `TrialEnv`s in a vector do, in a few numpy calls for all environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from twohot._moved import renamed_arguments
from twohot.envs.checked import LARGEST, asked, close
from twohot.envs.observations import ObservationReader, as_parts
from twohot.envs.registry import UnknownEnvironmentError, get_suite, non_finite, registered_suites, task_name
from twohot.envs.vector.batched import EnvBatch
from twohot.envs.vector.serial import INTERRUPTED, env_seeds, reset_mask
from twohot.envs.vector.trial_vector import WorkerChoice
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
        attempts, unscored_attempts, reward_multipliers: as for `TrialEnv`.
        observation_size: entries of a flat observation before the features, 0 for the tasks' own.
        context_features: whether the four features are shown.
        step_limit: steps after which a trial is truncated; 0 means never.
        plays: for each environment, indices of the tasks that are drawn in it; empty means all in every environment.

    Raises:
        ValueError: an argument is outside its range, or the observation is larger than `observation_size`.
    """

    @renamed_arguments(free_attempts="unscored_attempts")
    def __init__(
        self,
        batch: EnvBatch,
        suite: str,
        tasks: Sequence[str],
        *,
        attempts: int = 1,
        unscored_attempts: int = 0,
        reward_multipliers: Sequence[float] = (),
        observation_size: int = 0,
        context_features: bool = True,
        step_limit: int = 0,
        plays: Sequence[Sequence[int]] = (),
    ) -> None:
        check_attempts(attempts, unscored_attempts)
        if attempts > 1 and batch.one_attempt:
            raise ValueError(
                f"expected 1 attempt of {suite!r}, whose environments end and begin by autoreset, got {attempts}: "
                "use a vector environment with autoreset DISABLED"
            )
        self.batch, self.num_envs = batch, batch.num_envs
        self.workers: WorkerChoice = "in-process"
        self.suite, self.tasks = suite, tuple(tasks)
        # What errors call the batch; one that knows which environment has failed names its task alone.
        self._names = " or ".join(task_name(suite, task) for task in self.tasks)
        self.attempts, self.unscored_attempts = attempts, unscored_attempts
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
        self._shape = self.observation_space.shape or ()
        num_envs = self.num_envs
        self._plays = tuple(map(tuple, plays)) or (tuple(range(len(self.tasks))),) * num_envs
        self._random: list[np.random.Generator] = [np.random.default_rng() for _ in range(num_envs)]
        # For each task that the environment has played since it was seeded; runs on from trial to trial.
        self._attempt_random: list[dict[int, np.random.Generator]] = [{} for _ in range(num_envs)]
        self._task, self._attempt, self._attempt_start = ([0] * num_envs for _ in range(3))
        self._over: list[list[tuple[float, int, bool]]] = [[] for _ in range(num_envs)]  # attempts of the trial so far
        self._steps = np.zeros(num_envs, np.int64)
        self._last_reward, self._attempt_return = np.zeros((2, num_envs))
        self._attempt_success, self._told, self._unscored = np.zeros((3, num_envs), bool)
        self._attempt_fraction, self._multiplier = np.zeros(num_envs), np.ones(num_envs)
        self._largest = np.full(num_envs, LARGEST)  # reward that float32 holds, multiplied and not
        self._ended, self._any_ended = np.ones(num_envs, bool), True
        self._never = np.zeros(num_envs, bool)
        self._step_limit = step_limit
        self._last = {
            name: np.zeros(space.shape, space.dtype) for name, space in as_parts(self.observation_space).items()
        }

    @property
    def explore(self) -> np.ndarray | None:
        """Where the batch asks for a noisy action, bool [num_envs]; None where it never does."""
        return self.batch.explore

    def _space(self, size: int) -> spaces.Box | spaces.Dict:
        space = common_observation_space([self._reader.space], self.batch.action_space, size)
        if isinstance(space, spaces.Dict):
            return with_context(space, self._features)
        return spaces.Box(-np.inf, np.inf, (space.shape[0] + self._features,), np.float32)

    def reset(self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None):
        """Starts new trials: in all environments, or where `options["reset_mask"]`, bool [num_envs], is True.

        Args:
            seed: one for each environment, or one from which environment i takes seed + i; None goes on with each
                one's stream.
            options: also "task", a name or one for each environment, of which None is drawn.

        Raises:
            ValueError, TypeError: a mask of another shape or dtype, or without a True; another number of seeds.
            UnknownEnvironmentError: a task that is none of `tasks`.
        """
        options = options or {}
        mask, seeds = reset_mask(options, self.num_envs), env_seeds(seed, self.num_envs)
        if mask.all():
            asked(self._names, "reset", self.batch.restart, seeds[0])
        names = options.get("task")
        for index in np.flatnonzero(mask).tolist():
            self._begin(index, seeds[index], names if names is None or isinstance(names, str) else names[index])
        self._any_ended = bool(self._ended.any())
        return self._observe(), {"task": np.where(mask, self._task, 0), "_task": mask.copy()}

    def _begin(self, index: int, seed: int | None, name: str | None) -> None:
        """Begin a trial in an environment, drawing as `TrialEnv` does."""
        if seed is not None:
            self._random[index] = _generator(seed)
            self._attempt_random[index].clear()
        if name is None:
            plays = self._plays[index]
            task = plays[self._random[index].integers(len(plays))]
        elif name in self.tasks:
            task = self.tasks.index(name)
        else:
            raise UnknownEnvironmentError(f"expected a task of this environment, {self.tasks}, got {name!r}")
        self._task[index], self._multiplier[index] = task, self.reward_multipliers[task]
        self._largest[index] = LARGEST / max(1.0, abs(self._multiplier[index]))
        self.batch.choose(index, task)
        self.batch.legal[index] = True
        if task not in self._attempt_random[index]:
            task_seed = draw_seed(self._random[index])
            self._attempt_random[index][task] = _generator(task_seed)
            self.batch.seed_actions(index, task_seed)
        self._steps[index] = self._last_reward[index] = 0
        self._ended[index] = self._told[index] = False
        self._over[index] = []
        self._begin_attempt(index, 0)

    def _begin_attempt(self, index: int, attempt: int) -> None:
        self._attempt[index], self._attempt_start[index] = attempt, int(self._steps[index])
        self._attempt_return[index] = self._attempt_success[index] = 0
        self._attempt_fraction[index] = attempt / max(1, self.attempts - 1)
        self._unscored[index] = attempt < self.unscored_attempts
        seed = draw_seed(self._attempt_random[index][self._task[index]])
        asked(self._names, "reset", self.batch.begin, index, seed, attempt)

    def step(self, actions: np.ndarray):
        """Environments that have ended stand still. Raises ActionError for actions that the space does not have."""
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
        if np.count_nonzero(np.abs(self._last_reward) <= self._largest) < self.num_envs:
            self._refuse(as_parts(self._reader.read(self.batch.observe())))
        self._attempt_return += self._last_reward
        self._attempt_success |= success
        self._told |= told
        counted = self._last_reward * self._multiplier
        if self.unscored_attempts:
            counted[self._unscored] = 0.0
        over = terminated | truncated
        cut = self._steps >= self._step_limit if self._step_limit else self._never
        stops = over | cut if self._step_limit else over
        if not np.count_nonzero(stops):
            return self._observe(), counted, terminated, truncated, began
        ended = []
        for index in np.flatnonzero(stops & ~self._ended).tolist():
            self._end_attempt(index)
            if over[index] and len(self._over[index]) < self.attempts:
                terminated[index], truncated[index] = False, cut[index]
                self._begin_attempt(index, len(self._over[index]))
                if not cut[index]:
                    continue
            elif not over[index]:
                truncated[index] = True
            self.batch.stop(index)
            ended.append(index)
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
        """Begin again where an environment could not at its reset, and say so as where a worker has died."""
        began = self.batch.began
        if began is None or not began.any():
            return {}
        self._steps[began] = 0
        self._attempt_return[began] = self._attempt_success[began] = self._told[began] = 0
        return {INTERRUPTED: began, f"_{INTERRUPTED}": began, "task": np.where(began, self._task, 0), "_task": began}

    def _end_attempt(self, index: int) -> None:
        steps = int(self._steps[index]) - self._attempt_start[index]
        name = task_name(self.suite, self.tasks[self._task[index]])
        asked(name, "step", check_returns, (float(self._attempt_return[index]),))
        self._over[index].append((float(self._attempt_return[index]), steps, bool(self._attempt_success[index])))

    def close(self, **_: Any) -> None:
        """Close the batch; a second call does nothing."""
        close(self.batch, self._names)

    def _observe(self) -> np.ndarray | dict[str, np.ndarray]:
        """What the environments show, those that stand still what they showed last."""
        own = self._reader.read(self.batch.observe())
        if self._has_parts:
            observation: Any = dict(as_parts(own))
            finite = all(np.isfinite(observation[name]).all() for name in self._floats)
            if self._features:
                observation[CONTEXT] = np.empty((self.num_envs, self._features), np.float32)
                self._write_context(observation[CONTEXT])
        else:
            finite = np.count_nonzero(np.isfinite(own)) == own.size
            observation = np.zeros(self._shape, np.float32)
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
        values[:, -3] = self._attempt_fraction
        values[:, -2] = self.batch.legal
        values[:, -1] = self._last_reward * self._multiplier

    def _refuse(self, parts: dict[str, np.ndarray]) -> None:
        finite = np.abs(self._last_reward) <= self._largest  # as no NaN is
        for part in parts.values():
            finite = finite & np.isfinite(part).reshape(self.num_envs, -1).all(1)
        index = int(finite.argmin())
        own = {name: part[index] for name, part in parts.items()}
        shown = own[OBSERVATION] if set(own) == {OBSERVATION} else own
        reward = float(self._last_reward[index]) * float(self._multiplier[index])
        raise non_finite(self.suite, self.tasks[self._task[index]], shown, reward, self._steps[index])

    def _results(self, ended: list[int]) -> dict[str, np.ndarray]:
        """The infos of environments whose trial has ended; those of others do not count, as `_name` says."""
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
        for index in ended:
            results["task"][index] = self._task[index]
            results["success_told"][index] = self._told[index] or any(success for *_, success in self._over[index])
            for name, values in zip(RESULTS, zip(*self._over[index], strict=True), strict=True):
                results[name][index, : len(values)] = values
            for name, own in self.batch.info(index).items() if self.attempts == 1 else ():
                results["success_told"][index] |= name == "attempt_success"
                if results[name].shape[1:] != own.shape and index == ended[0]:
                    results[name] = np.zeros((self.num_envs, *own.shape), own.dtype)
                if results[name].shape[1:] != own.shape:
                    raise BrokenEnvironmentError(f"{self._names}: expected as many attempts in every trial, got {own}")
                results[name][index] = own
        return {**results, **{f"_{name}": mask.copy() for name in results}}


def _generator(seed: int) -> np.random.Generator:
    """As gymnasium's own seeding, without its checks."""
    return np.random.Generator(np.random.PCG64(seed))
