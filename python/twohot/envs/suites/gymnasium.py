"""Anything that gymnasium can make: every id is a task of the suite "gym"."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import gymnasium as gym

from twohot.envs.modules import ids_of, import_module_of
from twohot.envs.registry import Suite, UnknownEnvironmentError, task_name
from twohot.extras import MissingExtraError, here

__all__ = ["CLASSIC_MULTITASK", "CLASSIC_PROTOCOL", "TASKS"]

CLASSIC_MULTITASK = ("CartPole-v1", "Acrobot-v1", "LunarLander-v3", "MountainCar-v0")
"""Four tasks whose returns lie between -500 and +500, for one agent."""
# Arguments of `make_vector` for them.
CLASSIC_PROTOCOL: Mapping[str, Any] = MappingProxyType({"suite": "gym", "tasks": CLASSIC_MULTITASK})

TASKS = (
    *CLASSIC_MULTITASK,
    *("MountainCarContinuous-v0", "Pendulum-v1", "LunarLanderContinuous-v3", "BipedalWalker-v3", "CarRacing-v3"),
    *("Blackjack-v1", "CliffWalking-v1", "FrozenLake-v1", "FrozenLake8x8-v1", "Taxi-v4"),
    *("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "HumanoidStandup-v5", "InvertedDoublePendulum-v5"),
    *("InvertedPendulum-v5", "Pusher-v5", "Reacher-v5", "Swimmer-v5", "Walker2d-v5"),
)
"""Gymnasium's own; any other id that it knows is a task as well."""

# Mean return of random play over 150 (Acrobot, MountainCar) or 2000 episodes, and the return from which gymnasium
# counts the task as solved.
REFERENCE_SCORES = {
    "CartPole-v1": (22.4, 475.0),
    "Acrobot-v1": (-499.6, -100.0),
    "LunarLander-v3": (-181.6, 200.0),
    "MountainCar-v0": (-200.0, -110.0),
}


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """Any environment that gymnasium can make, as it is: what `make_task` shows of it is what an agent sees.

    Args:
        task: an id of gymnasium, such as "LunarLander-v3", or "module:Id-v0" of a module that registers it, which may
            be a file of the working directory.
        split: of no effect. render: whether `render()` returns pictures, where the environment draws any.

    Raises:
        UnknownEnvironmentError: gymnasium does not know the id, or there is no such module; the message has advice.
        BrokenEnvironmentError: the module raised when it was imported.
        MissingExtraError: the environment needs a package that is not installed.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    name = task_name("gym", task)
    import_module_of(task, name)
    try:
        with warnings.catch_warnings():
            # Importing Box2D warns; where warnings are errors, its native code would take the process down.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", ".*initialised with render_mode")  # seen when it draws
            make = partial(gym.make, task, disable_env_checker=True)
            env = drawing(make) if render else make()
    except gym.error.DependencyNotInstalled as error:
        install = here("pip install 'twohot[gym,mujoco]'")
        raise MissingExtraError(f"{name}: {error}: {install}") from error
    except gym.error.Error as error:
        raise UnknownEnvironmentError(f"{name}: {error}{ids_of(task)}") from error
    return env


def drawing(make: Callable[..., Any]) -> Any:
    """`make(render_mode="rgb_array")`, or what draws nothing where it cannot be told to."""
    try:
        return make(render_mode="rgb_array")
    except gym.error.Error:
        raise
    except Exception:  # of a constructor without render_mode, or that takes other modes only
        return make()


SUITE = Suite(
    name="gym",
    summary="Any environment of gymnasium, by its id.",
    requires=(),
    install="pip install 'twohot[gym,mujoco]'",
    tasks=TASKS,
    make=make,
    one_vector=True,
    open_ended=True,
    reference_scores=REFERENCE_SCORES,
)
