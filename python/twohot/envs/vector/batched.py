"""Environments written in numpy for many at once, and an ordinary environment over the same code.

A batch owns arrays whose first axis is the environment. One call steps all of them; each has its own random generator,
so it plays the same game whatever stands beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot._moved import renamed_arguments, renamed_attributes, renamed_property, warn_renamed


class EnvBatch(ABC):
    """`num_envs` games, each somewhere else in its episode: copies of one task, or of the one chosen for it.

    Attributes:
        num_envs: their number.
        observation_space: of one environment: a flat float32 Box, an image, or a Dict as `make_task` describes it.
        action_space: of one environment, from 0 on, a Box from -1 to 1.
        hidden_task: whether several attempts share a hidden task; `reset` draws it again where `new_task`.
        success: bool [num_envs], whether the last step of the environment reached the goal.
        told: bool [num_envs], whether the last step said at all if it did; a success tells of itself.
        reports_success: what `told` is from the beginning.
        legal: bool [num_envs], whether the last action of the environment was one that its task has.
        began: None, or bool [num_envs]: where an environment that could not begin at once has begun with the last
            step, which was no step of its attempt.
        one_attempt: whether an environment cannot begin an attempt before another step.
        explore: None, or bool [num_envs]: where the next action of a training actor should be a noisy one.
    """

    observation_space: spaces.Box | spaces.Dict
    action_space: spaces.Space
    hidden_task = False
    began: np.ndarray | None = None
    one_attempt = False
    reports_success = False

    @property
    def explore(self) -> np.ndarray | None:
        """See above."""
        return None

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if "tells_success" in vars(cls):
            warn_renamed("EnvBatch.tells_success", "reports_success", stacklevel=4)
            cls.reports_success = vars(cls)["tells_success"]

    @renamed_arguments(rows="num_envs")
    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.success, self.legal = np.zeros(num_envs, bool), np.ones(num_envs, bool)
        self.told = np.full(num_envs, self.reports_success)

    rows = renamed_property("rows", "num_envs")

    def choose(self, index: int, task: int) -> None:  # noqa: B027 (there is nothing to choose from)
        """What an environment plays from its next reset on, an index into the tasks that the batch was made for."""

    def seed_actions(self, index: int, seed: int) -> None:  # noqa: B027 (all actions are legal)
        """Seed what replaces actions that the environment's task does not have."""

    def restart(self, seed: int | None) -> None:  # noqa: B027 (each environment has its own seed)
        """All environments are about to begin a trial; `seed` is the first environment's."""

    def begin(self, index: int, seed: int, attempt: int) -> None:
        """Begin an attempt in one environment from a seed, an int in [0, 2**31 - 1)."""
        random = np.random.Generator(np.random.PCG64(seed))  # gymnasium's own seeding, without its checks
        self.reset(index, random, new_task=not self.hidden_task or attempt == 0)

    def stop(self, index: int) -> None:  # noqa: B027 (what such an environment does has no meaning)
        """The environment's trial has been cut off: nothing is asked of it until its next attempt begins."""

    @abstractmethod
    def reset(self, index: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        """Begin an attempt in one environment: at a newly drawn task, or at the environment's own task again."""

    @abstractmethod
    def observe(self) -> np.ndarray | dict[str, np.ndarray]:
        """What every environment shows now, each part [num_envs, *shape] of the space's dtype, a new array."""

    @abstractmethod
    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Move every environment by one step.

        Args:
            actions: [num_envs, *action], of the action space. What an environment does whose episode is over has no
                meaning; it is no error.

        Returns:
            reward float32 [num_envs], terminated bool [num_envs], truncated bool [num_envs]; all new arrays.
        """

    def info(self, index: int) -> dict[str, Any]:
        """What an environment's `info` holds after a step, beside `success`."""
        return {}

    @abstractmethod
    def picture(self, index: int) -> np.ndarray:
        """What a person sees of one environment: uint8 [height, width, 3]."""

    def close(self) -> None:  # noqa: B027 (numpy has nothing to free)
        """Free what is not Python's."""


class SingleEnv(gym.Env[Any, Any]):
    """An `EnvBatch` of one environment as a gymnasium environment.

    Args:
        batch: of one.
        render: whether `render()` returns pictures.

    Raises:
        ValueError: the batch has another number of environments.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's own way)

    def __init__(self, batch: EnvBatch, render: bool = False) -> None:
        if batch.num_envs != 1:
            raise ValueError(f"expected a batch of 1 environment, got {batch.num_envs}")
        self.batch = batch
        self.render_mode = "rgb_array" if render else None
        self.observation_space, self.action_space = batch.observation_space, batch.action_space
        self.hidden_task = batch.hidden_task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begin an attempt; `options={"attempt": i}` with i > 0 keeps the hidden task."""
        super().reset(seed=seed)
        self.batch.reset(0, self.np_random, new_task=not (options or {}).get("attempt"))
        return self._observe(), {}

    def step(self, action):
        reward, terminated, truncated = self.batch.step(np.array([action]))
        success = bool(self.batch.success[0])
        info = {"success": success, **self.batch.info(0)} if success or self.batch.told[0] else self.batch.info(0)
        return self._observe(), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray | None:
        return self.batch.picture(0) if self.render_mode else None

    def _observe(self) -> np.ndarray | dict[str, np.ndarray]:
        observation = self.batch.observe()
        if isinstance(observation, np.ndarray):
            return observation[0]
        return {name: part[0] for name, part in observation.items()}


def draw_cells(cells: np.ndarray, colours: Sequence[tuple[int, int, int]], pixels: int = 32) -> np.ndarray:
    """A grid as a picture: square cells of one colour each, with thin lines between them.

    Args:
        cells: int [height, width], indices into `colours`. pixels: side of a cell.

    Returns:
        uint8 [height * pixels, width * pixels, 3].
    """
    picture = np.asarray(colours, np.uint8)[cells].repeat(pixels, 0).repeat(pixels, 1)
    picture[::pixels] = picture[:, ::pixels] = 60
    return picture


__getattr__ = renamed_attributes(__name__, OneRow="SingleEnv")
