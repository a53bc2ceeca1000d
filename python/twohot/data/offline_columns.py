"""Columns of recorded trajectories as those of an agent: exact, or refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from gymnasium import Space, spaces

from twohot.envs.parts import is_channels_first
from twohot.envs.wrappers.actions import BoxScale
from twohot.envs.wrappers.padding import CONTEXT
from twohot.envs.wrappers.trial import CONTEXT_FEATURES
from twohot.errors import TwohotError
from twohot.replay import Field, Replay, Schema
from twohot.replay.formats.amago import one_hot
from twohot.spaces import ACTION_MASK, OBSERVATION, convention, dtype_of, shape_of

FEATURES = len(CONTEXT_FEATURES)
MAX_CHOICES = 2**16
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
        return cls({} if observation is None else dict(_leaves(observation)), action)

    def telling(self) -> Recorded:
        """Without spaces that are all that their dtype holds, as `write_minari` has them of what it does not know."""
        parts = {name: part for name, part in self.observation.items() if not _says_nothing(part)}
        return Recorded(parts, None if _says_nothing(self.action) else self.action)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """What the numbers of an action run between; -1 and 1 where it is not known."""
        if isinstance(self.action, spaces.Box) and self.action.is_bounded():
            return self.action.low.ravel().astype(np.float64), self.action.high.ravel().astype(np.float64)
        return np.array(-1.0), np.array(1.0)


def _says_nothing(space: Space | None) -> bool:
    """Whether a space is all that an integer dtype holds."""
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


def named(observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns as an agent names them: the mask, wherever it stands and whatever its parts, is one column of bits.

    Raises ValueError for a mask of anything but 0 and 1, and for two of them.
    """
    columns, masks = {}, {}
    for name, values in observation.items():
        before, mask, _ = f"/{name}/".partition(f"/{ACTION_MASK}/")
        if mask:
            masks.setdefault(before, {})[name] = values
        else:
            columns[name] = values
    if len(masks) > 1:
        raise ValueError(
            f"expected one {ACTION_MASK}, got several: {', '.join(name for own in masks.values() for name in own)}"
        )
    for own in masks.values():
        for name, values in own.items():
            if values.dtype.kind not in "biuf" or not ((values == 0) | (values == 1)).all():
                raise ValueError(
                    f"observation {name!r}: expected 0 or 1 in each entry, got {values.min()} to {values.max()}"
                )
        parts = sorted(own, key=lambda name: (len(name), name))  # those of a Tuple are 0, 1, ... 10
        columns[ACTION_MASK] = np.concatenate([own[name].reshape(len(own[name]), -1) for name in parts], 1).astype(
            np.int8
        )
    return columns


def is_image(name: str, dtype: str | np.dtype, shape: tuple[int, ...]) -> bool:
    """Whether a column of rows of that shape holds images."""
    return dtype == "uint8" and len(shape) in (2, 3) and not convention(name)


def image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[H, W, C] of recorded images [H, W], [H, W, C] or [C, H, W]."""
    return (*shape[1:], shape[0]) if is_channels_first(shape) else (*shape, 1)[:3]


def is_vector(parts: Mapping[str, Space]) -> bool:
    """Whether an observation is one vector, at whose end the features stand."""
    lone = parts[OBSERVATION] if set(parts) == {OBSERVATION} else None
    return lone is not None and len(shape_of(lone)) == 1 and lone.dtype == np.float32


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


def one_vector(
    columns: Mapping[str, np.ndarray], order: Sequence[str], choices: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """The columns named in `order` side by side, float32 [rows, size], as a suite that has one vector shows them.

    Raises ValueError as `observation_columns`.
    """
    vectors = []
    for name in order:
        called, flat = f"observation {name!r}", columns[name].reshape(len(columns[name]), -1)
        if name in choices:
            vectors.append(np.zeros((len(flat), int(choices[name][0].sum())), np.float32))
            one_hot_blocks(called, flat, choices[name], vectors[-1])
        else:
            vectors.append(cast(called, flat, np.dtype(np.float32)))
    return np.concatenate(vectors, 1)


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
    converted: dict[str, np.ndarray] = {CONTEXT: context} if context_features and not vector else {}
    for name, values in columns.items():
        part = space[name]
        called, shape, dtype = f"observation {name!r}", shape_of(part), dtype_of(part)
        if is_image(name, dtype, shape) and is_channels_first(values.shape[1:]):
            values = np.moveaxis(values, 1, -1)  # noqa: PLW2901
        filled = np.zeros((rows, *shape), dtype)
        flat, size = values.reshape(rows, -1), math.prod(values.shape[1:])
        if name in choices:
            one_hot_blocks(called, flat, choices[name], filled)
        else:
            own = cast(called, flat, dtype)
            if dtype.kind in "iu":
                low, high = (part.low.ravel(), part.high.ravel()) if isinstance(part, spaces.Box) else (0, 1)
                low, high = (np.broadcast_to(limit, math.prod(shape))[:size] for limit in (low, high))
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
        if (
            isinstance(recorded.action, spaces.Box)
            and recorded.action.dtype.kind in "biu"
            and low.size == flat.shape[1]
        ):
            return _shares(flat, recorded.action)
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
        counts, shape, dtype = np.array([2]), (rows, *shape_of(space)), np.int8
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


def _shares(actions: np.ndarray, box: spaces.Box) -> np.ndarray:
    """[rows, size] float32, which an environment whose actions are a Box of integers plays as `actions`."""
    scale = BoxScale(box)
    numbers = scale.inverse(actions)
    played = scale(numbers).reshape(actions.shape)
    if not (played == actions).all():
        wrong = actions[played != actions][0]
        raise ValueError(f"action: expected integers of {box}, as far as float32 tells them apart, got {wrong}")
    return numbers


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
        elif name == ACTION_MASK and dtype == np.int8 and len(about.shape) == 1:
            parts[name] = spaces.MultiBinary(about.shape[0])
        elif about.dtype in ("uint8", "int16", "int32") and _is_shown(name, about):
            parts[name] = spaces.Box(np.iinfo(dtype).min, np.iinfo(dtype).max, about.shape, dtype.type)
        else:
            return None
    return spaces.Dict(parts)


def _is_shown(name: str, about: Field) -> bool:
    """Whether an agent sees integers of that name and shape as they are."""
    if convention(name):
        return len(about.shape) == (1 if convention(name) == "tokens" else 3)
    return (
        len(about.shape) == 3 and is_image(name, about.dtype, about.shape) and image_shape(about.shape) == about.shape
    )


def with_choices_of_mask(action: Space, observation: spaces.Dict) -> Space:
    """A Discrete space that was guessed of the actions that were taken, with as many as the mask has entries."""
    if isinstance(action, spaces.Discrete) and ACTION_MASK in observation.spaces:
        return spaces.Discrete(max(int(action.n), *shape_of(observation[ACTION_MASK])))
    return action


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
