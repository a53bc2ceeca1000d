"""What a replay holds, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from twohot import _native
from twohot.replay.arguments import integer


@dataclass(frozen=True)
class ReplayStats:
    """Counts of a replay: what it holds now, what has left it for its capacity, and what writers have open."""

    trajectories: int
    protected_trajectories: int
    """Those among them that are never evicted."""
    steps: int
    bytes: int
    evicted_trajectories: int
    evicted_steps: int
    open_trajectories: int
    problems: int
    """Corrupt records and files of its directory that were left out."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file of a replay."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


class Contents:
    """What a replay holds at this moment."""

    _native: _native.ReplayStore

    def __len__(self) -> int:
        """How many trajectories are stored, as in `ids`; their steps are `stats().steps`."""
        return self.stats().trajectories

    def __bool__(self) -> bool:
        return True  # a replay is one when it is empty, too

    def stats(self) -> ReplayStats:
        """Counts at this moment."""
        return ReplayStats(**self._native.stats())

    def table(self) -> dict[str, np.ndarray]:
        """What is known of each stored trajectory: the protected ones, then the others, each oldest first.

        Arrays [trajectories]: `id` int64; `task` int32; `length` int64, in steps; `return` float64, undiscounted;
        `origin` int64, the time of its first step in its trial; `protected` bool; `priority` float64.
        """
        table = self._native.table()
        if not len(table["priority"]):
            table["priority"] = np.ones(len(table["id"]))
        return table

    def lengths(self) -> np.ndarray:
        """Steps of each stored trajectory, int64 [trajectories], as `table`."""
        return self.table()["length"]

    def tasks(self) -> np.ndarray:
        """Task of each stored trajectory, int32 [trajectories], as `table`."""
        return self.table()["task"]

    def returns(self) -> np.ndarray:
        """Undiscounted sum of the rewards of each stored trajectory, float64 [trajectories], as `table`."""
        return self.table()["return"]

    def ids(self) -> np.ndarray:
        """Id of each stored trajectory, int64 [trajectories], as `table`."""
        return self.table()["id"]

    def actions(self) -> np.ndarray:
        """Actions of all stored steps, [steps, *action shape], one trajectory after the other, as `table`."""
        return self._native.actions()

    def get(self, trajectory: int) -> dict[str, Any]:
        """Copies of the columns of the trajectory with this id, as the arguments of `add`.

        Raises KeyError where it is not stored (any more): evicted, or in a file that others have removed.
        """
        return self._native.get(integer("trajectory", trajectory))
