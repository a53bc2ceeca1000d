"""Writing the steps of many environments."""

from __future__ import annotations

import numpy as np

from twohot import _native


class Writer:
    """Collects the steps of `E` environments; made by `Replay.writer`. Serves one thread at a time.

    Every array argument has `E` rows. `mask` (bool [E]) says which environments take part in a call; rows of the others
    are ignored. `begin`, `append` and `cut` do all of their work or, when they raise, none of it. They raise ValueError
    for arrays other than the schema's, TypeError for what is no array, and OSError where a file cannot be written (free
    some space and call again).
    """

    __slots__ = ("_native",)

    def __init__(self, native: _native.ReplayWriter) -> None:
        self._native = native

    def __reduce__(self) -> str:
        raise TypeError(
            "a writer cannot be copied or sent to another process: ask a replay that is opened there for one"
        )

    def begin(
        self, observation: dict[str, np.ndarray], mask: np.ndarray | None = None, task: np.ndarray | None = None
    ) -> None:
        """Opens a trajectory in each environment with its first observation and `task` (int32 [E], default 0).

        Raises RuntimeError where a trajectory is open already and ValueError for a NaN where none may be.
        """
        self._native.begin(observation, mask, task)

    def append(
        self,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        observation: dict[str, np.ndarray],
        mask: np.ndarray | None = None,
        step: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Adds one step to each environment: (a_t, r_{t+1}, terminated, truncated, o_{t+1}).

        `observation` is what the step led to, never the first observation of the next trajectory. Where `terminated`
        or `truncated` (bool [E]), the trajectory is finished: samples may hold it, and the environment waits for
        `begin`. `reward` is float32 [E]; `step` has the step fields of the schema.

        Raises RuntimeError where no trajectory is open, and ValueError for a NaN where none may be, for a reward that
        is not finite, and where one trajectory would exceed the whole capacity.
        """
        self._native.append(action, reward, terminated, truncated, observation, mask, step)

    def cut(self) -> None:
        """Finishes every open trajectory as truncated after its last step, and drops those without a step."""
        self._native.cut()

    def discard(self, mask: np.ndarray | None = None) -> None:
        """Drops the open trajectories of the environments where mask [E] (bool) is True; without a mask, of all."""
        self._native.discard(mask)
