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
    tasks = check_tasks(suite, tasks)
    observations, own_actions = [], []
    for task in tasks[:1] if get_suite(suite).uniform else tasks:
        env = make_task(suite, task, split)
        observations.append(env.observation_space)
        asked(task_name(suite, task), "__init__", common_action_space, [env.action_space])
        own_actions.append(env.action_space)
        env.close()
    action = common_action_space(own_actions, actions)
    return Layout(common_observation_space(observations, action, observation_size), action)
