"""Many trials side by side, in one process or in several.

For cheap environments a plain loop beats processes 5 to 15 times (two cores). There is no autoreset: the caller resets
finished rows with `reset_where`, so no dummy transition ever appears.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from twohot.envs.layout import Layout, common_layout
from twohot.envs.multitask import TrialEnv
from twohot.envs.padding import OBSERVATION
from twohot.envs.registry import get_suite
from twohot.envs.rows import Rows, allocate
from twohot.envs.workers import Workers

WorkerChoice = Literal["auto", "in-process", "processes"]
TIMED_STEPS, TIMED_SECONDS = 30, 0.5
"""Steps of all rows by which the faster way is found, and the longest that each way may take for them."""
CHEAP_SECONDS = 1e-3
"""A step of all rows that takes less is played in process without comparing: processes need as long to be told."""


class TrialVector(VectorEnv):
    """Rows of `TrialEnv`s as a gymnasium vector environment without autoreset.

    Arrays that `reset` and `step` return are the caller's own: no later call writes into them. A row whose trial has
    ended stands still, with its last observation and reward 0, until it is reset. `reset` takes a seed for each row
    and the options "reset_mask" (bool, (environments,), rows to reset; all without it) and "task" (a name, or one for
    each row).

    A row whose worker process died has `info["lost"]` True: its trial is lost, and the observation is the first one of
    another trial.

    Args:
        trials: the rows, here or in processes.
        environments: number of rows. observation_space, action_space: of one row.

    Attributes:
        workers: "in-process" or "processes".
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 (gymnasium's own way)

    def __init__(
        self,
        trials: Rows | Workers,
        environments: int,
        observation_space: spaces.Box | spaces.Dict,
        action_space: spaces.Space,
    ) -> None:
        self.trials, self.num_envs = trials, environments
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, environments)
        self.action_space = batch_space(action_space, environments)
        self._single = not isinstance(observation_space, spaces.Dict)
        self.workers: WorkerChoice = "processes" if isinstance(trials, Workers) else "in-process"
        self._closed = False

    def reset(self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None):
        options = dict(options or {})
        mask = options.pop("reset_mask", np.ones(self.num_envs, bool))
        if not isinstance(mask, np.ndarray) or mask.dtype != bool:
            raise TypeError(f"expected reset_mask to be a bool array, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"expected a reset_mask of shape ({self.num_envs},) with at least one True, got {mask}")
        rows = np.flatnonzero(mask).tolist()
        seeds = (
            [seed + row for row in range(self.num_envs)] if isinstance(seed, int) else seed or [None] * self.num_envs
        )
        if len(seeds) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} seeds, one for each row, got {len(seeds)}")
        task = options.pop("task", None)
        tasks = [task] * self.num_envs if task is None or isinstance(task, str) else task
        each = [{**options, "task": tasks[row]} for row in rows]
        infos = self.trials.reset(rows, [seeds[row] for row in rows], each)
        return self._observation(), self._merged(infos)

    def step(self, actions):
        arrays = self.trials.arrays
        arrays.action[...] = actions
        infos = self.trials.step()
        ends = arrays.terminated.copy(), arrays.truncated.copy()
        return self._observation(), arrays.reward.copy(), *ends, self._merged(infos)

    def render(self) -> tuple[Any, ...]:
        """A picture of each row, uint8 [H, W, 3], where its suite draws any."""
        return tuple(picture for _, picture in self.trials.render())

    def close(self, **_: Any) -> None:
        """Close all environments; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self.trials.close()

    def _observation(self) -> Any:
        parts = self.trials.arrays.observation
        if self._single:
            return parts[OBSERVATION].copy()
        return {name: part.copy() for name, part in parts.items()}

    def _merged(self, infos: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for row, info in infos:
            merged = self._add_info(merged, info, row)
        return merged


def make_vector(
    suite: str,
    tasks: Sequence[str],
    *,
    environments: int,
    split: str = "train",
    attempts: int = 1,
    free_attempts: int = 0,
    reward_multipliers: Sequence[float] = (),
    observation_size: int = 0,
    actions: int = 0,
    layout: Layout | None = None,
    context_features: bool = True,
    step_limit: int = 0,
    render: bool = False,
    assignment: Literal["sampled", "fixed"] = "sampled",
    workers: WorkerChoice = "in-process",
) -> TrialVector:
    """`environments` rows of `TrialEnv`s.

    Args:
        environments: number of rows, at least 1.
        suite, tasks, split, attempts, free_attempts, reward_multipliers, context_features, step_limit, render: as for
            `TrialEnv`.
        observation_size, actions: as for `common_layout`, which settles the spaces once for all rows.
        layout: the spaces, where they are settled already.
        assignment: "sampled": each row draws each trial's task from all; "fixed": tasks are dealt out to the rows in
            turn, and where there are more tasks than rows, a row draws from its own.
        workers: "in-process", or "processes", one for each CPU, or "auto" for the faster of the two, which a few steps
            of each tell. A suite of which a process can hold one environment has a process for each row.

    Raises:
        ValueError: an argument is outside its range, or a task is larger than a size given.
        UnknownEnvironmentError, MissingExtraError, UnsupportedSpaceError: as for `TrialEnv`.
        TwohotError: processes are asked for, and the suite cannot be sent to one.
    """
    if environments < 1:
        raise ValueError(f"expected at least 1 environment, got {environments}")
    layout = layout or common_layout(suite, tasks, observation_size, actions, split)
    makes = [
        partial(
            TrialEnv,
            suite,
            tasks,
            split=split,
            attempts=attempts,
            free_attempts=free_attempts,
            reward_multipliers=reward_multipliers,
            layout=layout,
            context_features=context_features,
            step_limit=step_limit,
            render=render,
            plays=_dealt(row, environments, len(tasks)) if assignment == "fixed" else (),
        )
        for row in range(environments)
    ]
    if get_suite(suite).one_per_process and environments > 1:
        return _apart(makes, environments)
    processes = min(environments, _cpus())
    if workers == "processes":
        return _apart(makes, processes)
    here = _here(makes)
    if workers == "in-process" or processes == 1 or (seconds := seconds_a_step(here)) < CHEAP_SECONDS:
        return here
    apart = _apart(makes, processes)
    loser, winner = (here, apart) if seconds_a_step(apart) < seconds else (apart, here)
    loser.close()
    return winner


def _here(makes: Sequence[Callable[[], TrialEnv]]) -> TrialVector:
    environments = [make() for make in makes]
    spaces_of_a_row = environments[0].observation_space, environments[0].action_space
    return TrialVector(Rows(environments, allocate(*spaces_of_a_row, len(makes))), len(makes), *spaces_of_a_row)


def _apart(makes: Sequence[Callable[[], TrialEnv]], processes: int) -> TrialVector:
    first = makes[0]()  # makes no game: it says which spaces there are
    workers = Workers(makes, get_suite(first.suite), first.observation_space, first.action_space, processes)
    return TrialVector(workers, len(makes), first.observation_space, first.action_space)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seconds_a_step(vector: TrialVector) -> float:
    """Median time of a step of all rows, with random actions; trials are left wherever they are then."""
    vector.reset(seed=0)
    vector.action_space.seed(0)
    times: list[float] = []
    while len(times) < TIMED_STEPS and sum(times) < TIMED_SECONDS:
        actions = vector.action_space.sample()
        start = time.perf_counter()
        terminated, truncated = vector.step(actions)[2:4]
        times.append(time.perf_counter() - start)
        if (terminated | truncated).any():
            reset_where(vector, terminated | truncated)
    return float(np.median(times))


def _dealt(row: int, rows: int, tasks: int) -> tuple[int, ...]:
    """Indices of the tasks that a row plays when they are dealt out in turn."""
    return tuple(range(row, tasks, rows)) or (row % tasks,)


def reset_seeds(seed: int, round: int, environments: int) -> list[int]:
    """One seed for each row in one round of collecting, so that a resumed run need not save environments.

    `SeedSequence((seed, round))` hashes both numbers, so neighbouring seeds or rounds share nothing. A smaller
    number of rows gives the head of the list that a larger one gives.

    Args:
        seed: the run's seed, not negative.
        round: index of the round, not negative.
        environments: number of rows.

    Returns:
        `environments` ints in [0, 2**64), for `vector_env.reset(seed=...)`.

    Raises:
        ValueError: a negative number.
    """
    if min(seed, round, environments) < 0:
        raise ValueError(f"expected seed, round and environments not negative, got {seed}, {round} and {environments}")
    return np.random.SeedSequence((seed, round)).generate_state(environments, np.uint64).tolist()


def reset_where(
    vector_env: TrialVector, done: np.ndarray, task: str | Sequence[str] | None = None
) -> tuple[Any, dict[str, Any]]:
    """Starts new trials in the rows where `done`; the other rows go on and keep their observation.

    Args:
        vector_env: from `make_vector`.
        done: bool, (environments,), with at least one True.
        task: a task for those rows, or one for each row; None draws them.

    Returns:
        Observations of all rows; and infos, whose `task`, int, (environments,),
        counts where `_task` is True.

    Raises:
        ValueError, TypeError: `done` has another shape or dtype, or no True.
        UnknownEnvironmentError: `task` is none of the environment's tasks.
    """
    options: dict[str, Any] = {"reset_mask": done}
    if task is not None:
        options["task"] = task
    return vector_env.reset(options=options)
