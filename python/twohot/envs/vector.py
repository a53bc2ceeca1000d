"""Many trials side by side, in one process.

For environments this cheap a plain loop beats processes 5 to 15 times (two cores). Autoreset is off: the caller
resets finished rows with `reset_where`, so no dummy transition ever appears.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from twohot.envs.batched_trials import BatchedTrials
from twohot.envs.layout import common_layout
from twohot.envs.multitask import TrialEnv
from twohot.envs.registry import check_split, check_tasks, get_suite


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
    context_features: bool = True,
    render: bool = False,
) -> VectorEnv:
    """`environments` equal `TrialEnv`s stepped in a loop, or in a few numpy calls for all; without autoreset.

    Arrays that `reset` and `step` return are the caller's own: no later call writes into them. Stepping while a
    row is finished is an error: reset it first with `reset_where`.

    Args:
        environments: number of rows, at least 1.
        suite, tasks, split, attempts, free_attempts, reward_multipliers, context_features, render: as for `TrialEnv`.
        observation_size, actions: as for `common_layout`, which settles the spaces once for all rows.

    Raises:
        ValueError: an argument is outside its range, or a task is larger than a size given.
        UnknownEnvironmentError, MissingExtraError, UnsupportedSpaceError: as for `TrialEnv`.
    """
    if environments < 1:
        raise ValueError(f"expected at least 1 environment, got {environments}")
    tasks, make_batch = check_tasks(suite, tasks), get_suite(suite).make_batch
    if make_batch is not None and len(tasks) == 1 and not render:
        check_split(suite, split)
        batch = make_batch(tasks[0], split, environments)
        if actions in (0, batch.action_space.n):
            return BatchedTrials(
                batch,
                attempts=attempts,
                free_attempts=free_attempts,
                multiplier=reward_multipliers[0] if reward_multipliers else 1.0,
                observation_size=observation_size,
                context_features=context_features,
            )
    layout = common_layout(suite, tasks, observation_size, actions, split)
    make = partial(
        TrialEnv,
        suite,
        tasks,
        split=split,
        attempts=attempts,
        free_attempts=free_attempts,
        reward_multipliers=reward_multipliers,
        layout=layout,
        context_features=context_features,
        render=render,
    )
    return SyncVectorEnv([make] * environments, autoreset_mode=AutoresetMode.DISABLED)


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


def reset_where(vector_env: VectorEnv, done: np.ndarray, task: str | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """Starts new trials in the rows where `done`; the other rows go on and keep their observation.

    Args:
        vector_env: from `make_vector`.
        done: bool, (environments,), with at least one True.
        task: a task for those rows; None draws one for each.

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
