"""The spaces that all tasks of one agent share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym
from gymnasium import spaces

from twohot.envs.checked import asked
from twohot.envs.registry import check_tasks, get_suite, make_task, task_name
from twohot.envs.wrappers.actions import common_action_space
from twohot.envs.wrappers.padding import common_observation_space


@dataclass(frozen=True)
class Layout:
    """Spaces into which every task is padded.

    Args:
        observation: a float32 vector, or a Dict (see `common_observation_space`); without context features.
        action: Discrete, MultiDiscrete, MultiBinary, or a Box from -1 to 1.
    """

    observation: spaces.Box | spaces.Dict
    action: gym.Space


def common_layout(
    suite: str, tasks: Sequence[str], observation_size: int = 0, actions: int = 0, split: str = "train"
) -> Layout:
    """The smallest layout that fits all tasks. Makes and closes each task once, or one where they are uniform.

    Args:
        suite, tasks, split: as for `TrialEnv`.
        observation_size: entries of flat observations; 0 takes the largest.
        actions: number of actions (binary choices, numbers of a Box); 0 takes the largest.

    Raises:
        ValueError: a task is larger than the size given, or images differ in shape.
        UnsupportedSpaceError: a task's spaces are not supported, or tasks differ in their kind of action.
        UnknownEnvironmentError, MissingExtraError: see `check_tasks`.
    """
    if observation_size < 0 or actions < 0:
        raise ValueError(f"expected sizes not negative, got observation_size {observation_size}, actions {actions}")
    return layout_of(list(task_spaces(suite, tasks, split).values()), observation_size, actions)


def layout_of(own: Sequence[tuple[gym.Space, gym.Space]], observation_size: int = 0, actions: int = 0) -> Layout:
    """The smallest layout that fits tasks with these spaces of observations and of actions; see `common_layout`."""
    action = common_action_space([each for _, each in own], actions)
    return Layout(common_observation_space([each for each, _ in own], action, observation_size), action)


def task_spaces(suite: str, tasks: Sequence[str], split: str = "train") -> dict[str, tuple[gym.Space, gym.Space]]:
    """Each task's spaces of observations and of actions. Makes and closes each once, or the first of uniform ones.

    Raises:
        UnsupportedSpaceError: a task's spaces are not supported.
        UnknownEnvironmentError, MissingExtraError, ValueError: see `check_tasks`.
    """
    tasks = check_tasks(suite, tasks)
    found: dict[str, tuple[gym.Space, gym.Space]] = {}
    for task in tasks:
        if found and get_suite(suite).uniform:
            found[task] = found[tasks[0]]
            continue
        env = make_task(suite, task, split)
        asked(task_name(suite, task), "__init__", common_action_space, [env.action_space])
        found[task] = env.observation_space, env.action_space
        env.close()
    return found
