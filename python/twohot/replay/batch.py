"""Batches: windows of fixed shape, as numpy arrays or torch tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from twohot.replay.schema import Schema

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False)
class Batch:
    """`B` windows of `L` steps, as numpy arrays or torch tensors. Rows where no step is are zero.

    With n <= L real steps from step `start` of a trajectory on, rows 0 .. n of the [B, L + 1] arrays and rows
    0 .. n - 1 of the [B, L] ones are real; with padding on the left, the last ones are. With lookahead, L counts its
    steps too.
    """

    observation: dict[str, Any]
    """Each [B, L + 1, *shape]: what was seen before each step, and after the last."""
    previous_action: Any
    """[B, L + 1, *action shape]: the action of the step before, zeros at the beginning of a trajectory."""
    previous_reward: Any
    """float32 [B, L + 1]: the reward of the step before, 0 at the beginning of a trajectory."""
    time: Any
    """int32 [B, L + 1]: index of each row in its trial: in its trajectory, unless that is a later chunk of one."""
    action: Any
    """[B, L, *action shape]"""
    reward: Any
    """float32 [B, L]"""
    terminated: Any
    """bool [B, L]: no value follows the step."""
    truncated: Any
    """bool [B, L]: the trajectory was cut after the step, though values follow it."""
    mask: Any
    """bool [B, L]: True where a step is real, and no lookahead."""
    task: Any
    """int32 [B]"""
    trajectory: Any
    """int64 [B]: id of the trajectory each window comes from."""
    start: Any
    """int64 [B]: its first step."""
    probability: Any
    """float64 [B]: with which its trajectory was drawn; 1 / (n probability) is the weight that undoes a priority."""
    step: dict[str, Any]
    """Each [B, L, *shape]: the step fields of the schema."""

    def __repr__(self) -> str:
        shown = {name: list(value.shape) for name, value in self.observation.items()}
        return f"Batch({self.mask.shape[0]} windows of {self.mask.shape[1]} steps, observation={shown})"

    def views(self) -> dict[str, Any]:
        """The numpy arrays through which native code writes into the columns as they are now, without a copy."""
        held = self.__dict__
        seen = held.pop("_seen", None)
        columns = [*held.values(), *self.observation.values(), *self.step.values()]
        if seen is None or len(columns) != len(seen[0]) or not all(map(operator.is_, columns, seen[0])):
            seen = columns, self._columns(_view)
        held["_seen"] = seen
        return seen[1]

    def own(self) -> Batch:
        """The same columns under names of its own, which may be bound to others without a change of this batch."""
        other = object.__new__(Batch)
        other.__dict__.update({name: self.__dict__[name] for name in NAMES})
        other.observation, other.step = dict(self.observation), dict(self.step)
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in NAMES}  # a copy has views of its own

    def to(self, device: Any) -> Batch:
        """The batch on a torch device: itself where it lives there already, else a copy.

        From page-locked memory the copy is under way when this returns. Do not give a batch of a `loader` back, by
        asking for the next one, before the device has caught up: synchronise, or read what depends on the copy.
        """
        if self.reward.device == device:
            return self

        def copy(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return Batch(**self._columns(copy))

    def rows(self, first: int, count: int) -> Batch:
        """`count` of the windows from `first` on, in the same memory."""
        windows = slice(first, first + count)
        return Batch(**self._columns(operator.itemgetter(windows)))

    def windows(self, index: Any, steps: int) -> Batch:
        """Copies of the windows at `index`, an array or tensor of indices [n], cut after their first `steps` steps."""
        cut = self.mask.shape[1] - steps

        def take(array: Any) -> Any:
            return array[index] if array.ndim == 1 else array[index, : array.shape[1] - cut]

        return Batch(**self._columns(take))

    def _columns(self, change: Callable[[Any], Any]) -> dict[str, Any]:
        """What `change` makes of each array, by the names of the columns."""
        named = {kind: {name: change(item) for name, item in getattr(self, kind).items()} for kind in NAMED}
        return {name: named[name] if name in NAMED else change(getattr(self, name)) for name in NAMES}


NAMES = tuple(field.name for field in fields(Batch))
NAMED = ("observation", "step")
"""The columns that are arrays by name."""


def make_batch(
    schema: Schema, batch_size: int, length: int, lookahead: int = 0, *, torch: bool = False, pin_memory: bool = False
) -> Batch:
    """Memory of zeros for windows of a schema; see `Replay.batch`."""
    if pin_memory and not torch:
        raise ValueError("pin_memory: expected torch=True, for numpy arrays cannot be pinned")
    make: Callable[..., Any] = _torch_zeros(pin_memory) if torch else np.zeros
    rows, steps = (batch_size, length + lookahead + 1), (batch_size, length + lookahead)
    action = schema.action
    return Batch(
        observation={
            name: make((*rows, *field.shape), dtype=field.dtype) for name, field in schema.observation.items()
        },
        previous_action=make((*rows, *action.shape), dtype=action.dtype),
        previous_reward=make(rows, dtype="float32"),
        time=make(rows, dtype="int32"),
        action=make((*steps, *action.shape), dtype=action.dtype),
        reward=make(steps, dtype="float32"),
        terminated=make(steps, dtype="bool"),
        truncated=make(steps, dtype="bool"),
        mask=make(steps, dtype="bool"),
        task=make((batch_size,), dtype="int32"),
        trajectory=make((batch_size,), dtype="int64"),
        start=make((batch_size,), dtype="int64"),
        probability=make((batch_size,), dtype="float64"),
        step={name: make((*steps, *field.shape), dtype=field.dtype) for name, field in schema.step.items()},
    )


def _view(array: np.ndarray | Tensor) -> np.ndarray:
    """The numpy array through which native code writes into an array or a torch tensor, without a copy."""
    return array if isinstance(array, np.ndarray) else array.numpy()


def _torch_zeros(pin_memory: bool) -> Callable[..., Tensor]:
    import torch

    def zeros(shape: tuple[int, ...], dtype: str) -> Tensor:
        return torch.zeros(shape, dtype=getattr(torch, dtype), pin_memory=pin_memory)

    return zeros
