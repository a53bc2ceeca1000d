"""What every format is read into and written from, and the checks that they share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from twohot.errors import TwohotError
from twohot.replay import DTYPES, Field, Schema

Trajectory = dict[str, Any]
"""The arguments of `Replay.add`: `observation` (arrays of T + 1 rows by name), `action`, `reward`, `terminated` and
`truncated` (T rows each), `task` (an integer) and, where there are any, `step` (arrays of T rows by name)."""


class FormatError(TwohotError, ValueError):
    """A file that does not hold what its format says; the sentence names the file and the key."""


def schema_of(trajectory: Trajectory) -> Schema:
    """The schema of a replay that takes this trajectory. Raises ValueError where there is none."""
    fields = {
        kind: {name: Field(values.dtype.name, values.shape[1:]) for name, values in trajectory[kind].items()}
        for kind in ("observation", "step")
        if trajectory.get(kind)
    }
    action = trajectory["action"]
    return Schema(action=Field(action.dtype.name, action.shape[1:]), **fields)


def checked(
    source: str,
    *,
    observation: Mapping[str, Any],
    action: Any,
    reward: Any,
    terminated: Any,
    truncated: Any = None,
    task: Any = 0,
    step: Mapping[str, Any] | None = None,
    fields: Collection[str] | None = None,
) -> Trajectory:
    """A trajectory of C-contiguous arrays whose lengths and ends belong together.

    Rewards become float32, rounded, and ends bool. Where no step ends it, the last one is truncated.

    Args:
        source: names the file, and what in it, in errors.
        observation: arrays of T + 1 rows.
        action: T >= 1 rows. reward: T numbers within float32. terminated, truncated: T times 0 or 1.
        task: an integer, 0 .. 2^31 - 1.
        step: arrays of T rows.
        fields: names of the observations to keep; None for all.

    Raises:
        FormatError: where they do not.
    """
    if fields is not None:
        missing = sorted(set(fields) - set(observation))
        if missing:
            raise FormatError(f"{source}: no observation {missing[0]!r}; there are {', '.join(observation)}")
        observation = {name: observation[name] for name in fields}
    if not observation:
        raise FormatError(f"{source}: expected at least one observation, got none")
    action = _column(source, "action", action)
    if action.ndim == 0 or len(action) < 1:
        raise FormatError(f"{source}: action: expected at least one step, got shape {action.shape}")
    steps = len(action)
    rows = _columns(source, "observation", observation, steps + 1)
    step_columns = _columns(source, "step", step or {}, steps)
    given = _numbers(source, "reward", reward, steps)
    with np.errstate(over="ignore"):
        reward = given.astype(np.float32)
    if not np.isfinite(reward).all():
        raise FormatError(f"{source}: reward: expected finite numbers, got {given[~np.isfinite(reward)][0]} (float32)")
    ends = [_flags(source, "terminated", terminated, steps)]
    ends.append(np.zeros(steps, bool) if truncated is None else _flags(source, "truncated", truncated, steps))
    early = np.flatnonzero((ends[0] | ends[1])[:-1])
    if len(early):
        raise FormatError(f"{source}: step {early[0]} of {steps} ends it; expected that none but the last does")
    ends[1][-1] |= not ends[0][-1]
    result = {
        "observation": rows,
        "action": action,
        "reward": np.ascontiguousarray(reward),
        "terminated": np.ascontiguousarray(ends[0]),
        "truncated": np.ascontiguousarray(ends[1]),
        "task": label(source, task),
        **({"step": step_columns} if step_columns else {}),
    }
    try:
        schema_of(result)
    except ValueError as error:  # a name or a shape that no replay has
        raise FormatError(f"{source}: {error}") from error
    return result


def label(source: str, task: Any) -> int:
    """The label of a trajectory. Raises FormatError for what is not one integer of 0 .. 2^31 - 1."""
    value = np.asarray(task)
    if value.size != 1 or value.dtype.kind not in "iu":
        raise FormatError(f"{source}: task: expected one integer, got {value.dtype} of shape {value.shape}")
    if not 0 <= value.item() < 2**31:
        raise FormatError(f"{source}: task: expected 0 .. 2^31 - 1, got {value.item()}")
    return value.item()


def _columns(source: str, kind: str, named: Mapping[str, Any], rows: int) -> dict[str, np.ndarray]:
    """Arrays of `rows` rows that a replay can hold."""
    columns = {name: _column(source, f"{kind} {name!r}", values) for name, values in named.items()}
    for name, values in columns.items():
        if values.ndim == 0 or len(values) != rows:
            raise FormatError(f"{source}: {kind} {name!r}: expected {rows} rows, got shape {values.shape}")
    return columns


def _column(source: str, name: str, values: Any) -> np.ndarray:
    """An array that a replay can hold, of the same values."""
    array: Any = np.asarray(values)
    if array.dtype.name not in DTYPES:
        raise FormatError(f"{source}: {name}: expected one of {', '.join(DTYPES)}; got {array.dtype}")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _numbers(source: str, name: str, values: Any, steps: int) -> np.ndarray:
    """[steps] numbers; a last dimension of one is taken away."""
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (steps,) or array.dtype.kind not in "biuf":
        raise FormatError(f"{source}: {name}: expected {steps} numbers, got {array.dtype} of shape {array.shape}")
    return array


def _flags(source: str, name: str, values: Any, steps: int) -> np.ndarray:
    """[steps] bool of numbers that are 0 or 1."""
    array = _numbers(source, name, values, steps)
    other = (array != 0) & (array != 1)
    if other.any():
        raise FormatError(f"{source}: {name}: expected 0 or 1, got {array[other][0]}")
    return array != 0
