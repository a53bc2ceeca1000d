"""Columns of recorded trajectories as those of an agent: exact, or refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from gymnasium import Space, spaces

from twohot.envs.multitask import CONTEXT_FEATURES
from twohot.envs.padding import CONTEXT
from twohot.errors import TwohotError
from twohot.replay import Replay, Schema
from twohot.replay.formats.amago import one_hot
from twohot.spaces import OBSERVATION

FEATURES = len(CONTEXT_FEATURES)
MOST_CHOICES = 2**16
"""Of an observation that becomes one-hot, and of an action: one mistaken number must not fill the memory."""


class OfflineError(TwohotError, ValueError):
    """A dataset that an agent cannot train from; the message says why and what to do."""


@dataclass(frozen=True)
class Recorded:
    """The spaces of the environment that was recorded, where they are known: by name, and of its actions."""

    observation: Mapping[str, Space] = field(default_factory=dict)
    action: Space | None = None

    @classmethod
    def of(cls, observation: Space | None, action: Space | None) -> Recorded:
        """Of spaces, whose parts are named as `read_minari` names them."""
        parts = {} if observation is None else dict(_leaves(observation))
        return cls(
            {name: part for name, part in parts.items() if not _says_nothing(part)},
            None if _says_nothing(action) else action,
        )

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """What the numbers of an action run between; -1 and 1 where it is not known."""
        if isinstance(self.action, spaces.Box) and self.action.is_bounded():
            return self.action.low.ravel().astype(np.float64), self.action.high.ravel().astype(np.float64)
        return np.array(-1.0), np.array(1.0)


def _says_nothing(space: Space | None) -> bool:
    """Whether a space is all that an integer dtype holds, as `write_minari` has it of what it does not know."""
    if not isinstance(space, spaces.Box) or space.dtype.kind not in "biu":
        return False
    low, high = (0, 1) if space.dtype.kind == "b" else (np.iinfo(space.dtype).min, np.iinfo(space.dtype).max)
    return bool((space.low == low).all() and (space.high == high).all())


def _leaves(space: Space, name: str = "") -> Iterator[tuple[str, Space]]:
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        yield name or OBSERVATION, space
        return
    items = space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    for key, part in items:
        yield from _leaves(part, f"{name}/{key}" if name else str(key))


def choices_of(space: Space | None) -> tuple[np.ndarray, np.ndarray] | None:
    """How many choices each entry of a value of a space has, and the first of them; None for other spaces."""
    if isinstance(space, spaces.Discrete):
        return np.array([space.n]), np.array([space.start])
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.ravel(), space.start.ravel()
    return None


def is_vector(parts: Mapping[str, spaces.Box]) -> bool:
    """Whether an observation is one vector, at whose end the features stand."""
    return set(parts) == {OBSERVATION} and len(parts[OBSERVATION].shape) == 1 and parts[OBSERVATION].dtype == np.float32


def cast(name: str, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The same numbers in another dtype; floating-point ones are rounded.

    Raises ValueError, calling them by `name`, for numbers that it does not hold: integers beyond an integer's range or
    beyond 2^24 in float32, fractions in integers, and numbers beyond those of a smaller floating-point dtype.
    """
    if not values.size or values.dtype == dtype:
        return values.astype(dtype)
    with np.errstate(over="ignore"):
        result = values.astype(dtype)
    if dtype.kind == "f" and values.dtype.kind == "f":
        wrong = np.isinf(result) & ~np.isinf(values)
    elif dtype.kind == "f":
        wrong = np.abs(values.astype(np.float64)) > 2.0 ** (np.finfo(dtype).nmant + 1)
    elif values.dtype.kind in "biu":
        limits = np.iinfo(dtype)
        wrong = np.zeros(values.shape, bool)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            wrong = (values < limits.min) | (values > limits.max)
    else:
        wrong = np.ones(values.shape, bool)
    if wrong.any():
        raise ValueError(f"{name}: expected numbers that {dtype} holds, got {values[wrong][0]} as {values.dtype}")
    return result


def one_hot_blocks(name: str, values: np.ndarray, choices: tuple[np.ndarray, np.ndarray], encoded: np.ndarray) -> None:
    """Sets what the choices `values` [rows, entries] are in `encoded`, zeros [rows, at least the sum of the counts].

    `choices` are how many each entry has, and the first of them. Raises ValueError for others.
    """
    counts, firsts = choices
    index = cast(name, values, np.dtype(np.int64)) - firsts
    if (index < 0).any() or (index >= counts).any():
        raise ValueError(
            f"{name}: expected choices from {firsts.tolist()} to below {(firsts + counts).tolist()}, got "
            f"{values.min()} to {values.max()}"
        )
    encoded[np.arange(len(values))[:, None], np.cumsum(counts) - counts + index] = 1.0


def observation_columns(
    columns: dict[str, np.ndarray],
    reward: np.ndarray,
    space: spaces.Dict,
    context_features: bool,
    choices: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, np.ndarray]:
    """The columns of one trajectory, T + 1 rows each, as parts of `space`; `choices` are those of the scan.

    Raises ValueError for numbers that a part does not hold.
    """
    rows = len(reward) + 1
    context = np.zeros((rows, FEATURES), np.float32)
    context[:, 0] = np.arange(rows) / 1000
    context[:, 2] = 1.0
    context[1:, 3] = reward
    vector = context_features and is_vector(space)
    converted = {CONTEXT: context} if context_features and not vector else {}
    for name, values in columns.items():
        part = space[name]
        called = f"observation {name!r}"
        filled = np.zeros((rows, *part.shape), part.dtype)
        flat, size = values.reshape(rows, -1), math.prod(values.shape[1:])
        if name in choices:
            one_hot_blocks(called, flat, choices[name], filled)
        else:
            own = cast(called, flat, part.dtype)
            if part.dtype.kind in "iu":
                low, high = (0, 1) if isinstance(part, spaces.MultiBinary) else (part.low.ravel(), part.high.ravel())
                low, high = (np.broadcast_to(limit, math.prod(part.shape))[:size] for limit in (low, high))
                if (own < low).any() or (own > high).any():
                    raise ValueError(f"{called}: expected {part}, got {own.min()} to {own.max()}")
            filled.reshape(rows, -1)[:, :size] = own
        if vector:
            filled[:, -FEATURES:] = context
        converted[name] = filled
    return converted


def action_column(actions: np.ndarray, space: Space, recorded: Recorded) -> np.ndarray:
    """The actions of one trajectory as a replay stores those of `space`. Raises ValueError for others."""
    rows = len(actions)
    if isinstance(space, spaces.Box):
        low, high = recorded.bounds()
        flat = actions.reshape(rows, -1)
        if flat.shape[1] != space.shape[0] or low.size not in (1, flat.shape[1]):
            raise ValueError(f"action: expected {space.shape[0]} numbers, got {flat.shape[1]}")
        center, half = low / 2 + high / 2, high / 2 - low / 2
        scaled = (flat - center) / np.where(half > 0, half, 1)  # where there is one number, it is 0
        if not (np.abs(scaled) <= np.where(half > 0, 1 + 1e-5, 0)).all():
            raise ValueError(
                f"action: expected numbers from {low} to {high}, got {actions.min()} to {actions.max()}: rescale them"
            )
        return np.clip(scaled, -1, 1).astype(np.float32)
    if isinstance(space, spaces.Discrete):
        if actions.ndim == 2 and actions.shape[1] > 1 and one_hot(actions):
            actions = actions.argmax(1)
        counts, shape, dtype = np.array([space.n]), (rows,), np.int32
    elif isinstance(space, spaces.MultiDiscrete):
        counts, shape, dtype = space.nvec, (rows, len(space.nvec)), np.int32
    else:
        counts, shape, dtype = np.array([2]), (rows, space.n), np.int8
    if actions.dtype.kind not in "iub" or actions.size != math.prod(shape):
        raise ValueError(f"action: expected integers {shape[1:]}, got {actions.dtype} {actions.shape[1:]}")
    chosen = cast("action", actions.reshape(shape), np.dtype(np.int64))
    known = choices_of(recorded.action)
    if known is not None:
        if len(known[0]) != math.prod(shape[1:]):
            raise ValueError(f"action: expected {recorded.action}, got {actions.dtype} {actions.shape[1:]}")
        counts, chosen = np.minimum(counts, known[0]), chosen - (known[1] if shape[1:] else known[1][0])
    check_choices(chosen, counts, space)
    return chosen.astype(dtype)


def check_choices(chosen: np.ndarray, counts: np.ndarray, space: Space) -> None:
    """Raises ValueError where choices are not from 0 to below their counts."""
    if chosen.size and ((chosen < 0).any() or (chosen >= (counts if chosen.ndim > 1 else counts[0])).any()):
        raise ValueError(f"action: expected {space}, got {chosen.min()} to {chosen.max()}")


def columns_space(schema: Schema) -> spaces.Dict | None:
    """The observation space whose columns these are, if there is one."""
    parts = {}
    for name, about in schema.observation.items():
        dtype = np.dtype(about.dtype)
        if dtype == np.float32 and len(about.shape) == 1:
            parts[name] = spaces.Box(-np.inf, np.inf, about.shape, np.float32)
        elif about.dtype in ("uint8", "int16", "int32") and about.shape:
            parts[name] = spaces.Box(np.iinfo(dtype).min, np.iinfo(dtype).max, about.shape, dtype.type)
        else:
            return None
    return spaces.Dict(parts)


def columns_action(replay: Replay) -> Space | None:
    """The action space whose column this is, if there is one; counts are the largest that were taken, and one."""
    about = replay.schema.action
    if about.dtype == "float32" and len(about.shape) == 1:
        return spaces.Box(-1, 1, about.shape, np.float32)
    if about.dtype == "int8" and len(about.shape) == 1:
        return spaces.MultiBinary(about.shape[0])
    if about.dtype != "int32" or len(about.shape) > 1 or not replay.stats().trajectories:
        return None
    largest = np.maximum(replay.actions().max(0), 0).astype(np.int64)
    return spaces.MultiDiscrete(largest + 1) if about.shape else spaces.Discrete(max(2, int(largest) + 1))
