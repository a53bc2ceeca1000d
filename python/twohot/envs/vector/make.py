"""Many trials side by side, in one process or in several.

For cheap environments a plain loop beats processes 5 to 15 times (two cores). There is no autoreset: the caller resets
finished rows with `reset_where`, so no dummy transition ever appears.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from twohot.envs.checked import asked
from twohot.envs.observations import as_parts
from twohot.envs.registry import check_split, check_tasks, get_suite, task_name
from twohot.envs.vector.batched import EnvBatch
from twohot.envs.vector.batched_trials import BatchedTrials
from twohot.envs.vector.machine import cpus
from twohot.envs.vector.python_batch import PythonBatch
from twohot.envs.vector.rows import Rows, allocate
from twohot.envs.vector.trial_vector import TrialVector, WorkerChoice
from twohot.envs.vector.workers import START_SECONDS, WorkerError, Workers, inside_worker
from twohot.envs.wrappers.actions import legal_sample
from twohot.envs.wrappers.layout import Layout, common_layout
from twohot.envs.wrappers.trial import TrialEnv
from twohot.spaces import ACTION_MASK

logger = logging.getLogger("twohot")

TIMED_STEPS, TIMED_SECONDS = 30, 0.5
"""Steps of all rows by which the faster way is found, and the longest that each way may take for them."""
CHEAP_SECONDS = 1e-3
"""A step of all rows that takes less is played in process without comparing: processes need as long to be told."""


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
) -> TrialVector | BatchedTrials:
    """`environments` rows of `TrialEnv`s, stepped one after the other, or in a few numpy calls where a suite knows how.

    Args:
        environments: number of rows, at least 1.
        suite, tasks, split, attempts, free_attempts, reward_multipliers, context_features, step_limit, render: as for
            `TrialEnv`.
        observation_size, actions: as for `common_layout`, which settles the spaces once for all rows.
        layout: the spaces, where they are settled already.
        assignment: "sampled": each row draws each trial's task from all; "fixed": tasks are dealt out to the rows in
            turn, and where there are more tasks than rows, a row draws from its own.
        workers: "in-process", or "processes", one for each CPU, or "auto" for the faster of the two, which a few steps
            of each tell; where processes cannot be used, it stays in this one and says why. A suite of which a process
            can hold one environment has a process for each row.

    Raises:
        ValueError: an argument is outside its range, or a task is larger than a size given.
        UnknownEnvironmentError, MissingExtraError, UnsupportedSpaceError: as for `TrialEnv`.
        WorkerError: processes are asked for and cannot be used; or a worker imports a module that calls this.
    """
    if inside_worker():
        raise WorkerError(
            "make_vector was called in a worker process, by a module that is imported there: put what runs in it, and "
            "does not define, under `if __name__ == '__main__':`"
        )
    if environments < 1:
        raise ValueError(f"expected at least 1 environment, got {environments}")
    tasks = check_tasks(suite, tasks)
    check_split(suite, split)
    layout = layout or common_layout(suite, tasks, observation_size, actions, split)
    plays = [_dealt(row, environments, len(tasks)) if assignment == "fixed" else () for row in range(environments)]
    together = None
    if not render and workers != "processes" and not get_suite(suite).one_per_process:
        batch = _batch(suite, tasks, split, environments, layout)
        if batch is not None:
            together = BatchedTrials(
                batch,
                suite,
                tasks,
                attempts=attempts,
                free_attempts=free_attempts,
                reward_multipliers=reward_multipliers,
                observation_size=layout.observation.shape[0] if isinstance(layout.observation, spaces.Box) else 0,
                context_features=context_features,
                step_limit=step_limit,
                plays=plays if assignment == "fixed" else (),
            )
            if not isinstance(batch, PythonBatch):
                return together
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
            plays=plays[row],
        )
        for row in range(environments)
    ]
    if get_suite(suite).one_per_process and environments > 1:
        return _apart(makes, environments)
    processes = min(environments, cpus())
    if workers == "processes":
        return _apart(makes, processes)
    here = together or _here(makes)
    if workers == "in-process" or processes == 1 or (suite, tasks) in _stays:
        return here
    start = time.perf_counter()
    if (seconds := seconds_a_step(here)) < CHEAP_SECONDS:
        return here
    patience = START_SECONDS + 10 * (time.perf_counter() - start)
    return _faster(here, seconds, makes, processes, patience)


_stays: set[tuple[str, tuple[str, ...]]] = set()
"""Suites and tasks that could not be played in processes, which need not be found out, nor said, more than once."""


def _faster(
    here: TrialVector, seconds: float, makes: Sequence[partial[TrialEnv]], processes: int, patience: float
) -> TrialVector:
    """Rows in processes where a step of theirs takes less than `seconds`, else `here`; the other is closed."""
    apart = None
    try:
        apart = _apart(makes, processes)
        apart.trials.patience = patience
        faster = seconds_a_step(apart) < seconds
        apart.trials.patience = None
    except Exception as error:  # of anything on the way to another process, which nobody has asked for
        if apart is not None:
            apart.close()
        _stays.add(makes[0].args)  # suite and tasks
        logger.warning("collect.workers auto stays in this process, for other ones cannot be used: %s", error)
        return here
    loser, winner = (here, apart) if faster else (apart, here)
    loser.close()
    return winner


def _batch(suite: str, tasks: Sequence[str], split: str, rows: int, layout: Layout) -> EnvBatch | None:
    """All rows in one object, where the suite knows how or their spaces are simple."""
    found = get_suite(suite)
    batch, names = None, " or ".join(task_name(suite, task) for task in tasks)
    if found.make_mixed_batch is not None:
        batch = asked(names, "__init__", found.make_mixed_batch, tasks, split, rows)
    elif found.make_batch is not None and len(tasks) == 1:
        batch = asked(names, "__init__", found.make_batch, tasks[0], split, rows)
    if batch is not None and layout.action == batch.action_space:
        return batch
    if isinstance(layout.observation, spaces.Box) and isinstance(layout.action, spaces.Discrete):
        return PythonBatch(suite, tasks, split, rows, layout.observation, layout.action)
    return None


def _here(makes: Sequence[Callable[[], TrialEnv]]) -> TrialVector:
    environments = [make() for make in makes]
    spaces_of_a_row = environments[0].observation_space, environments[0].action_space
    return TrialVector(Rows(environments, allocate(*spaces_of_a_row, len(makes))), len(makes), *spaces_of_a_row)


def _apart(makes: Sequence[Callable[[], TrialEnv]], processes: int) -> TrialVector:
    first = makes[0]()  # makes no game: it says which spaces there are
    workers = Workers(makes, get_suite(first.suite), first.observation_space, first.action_space, processes)
    return TrialVector(workers, len(makes), first.observation_space, first.action_space)


def seconds_a_step(vector: TrialVector) -> float:
    """Median time of a step of all rows, with random legal actions; trials are left wherever they are then."""
    observation, _ = vector.reset(seed=0)
    space = vector.single_action_space
    space.seed(0)
    times: list[float] = []
    while len(times) < TIMED_STEPS and sum(times) < TIMED_SECONDS:
        masks = as_parts(observation).get(ACTION_MASK, [None] * vector.num_envs)
        actions = np.stack([legal_sample(space, mask) for mask in masks])
        start = time.perf_counter()
        observation, _, terminated, truncated, _ = vector.step(actions)
        times.append(time.perf_counter() - start)
        if (terminated | truncated).any():
            observation, _ = reset_where(vector, terminated | truncated)
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
    vector_env: TrialVector | BatchedTrials, done: np.ndarray, task: str | Sequence[str] | None = None
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
