"""Observation and action spaces: which an agent takes, names that mean something, and spaces as JSON."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import numpy as np
from gymnasium import Space, spaces

from twohot.errors import TwohotError

__all__ = ["ACTION_MASK", "SpaceError", "as_dict_space"]

OBSERVATION = "observation"
"""Name of an observation that is no Dict, where other tasks or context features make one of it."""
ACTION_MASK = "action_mask"
"""Name of the part of an observation that says which actions are legal."""


class SpaceError(TwohotError, ValueError):
    """A space that an agent cannot see or act in."""


def convention(name: str) -> Literal["grid", "tokens", "action_mask", ""]:
    """What the name of a part of an observation means; of a nested one, "a/b", the last word counts."""
    last = name.rpartition("/")[2]
    if last == ACTION_MASK:
        return "action_mask"
    return "grid" if last.startswith("grid") else "tokens" if last.startswith("tokens") else ""


def shape_of(space: Space) -> tuple[int, ...]:
    """The shape of a space whose elements are arrays. Raises SpaceError for one that has none, such as a Dict."""
    if space.shape is None:
        raise SpaceError(f"expected a space of arrays, got {space}")
    return space.shape


def dtype_of(space: Space) -> np.dtype:
    """The dtype of a space whose elements are arrays. Raises SpaceError for one that has none, such as a Dict."""
    if space.dtype is None:
        raise SpaceError(f"expected a space of arrays, got {space}")
    return space.dtype


def as_dict_space(space: Space) -> spaces.Dict:
    """An observation space as a Dict of Boxes: a single Box becomes the one named "observation".

    Raises:
        SpaceError: for anything but a Box, MultiBinary, or a Dict of those; for an empty one.
    """
    parts = space if isinstance(space, spaces.Dict) else spaces.Dict({OBSERVATION: space})
    for name, part in parts.items():
        if not isinstance(part, spaces.Box | spaces.MultiBinary) or 0 in part.shape:
            raise SpaceError(f"observation {name!r}: expected a Box or a MultiBinary with entries, got {part}")
    if not len(parts):
        raise SpaceError("observation: expected at least one Box, got an empty Dict")
    return parts


def as_dict(observation: Any) -> dict[str, Any]:
    """An observation, of one environment or of many, by name, as `as_dict_space` names it."""
    return observation if isinstance(observation, dict) else {OBSERVATION: observation}


def check_action_space(space: Space) -> None:
    """Raise SpaceError unless `space` is one that an agent can act in; the message says which are."""
    if isinstance(space, spaces.Discrete):
        fits = space.n >= 2 and space.start == 0
    elif isinstance(space, spaces.MultiDiscrete):
        fits = len(space.shape) == 1 and (space.nvec >= 1).all() and (space.start == 0).all()
    elif isinstance(space, spaces.MultiBinary):
        fits = len(space.shape) == 1
    elif isinstance(space, spaces.Box):
        fits = len(space.shape) == 1 and (space.low == -1).all() and (space.high == 1).all()
    else:
        fits = False
    if not fits:
        raise SpaceError(
            "action: expected Discrete with 2 actions or more, MultiDiscrete or MultiBinary with one dimension, "
            f"all from 0 on, or a Box [n] from -1 to 1; got {space}"
        )


def check_action_mask(observation: spaces.Dict, action: Space) -> None:
    """Raise SpaceError where the observation has an "action_mask" that does not fit the action space.

    It has an entry for each action: A of Discrete, those of all parts of MultiDiscrete side by side, and n of
    MultiBinary, where it says which entries may be 1.
    """
    if ACTION_MASK not in observation.spaces:
        return
    found, expected = observation[ACTION_MASK].shape, None
    if isinstance(action, spaces.Discrete):
        expected = (int(action.n),)
    elif isinstance(action, spaces.MultiDiscrete):
        expected = (int(action.nvec.sum()),)
    elif isinstance(action, spaces.MultiBinary):
        expected = action.shape
    if found != expected:
        wanted = "none, for continuous actions" if expected is None else f"one of the shape {expected}"
        raise SpaceError(f"observation {ACTION_MASK!r}: expected {wanted}, got the shape {found}")


def action_dtype(space: Space) -> str:
    """The dtype in which actions of a space are stored: float32, int32, or int8 for MultiBinary."""
    if isinstance(space, spaces.Box):
        return "float32"
    return "int8" if isinstance(space, spaces.MultiBinary) else "int32"


def space_to_json(space: Space) -> dict[str, Any]:
    """Plain values from which `space_from_json` makes a space of the same shapes, counts and starts, without bounds."""
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "parts": {name: space_to_json(part) for name, part in space.items()}}
    if isinstance(space, spaces.Discrete):
        start = {"start": int(space.start)} if space.start != 0 else {}
        return {"kind": "Discrete", "n": int(space.n), **start}
    if isinstance(space, spaces.MultiDiscrete):
        start = {"start": space.start.tolist()} if space.start.any() else {}
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), **start}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Box):
        return {"kind": "Box", "shape": list(space.shape), "dtype": str(space.dtype)}
    raise SpaceError(f"expected Box, Discrete, MultiDiscrete, MultiBinary or a Dict of those, got {space}")


def space_from_json(values: dict[str, Any], *, action: bool = False) -> Space:
    """The space that `space_to_json` described; a Box of actions runs from -1 to 1, one of observations has no bounds.

    Raises:
        KeyError, SpaceError: for values that are none of `space_to_json`.
    """
    kind = values["kind"]
    if kind == "Dict":
        return spaces.Dict({name: space_from_json(part) for name, part in values["parts"].items()})
    if kind == "Discrete":
        return spaces.Discrete(values["n"], start=values.get("start", 0))
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(values["nvec"], start=values.get("start"))
    if kind == "MultiBinary":
        shape = values["shape"]
        return spaces.MultiBinary(shape if len(shape) > 1 else shape[0])
    if kind != "Box":
        raise SpaceError(f"kind: expected Dict, Discrete, MultiDiscrete, MultiBinary or Box, got {kind!r}")
    dtype = np.dtype(values["dtype"])
    if action:
        return spaces.Box(-1, 1, tuple(values["shape"]), dtype.type)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    low, high = (limits.min, limits.max) if limits else (-np.inf, np.inf)
    return spaces.Box(low, high, tuple(values["shape"]), dtype.type)


def __getattr__(name: str) -> Any:
    """`replay_schema`, which stood here in 0.1."""
    if name == "replay_schema":
        return import_module("twohot.data.spaces").replay_schema
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
