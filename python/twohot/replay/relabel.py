"""Hindsight: changing drawn trajectories before their windows are packed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(eq=False)
class Trajectories:
    """Copies of the whole trajectories that `B` windows were drawn from, one after the other, to be changed in place.

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
        return self._rows(self.step_begin, b)

    def observation_rows(self, b: int) -> slice:
        """The observation rows of trajectory b."""
        return self._rows(self.observation_begin, b)

    def _rows(self, begin: np.ndarray, b: int) -> slice:
        if not 0 <= b < len(self.length):
            raise IndexError(f"expected a trajectory from 0 to {len(self.length) - 1}, got {b}")
        return slice(int(begin[b]), int(begin[b + 1]))


Relabel = Callable[[Trajectories], None]


COLUMNS = ("observation", "action", "reward", "terminated", "truncated", "start", "task")


def relabelled(drawn: dict[str, Any], relabel: Relabel) -> dict[str, Any]:
    """What native code drew, after `relabel` has changed it, in place or by other arrays that it bound to a name.

    Raises TypeError where it returns something, and ValueError where lengths, ids or last ends are not what they were;
    native code checks the rest.
    """
    fixed = {name: drawn[name].copy() for name in ("length", "id")}
    names = (*COLUMNS, *fixed)
    changed = Trajectories(step=drawn.get("step", {}), **{name: drawn[name] for name in names})
    last = changed.step_begin[1:] - 1
    returned = relabel(changed)
    if returned is not None:
        raise TypeError(
            f"relabel: expected a function that changes what it is given and returns None, got {returned!r:.60}"
        )
    for name, values in fixed.items():
        if not np.array_equal(getattr(changed, name), values):
            raise ValueError(f"relabel: expected {name!r} as it was, got {getattr(changed, name)!r:.60}")
    result = {**drawn, **{name: getattr(changed, name) for name in names}}
    if "step" in drawn:
        result["step"] = changed.step
    if (
        any(np.asarray(result[name]).shape != (last[-1] + 1,) for name in ("terminated", "truncated"))
        or not (result["terminated"][last] | result["truncated"][last]).all()
    ):
        raise ValueError("relabel: expected that the last step of each trajectory ends it, as it did")
    return result
