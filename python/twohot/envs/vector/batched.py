"""Environments written for many rows at once in numpy, and the ordinary face of one row over the same code.

A batch owns arrays whose first axis is the row. One call steps all rows; random numbers are drawn from a generator of
each row's own, so a row plays the same game whatever stands beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class EnvBatch(ABC):
    """`rows` games, of which each is somewhere else in its episode: copies of one task, or of the one chosen for it.

    Attributes:
        rows: their number.
        observation_space: of one row: a flat float32 Box, an image, or a Dict as `make_task` describes it.
        action_space: of one row, from 0 on, a Box from -1 to 1.
        hidden_task: whether several attempts share a hidden task; `reset` draws it anew where `new_task`.
        success: bool [rows], whether the last step of the row reached the goal.
        told: bool [rows], whether the last step said at all if it did; a success tells of itself.
        tells_success: what `told` is from the beginning.
        legal: bool [rows], whether the last action of the row was one that its task has.
        began: None, or bool [rows]: where a row that could not begin at once has begun with the last step, which was no
            step of its attempt.
        one_attempt: whether a row cannot begin an attempt before another step.
    """

    observation_space: spaces.Box | spaces.Dict
    action_space: spaces.Space
    hidden_task = False
    began: np.ndarray | None = None
    one_attempt = False
    tells_success = False

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.success, self.legal = np.zeros(rows, bool), np.ones(rows, bool)
        self.told = np.full(rows, self.tells_success)

    def choose(self, row: int, task: int) -> None:  # noqa: B027 (there is nothing to choose from)
        """What a row plays from its next reset on, an index into the tasks that the batch was made for."""

    def seed_actions(self, row: int, seed: int) -> None:  # noqa: B027 (all actions are legal)
        """Seed what replaces actions that the row's task does not have."""

    def restart(self, seed: int | None) -> None:  # noqa: B027 (rows have seeds of their own)
        """All rows are about to begin a trial; `seed` is the first row's."""

    def begin(self, row: int, seed: int, attempt: int) -> None:
        """Begin an attempt in one row from a seed, an int in [0, 2**31 - 1)."""
        random = np.random.Generator(np.random.PCG64(seed))  # gymnasium's own seeding, without its checks
        self.reset(row, random, new_task=not self.hidden_task or attempt == 0)

    def stop(self, row: int) -> None:  # noqa: B027 (what such a row does has no meaning)
        """The row's trial has been cut off: nothing is asked of it until its next attempt begins."""

    @abstractmethod
    def reset(self, row: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        """Begin an attempt in one row: at a task drawn anew, or at the row's own task again."""

    @abstractmethod
    def observe(self) -> np.ndarray | dict[str, np.ndarray]:
        """What every row shows now, each part [rows, *shape] of the space's dtype, a new array."""

    @abstractmethod
    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Move every row by one step.

        Args:
            actions: [rows, *action], of the action space. What a row does whose episode is over has no meaning; it is
                no error.

        Returns:
            reward float32 [rows], terminated bool [rows], truncated bool [rows]; all new arrays.
        """

    def info(self, row: int) -> dict[str, Any]:
        """What a row's `info` holds after a step, beside `success`."""
        return {}

    @abstractmethod
    def picture(self, row: int) -> np.ndarray:
        """What a person sees of one row: uint8 [height, width, 3]."""

    def close(self) -> None:  # noqa: B027 (numpy has nothing to free)
        """Free what is not Python's."""


class OneRow(gym.Env[np.ndarray, int]):
    """One row of an `EnvBatch` as a gymnasium environment.

    Args:
        batch: of one row.
        render: whether `render()` returns pictures.

    Raises:
        ValueError: the batch has another number of rows.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's own way)

    def __init__(self, batch: EnvBatch, render: bool = False) -> None:
        if batch.rows != 1:
            raise ValueError(f"expected a batch of 1 row, got {batch.rows}")
        self.batch = batch
        self.render_mode = "rgb_array" if render else None
        self.observation_space, self.action_space = batch.observation_space, batch.action_space
        self.hidden_task = batch.hidden_task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begin an attempt; `options={"attempt": i}` with i > 0 keeps the hidden task."""
        super().reset(seed=seed)
        self.batch.reset(0, self.np_random, new_task=not (options or {}).get("attempt"))
        return self.batch.observe()[0], {}

    def step(self, action):
        reward, terminated, truncated = self.batch.step(np.array([action]))
        success = bool(self.batch.success[0])
        info = {"success": success, **self.batch.info(0)} if success or self.batch.told[0] else self.batch.info(0)
        return self.batch.observe()[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray | None:
        return self.batch.picture(0) if self.render_mode else None


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
