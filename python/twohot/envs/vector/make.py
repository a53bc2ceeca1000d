"""Many trials side by side, in one process or in several.

For cheap environments a plain loop beats processes 5 to 15 times (two cores). There is no autoreset: the caller resets
finished environments with `reset_where`, so no dummy transition ever appears.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from twohot._moved import renamed_arguments
from twohot.envs.checked import asked
from twohot.envs.observations import as_parts
from twohot.envs.registry import check_split, check_tasks, get_suite, task_name
from twohot.envs.vector.batched import EnvBatch
from twohot.envs.vector.batched_trials import BatchedTrials
from twohot.envs.vector.machine import cpus
from twohot.envs.vector.python_batch import PythonBatch
from twohot.envs.vector.serial import SerialEnvironments, allocate
from twohot.envs.vector.trial_vector import TrialEnvironments, TrialVector, WorkerChoice
from twohot.envs.vector.workers import START_SECONDS, WorkerError, Workers, inside_worker
from twohot.envs.wrappers.actions import legal_sample
from twohot.envs.wrappers.layout import Layout, common_layout
from twohot.envs.wrappers.trial import TrialEnv
from twohot.spaces import ACTION_MASK

logger = logging.getLogger("twohot")

TIMED_STEPS, TIMED_SECONDS = 30, 0.5
"""Steps of all environments by which the faster way is found, and the longest that each way may take for them."""
CHEAP_SECONDS = 1e-3
"""Where a step of all environments takes less, they stay in process without comparing: processes need as long to be
told."""


@renamed_arguments(free_attempts="unscored_attempts")
def make_vector(
    suite: str,
    tasks: Sequence[str],
    *,
    environments: int,
    split: str = "train",
    attempts: int = 1,
    unscored_attempts: int = 0,
    reward_multipliers: Sequence[float] = (),
    observation_size: int = 0,
    actions: int = 0,
    layout: Layout | None = None,
    context_features: bool = True,
    step_limit: int = 0,
    render: bool = False,
    assignment: Literal["sampled", "fixed"] = "sampled",
    workers: WorkerChoice = "in-process",
    place: tuple[int, int] = (0, 1),
) -> TrialEnvironments:
    """`environments` `TrialEnv`s, stepped one after the other, or in a few numpy calls where a suite knows how.

    Args:
        environments: how many, at least 1.
        suite, tasks, split, attempts, unscored_attempts, reward_multipliers, context_features, step_limit, render: as
            for `TrialEnv`.
        observation_size, actions: as for `common_layout`, which settles the spaces once for all environments.
        layout: the spaces, where they are settled already.
        assignment: "sampled": each environment draws each trial's task from all; "fixed": tasks are dealt out to the
            environments in turn, and where there are more tasks than environments, each draws from its own.
        workers: "in-process", or "processes", one for each CPU, or "auto" for the faster of the two, which a few steps
            of each tell; where processes cannot be used, it stays in this one and says why. A suite of which a process
            can hold one environment has a process for each.
        place: which of how many groups of environments this is, among all of which "fixed" tasks are dealt out.

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
    group, groups = place
    dealt = [_dealt(group * environments + index, groups * environments, len(tasks)) for index in range(environments)]
    plays = dealt if assignment == "fixed" else [()] * environments
    together = None
    if not render and workers != "processes" and not get_suite(suite).one_per_process:
        batch = _batch(suite, tasks, split, environments, layout)
        if batch is not None:
            together = BatchedTrials(
                batch,
                suite,
                tasks,
                attempts=attempts,
                unscored_attempts=unscored_attempts,
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
            unscored_attempts=unscored_attempts,
            reward_multipliers=reward_multipliers,
            layout=layout,
            context_features=context_features,
            step_limit=step_limit,
            render=render,
            plays=plays[index],
        )
        for index in range(environments)
    ]
    if get_suite(suite).one_per_process and environments > 1:
        return _in_workers(makes, environments)
    processes = min(environments, cpus())
    if workers == "processes":
        return _in_workers(makes, processes)
    here = together or _in_process(makes)
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
    here: TrialEnvironments, seconds: float, makes: Sequence[partial[TrialEnv]], processes: int, patience: float
) -> TrialEnvironments:
    """Environments in processes where a step of theirs takes less than `seconds`, else `here`; the other is closed."""
    apart = None
    try:
        apart = _in_workers(makes, processes)
        workers = apart.trials
        assert isinstance(workers, Workers)
        workers.patience = patience
        faster = seconds_a_step(apart) < seconds
        workers.patience = None
    except Exception as error:  # of anything on the way to another process, which nobody has asked for
        if apart is not None:
            apart.close()
        _stays.add(makes[0].args)  # suite and tasks
        logger.warning("collect.workers auto stays in this process, for other ones cannot be used: %s", error)
        return here
    loser, winner = (here, apart) if faster else (apart, here)
    loser.close()
    return winner


def _batch(suite: str, tasks: Sequence[str], split: str, num_envs: int, layout: Layout) -> EnvBatch | None:
    """All environments in one object, where the suite knows how or their spaces are simple."""
    found = get_suite(suite)
    batch, names = None, " or ".join(task_name(suite, task) for task in tasks)
    if found.make_mixed_batch is not None:
        batch = asked(names, "__init__", found.make_mixed_batch, tasks, split, num_envs)
    elif found.make_batch is not None and len(tasks) == 1:
        batch = asked(names, "__init__", found.make_batch, tasks[0], split, num_envs)
    if batch is not None and layout.action == batch.action_space:
        return batch
    if isinstance(layout.observation, spaces.Box) and isinstance(layout.action, spaces.Discrete):
        return PythonBatch(suite, tasks, split, num_envs, layout.observation, layout.action)
    return None


def _in_process(makes: Sequence[Callable[[], TrialEnv]]) -> TrialVector:
    environments = [make() for make in makes]
    observation_space, action_space = environments[0].observation_space, environments[0].action_space
    serial = SerialEnvironments(environments, allocate(observation_space, action_space, len(makes)))
    return TrialVector(serial, len(makes), observation_space, action_space)


def _in_workers(makes: Sequence[Callable[[], TrialEnv]], processes: int) -> TrialVector:
    first = makes[0]()  # makes no game: it says which spaces there are
    workers = Workers(makes, get_suite(first.suite), first.observation_space, first.action_space, processes)
    return TrialVector(workers, len(makes), first.observation_space, first.action_space)


def seconds_a_step(vector: TrialEnvironments) -> float:
    """Median time of a step of all environments, with random legal actions; trials are left wherever they are then."""
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


def _dealt(index: int, num_envs: int, tasks: int) -> tuple[int, ...]:
    """Indices of the tasks that an environment plays when they are dealt out in turn."""
    return tuple(range(index, tasks, num_envs)) or (index % tasks,)


@renamed_arguments(round="round_index")
def reset_seeds(seed: int, round_index: int, environments: int) -> list[int]:
    """One seed for each environment in one round of collecting, so that a resumed run need not save environments.

    `SeedSequence((seed, round_index))` hashes both numbers, so neighbouring seeds or rounds share nothing. A smaller
    number of environments gives the head of the list that a larger one gives.

    Args:
        seed: the run's seed, not negative.
        round_index: of collecting, not negative.
        environments: number of environments.

    Returns:
        `environments` ints in [0, 2**64), for `vector_env.reset(seed=...)`.

    Raises:
        ValueError: a negative number.
    """
    if min(seed, round_index, environments) < 0:
        raise ValueError(
            f"expected seed, round_index and environments not negative, got {seed}, {round_index} and {environments}"
        )
    return np.random.SeedSequence((seed, round_index)).generate_state(environments, np.uint64).tolist()


def reset_where(
    vector_env: TrialEnvironments, done: np.ndarray, task: str | Sequence[str] | None = None
) -> tuple[Any, dict[str, Any]]:
    """Starts new trials in the environments where `done`; the other environments go on and keep their observation.

    Args:
        vector_env: from `make_vector`.
        done: bool, (environments,), with at least one True.
        task: a task for those environments, or one for each environment; None draws them.

    Returns:
        Observations of all environments; and infos, whose `task`, int, (environments,),
        counts where `_task` is True.

    Raises:
        ValueError, TypeError: `done` has another shape or dtype, or no True.
        UnknownEnvironmentError: `task` is none of the environment's tasks.
    """
    options: dict[str, Any] = {"reset_mask": done}
    if task is not None:
        options["task"] = task
    return vector_env.reset(options=options)
