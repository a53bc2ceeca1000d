"""One observation space for all tasks of an agent: what a task lacks is zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.errors import UnsupportedSpaceError
from twohot.envs.parts import INTEGERS
from twohot.spaces import ACTION_MASK, OBSERVATION, convention, dtype_of, shape_of

CONTEXT = "context"
"""Name of the context features in a Dict observation."""


def common_observation_space(
    own: Sequence[gym.Space], action_space: gym.Space, size: int = 0
) -> spaces.Box | spaces.Dict:
    """The smallest space that shows every task.

    Args:
        own: each task's observation space: a Box or a Dict of Boxes.
        action_space: what all tasks act in, for the mask of legal actions.
        size: entries of a flat observation; 0 takes the largest.

    Returns:
        A float32 Box (size,) where all tasks have flat observations, else a Dict with every task's parts: one-
        dimensional parts as long as the longest; images, which all tasks must have in one shape. Images and parts
        named "tokens..." keep their integers, all else is float32. Where a task has an "action_mask", it is
        MultiBinary, the parts of a MultiDiscrete action side by side.

    Raises:
        UnsupportedSpaceError: a part that is no Box, or integers that are none of uint8, int16 and int32.
        ValueError: images of two shapes; `size` too small, or given where observations are not flat.
    """
    if all(isinstance(space, spaces.Box) and len(space.shape) == 1 for space in own):
        largest = max(shape_of(space)[0] for space in own)
        if size and size < largest:
            raise ValueError(f"expected at most {size} observation entries, got {largest}: raise observation_size")
        return spaces.Box(-np.inf, np.inf, (size or largest,), np.float32)
    if size:
        raise ValueError(f"expected observation_size 0 where observations are images or Dicts, got {size}")
    parts: dict[str, list[spaces.Box]] = {}
    masked = False
    for space in own:
        for name, part in _parts(space).items():
            if name == ACTION_MASK:
                masked = True
            elif isinstance(part, spaces.Box) and part.shape:
                parts.setdefault(name, []).append(part)
            else:
                raise UnsupportedSpaceError(
                    f"observation {name!r}: expected a Box of at least one dimension, got {part}: SeenObservation"
                )
    common: dict[str, gym.Space] = {name: _common_part(name, boxes) for name, boxes in parts.items()}
    if masked:
        common[ACTION_MASK] = spaces.MultiBinary(len(mask_entries(action_space, action_space)[0]))
    return spaces.Dict(common)


def _parts(space: gym.Space) -> dict[str, gym.Space]:
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {OBSERVATION: space}


def with_context(space: spaces.Dict, features: int) -> spaces.Dict:
    """A Dict of parts with the context features beside them.

    Raises:
        UnsupportedSpaceError: a part has their name.
    """
    if not features:
        return space
    if CONTEXT in space.spaces:
        raise UnsupportedSpaceError(
            f"expected no part of an observation to be named {CONTEXT!r}, which the context features are: rename it, "
            "or set context_features to False"
        )
    return spaces.Dict({**space.spaces, CONTEXT: spaces.Box(-np.inf, np.inf, (features,), np.float32)})


def _common_part(name: str, boxes: list[spaces.Box]) -> spaces.Box:
    shapes = {box.shape for box in boxes}
    if all(len(shape) == 1 for shape in shapes):
        shape = max(shapes)
    elif len(shapes) == 1:
        (shape,) = shapes
    else:
        raise ValueError(f"observation {name!r}: expected images of one shape from all tasks, got {sorted(shapes)}")
    dtype = np.result_type(*(box.dtype for box in boxes))
    if dtype.kind in "iu" and (len(shape) > 1 or convention(name) == "tokens"):
        if dtype not in INTEGERS:
            raise UnsupportedSpaceError(f"observation {name!r}: expected uint8, int16 or int32, got {dtype}")
        low, high = min(int(box.low.min()) for box in boxes), max(int(box.high.max()) for box in boxes)
        return spaces.Box(min(low, 0), high, shape, dtype.type)  # 0 is padding
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def mask_entries(own: gym.Space, common: gym.Space) -> tuple[np.ndarray, np.ndarray]:
    """Where the legal choices of a task stand among those of all.

    Args:
        own, common: a task's action space and the one that it is padded to, both Discrete, both MultiDiscrete or both
            MultiBinary.

    Returns:
        A mask, int8, of all choices with no choice of the task's own but, in parts that the task lacks, the first
        (so that no part is without a choice); and the entries of the task's own choices in it.

    Raises:
        UnsupportedSpaceError: other spaces, whose actions cannot be masked.
    """
    if isinstance(own, spaces.Discrete) and isinstance(common, spaces.Discrete):
        return np.zeros(common.n, np.int8), np.arange(own.n)
    if isinstance(own, spaces.MultiDiscrete) and isinstance(common, spaces.MultiDiscrete):
        counts, firsts = own.nvec.ravel(), np.cumsum(common.nvec) - common.nvec
        mask = np.zeros(int(common.nvec.sum()), np.int8)
        mask[firsts[len(counts) :]] = 1
        entries = [first + np.arange(count) for first, count in zip(firsts, counts, strict=False)]
        return mask, np.concatenate(entries)
    if isinstance(own, spaces.MultiBinary) and isinstance(common, spaces.MultiBinary):
        return np.zeros(int(np.prod(common.shape)), np.int8), np.arange(int(np.prod(own.shape)))
    raise UnsupportedSpaceError(
        f"expected Discrete, MultiDiscrete or MultiBinary actions with an action mask, got {own}"
    )


class PadObservation(gym.ObservationWrapper):
    """Appends zeros to a flat observation until it has `size + spare` entries. Every step returns a new array.

    Args:
        env: observation a one-dimensional Box of at most `size` entries.
        size: entries for the observation.
        spare: further entries, never the observation's, in which a caller may write features.

    Raises:
        UnsupportedSpaceError: the observation is not a one-dimensional Box.
        ValueError: the observation is larger than `size`.
    """

    def __init__(self, env: gym.Env, size: int, spare: int = 0) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise UnsupportedSpaceError(f"expected a one-dimensional Box observation, got {space}: OneHotObservation")
        self._own_size, self._size = space.shape[0], size + spare
        if self._own_size > size:
            raise ValueError(
                f"expected at most {size} observation entries, got {self._own_size} from {env}: raise observation_size"
            )
        padding = (0, self._size - self._own_size)
        self.observation_space = spaces.Box(
            np.pad(space.low.astype(np.float32), padding), np.pad(space.high.astype(np.float32), padding)
        )

    def observation(self, observation: np.ndarray) -> np.ndarray:
        padded = np.zeros(self._size, np.float32)
        padded[: self._own_size] = observation
        return padded


class PadParts(gym.ObservationWrapper):
    """Brings an observation of parts, or an image, to a Dict space that `common_observation_space` gave.

    Every step returns a new dict of new arrays.

    Args:
        env: observation a Box or a Dict of Boxes that fit into `space`.
        space: the parts that all tasks show.
        action_space: what all tasks act in, for the mask.

    Raises:
        ValueError: a part does not fit into that of `space`.
    """

    def __init__(self, env: gym.Env, space: spaces.Dict, action_space: gym.Space) -> None:
        super().__init__(env)
        self.observation_space = space
        own = _parts(env.observation_space)
        self._single = not isinstance(env.observation_space, spaces.Dict)
        self._writers = {
            name: _mask_writer(own.get(name), *mask_entries(env.action_space, action_space))
            if name == ACTION_MASK
            else _writer(name, own.get(name), part)
            for name, part in space.spaces.items()
        }

    def observation(self, observation: Any) -> dict[str, np.ndarray]:
        parts = {OBSERVATION: observation} if self._single else observation
        return {name: write(parts.get(name)) for name, write in self._writers.items()}


def _writer(name: str, own: gym.Space | None, common: gym.Space) -> Callable[[Any], np.ndarray]:
    """From a task's part, or None, to the same part of all tasks."""
    shape, dtype = shape_of(common), dtype_of(common)
    if own is None:
        return lambda value: np.zeros(shape, dtype)
    own_shape = shape_of(own)
    if own_shape == shape:
        return lambda value: np.array(value, dtype)  # the environment may draw the next one into its own
    if len(shape) != 1 or len(own_shape) != 1 or own_shape[0] > shape[0]:
        raise ValueError(f"observation {name!r}: expected what fits into {shape}, got {own_shape}")
    size = own_shape[0]

    def pad(value: Any) -> np.ndarray:
        padded = np.zeros(shape, dtype)
        padded[:size] = value
        return padded

    return pad


def _mask_writer(own: gym.Space | None, template: np.ndarray, entries: np.ndarray) -> Callable[[Any], np.ndarray]:
    """From a task's mask, or None where it has none and every own action is legal, to the mask of all actions."""

    def write(value: Any) -> np.ndarray:
        mask = template.copy()
        mask[entries] = 1 if own is None else value
        return mask

    return write
