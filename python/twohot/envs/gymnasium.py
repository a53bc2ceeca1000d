"""Anything that gymnasium can make: every id is a task of the suite "gym"."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.one_hot import OneHotObservation
from twohot.envs.registry import MissingExtraError, Suite, UnknownEnvironmentError

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


class PartsObservation(gym.ObservationWrapper):
    """A Dict or a picture as parts that an agent sees: images stay, everything else becomes flat float32 vectors.

    Args:
        env: observation a uint8 Box [H, W] or [H, W, C], or a Dict with such parts and Boxes.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        space = env.observation_space
        self._single = not isinstance(space, spaces.Dict)
        parts = {"observation": space} if self._single else space.spaces
        self._images = {name: _is_image(part) for name, part in parts.items()}
        converted = {name: self._convert_space(name, part) for name, part in parts.items()}
        self.observation_space = converted["observation"] if self._single else spaces.Dict(converted)

    def observation(self, observation: Any) -> Any:
        if self._single:
            return self._convert("observation", observation)
        return {name: self._convert(name, observation[name]) for name in self._images}

    def _convert_space(self, name: str, space: spaces.Box) -> spaces.Box:
        if self._images[name]:
            return spaces.Box(0, 255, (*space.shape, 1)[:3], np.uint8)
        return spaces.Box(space.low.ravel().astype(np.float32), space.high.ravel().astype(np.float32))

    def _convert(self, name: str, value: np.ndarray) -> np.ndarray:
        if self._images[name]:
            return value[..., None] if value.ndim == 2 else value
        return np.ravel(value).astype(np.float32)


def _is_image(space: gym.Space) -> bool:
    """Whether a space holds pictures, [H, W] or [H, W, C] of bytes."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """Any environment that gymnasium can make, seen as an agent sees.

    A vector stays what it is; numbers of any shape and finite choices become one flat vector (one-hot); pictures
    become images, and a Dict that has any keeps its parts. Rewards, ends and time limits are the environment's own.

    Args:
        task: an id of gymnasium, such as "LunarLander-v3", or "module:Id-v0" of a package that registers it.
        split: of no effect. render: whether `render()` returns pictures.

    Raises:
        UnknownEnvironmentError: gymnasium does not know the id; its message has its advice.
        MissingExtraError: the environment needs a package that is not installed.
        UnsupportedSpaceError: an observation of text, graphs or sequences.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        with warnings.catch_warnings():
            # Importing Box2D warns; where warnings are errors, its native code would take the process down.
            warnings.simplefilter("ignore", DeprecationWarning)
            env = gym.make(task, disable_env_checker=True, render_mode="rgb_array" if render else None)
    except gym.error.DependencyNotInstalled as error:
        raise MissingExtraError(f"gym task {task!r}: {error}: pip install 'twohot[gym,mujoco]'") from error
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise UnknownEnvironmentError(f"gym task {task!r}: {error}") from error
    space = env.observation_space
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return env
    if _is_image(space):
        return PartsObservation(env)
    if isinstance(space, spaces.Dict) and any(_is_image(part) for part in space.spaces.values()):
        return PartsObservation(env)
    return OneHotObservation(env)


SUITE = Suite(
    name="gym",
    summary="Any environment of gymnasium, by its id.",
    requires=(),
    install="pip install 'twohot[gym,mujoco]'",
    tasks=TASKS,
    make=make,
    open_ended=True,
    reference_scores=REFERENCE_SCORES,
)
