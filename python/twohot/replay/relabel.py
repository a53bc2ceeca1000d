"""Hindsight: changing drawn trajectories before their windows are packed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(eq=False)
class Trajectories:
    """Copies of the whole trajectories that `B` windows were drawn from, one behind the other, to be changed in place.

    Trajectory b has the observation rows `observation_rows(b)` and the step rows `step_rows(b)`. Its length, its id and
    its last step's end stay as they are; a reward must stay finite.
    """

    observation: dict[str, np.ndarray]
    """Each [sum of (T + 1), *shape]."""
    action: np.ndarray
    """[sum of T, *action shape]"""
    reward: np.ndarray
    """float32 [sum of T]"""
    terminated: np.ndarray
    """bool [sum of T]"""
    truncated: np.ndarray
    """bool [sum of T]"""
    step: dict[str, np.ndarray]
    """Each [sum of T, *shape]."""
    length: np.ndarray
    """int64 [B]: T of each."""
    start: np.ndarray
    """int64 [B]: the first step of the window in its trajectory."""
    task: np.ndarray
    """int32 [B]"""
    id: np.ndarray
    """int64 [B]"""

    def __post_init__(self) -> None:
        self.step_begin = np.concatenate(([0], np.cumsum(self.length)))
        """int64 [B + 1]: the first step row of each trajectory, and the number of all."""
        self.observation_begin = self.step_begin + np.arange(len(self.length) + 1)
        """int64 [B + 1]: the same of the observation rows."""

    def step_rows(self, b: int) -> slice:
        """The step rows of trajectory b."""
        return slice(int(self.step_begin[b]), int(self.step_begin[b + 1]))

    def observation_rows(self, b: int) -> slice:
        """The observation rows of trajectory b."""
        return slice(int(self.observation_begin[b]), int(self.observation_begin[b + 1]))


Relabel = Callable[[Trajectories], None]


def relabelled(drawn: dict[str, Any], relabel: Relabel) -> dict[str, Any]:
    """What native code drew, after `relabel` has changed it. Raises ValueError for a reward that is not finite."""
    names = ("observation", "action", "reward", "terminated", "truncated", "length", "start", "task", "id")
    relabel(Trajectories(step=drawn.get("step", {}), **{name: drawn[name] for name in names}))
    if not np.isfinite(drawn["reward"]).all():
        raise ValueError("relabel: expected finite rewards, got one that is not")
    return drawn
