"""What gymnasium's spaces are as columns, and what its environments give as arrays of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from twohot.exact import exact_array, read_array

if TYPE_CHECKING:
    from gymnasium import Space

_MAPPING: type[Any] = Mapping
_NESTED: tuple[type[Any], ...] = (Mapping, tuple)


def leaves(value: Any, lone: str = "observation", name: str = "") -> Iterator[tuple[str, Any]]:
    """What stands in dictionaries and tuples, inside of one another, by names with slashes; all else by `lone`."""
    if isinstance(value, _NESTED):
        for key, part in value.items() if isinstance(value, _MAPPING) else enumerate(value):
            yield from leaves(part, lone, f"{name}/{key}" if name else str(key))
    else:
        yield name or lone, value


def by_name(kind: str, value: Any, lone: str = "observation") -> dict[str, Any]:
    """The `leaves`. Raises ValueError where two have one name."""
    found = list(leaves(value, lone))
    named = dict(found)
    if len(named) < len(found):
        raise ValueError(f"{kind}: expected parts of different names, got {', '.join(name for name, _ in found)}")
    return named


def observation_columns(space: Space[Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each array of an observation by its name. Raises as `column`."""
    parts = by_name("observation", _opened("observation", space))
    return {name: column(f"observation {name!r}", part) for name, part in parts.items()}


def column(name: str, space: Space[Any]) -> tuple[str, tuple[int, ...]]:
    """Dtype and shape of the arrays of a space. Raises TypeError for what is no space, ValueError for one without."""
    kinds: Any = _spaces(name, space)
    if not isinstance(space, (kinds.Box, kinds.Discrete, kinds.MultiDiscrete, kinds.MultiBinary)):
        raise ValueError(
            f"{name}: expected Box, Discrete, MultiDiscrete or MultiBinary (an observation may be a Dict or Tuple of "
            f"them), got {space!s:.60}: make it one by a wrapper, or write the Schema by hand"
        )
    return str(space.dtype), tuple(space.shape or ())


def _opened(name: str, space: Any) -> Any:
    """The spaces that a Dict or Tuple has, as a dictionary or a tuple; any other as it is."""
    kinds: Any = _spaces(name, space)
    if isinstance(space, kinds.Dict):
        return {key: _opened(name, part) for key, part in space.spaces.items()}
    return tuple(_opened(name, part) for part in space.spaces) if isinstance(space, kinds.Tuple) else space


def _spaces(name: str, space: Any) -> Any:
    """The module gymnasium.spaces, which is there where there is a space of it."""
    gymnasium: Any = sys.modules.get("gymnasium")
    if gymnasium is None or not isinstance(space, gymnasium.Space):
        raise TypeError(f"{name}: expected a space of gymnasium, such as env.observation_space; got {space!r:.60}")
    return gymnasium.spaces


def cast_array(name: str, value: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of this dtype and shape that holds the numbers of `value`; `value` itself where it is that already.

    Floats are rounded to other floats; all else has to be exact: integers and bools as numbers, and the integers 0 and
    1 as bools. Where the first extent is 1, it may be missing.

    Args:
        name: what errors call it. value: an array, a tensor on the CPU, a number or a bool, or lists of those.

    Raises:
        ValueError: a number that the dtype cannot hold, or another shape; naming what was expected and what came.
    """
    try:
        array = read_array(value)
        if shape[0] == 1 and array.shape == shape[1:]:
            array = array[np.newaxis]
        if array.shape != shape:
            raise ValueError(f"expected the shape {shape}, got {array.shape}")
        return _converted(array, np.dtype(dtype))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _converted(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if array.dtype == dtype:
        return np.require(array, requirements=["C", "A"])
    if dtype.kind == "b":
        if array.dtype.kind not in "iu" or ((array != 0) & (array != 1)).any():
            raise ValueError(f"expected bools, or integers 0 and 1; got {array.dtype}: {array.ravel()[:4].tolist()}")
        return array.astype(bool, order="C")
    if array.dtype.kind == "f" and dtype.kind == "f":
        with np.errstate(over="ignore"):
            floats = array.astype(dtype, order="C")
        if (np.isinf(floats) & ~np.isinf(array)).any():
            raise ValueError(f"expected numbers within {dtype}, got {array[np.isinf(floats) & ~np.isinf(array)][0]}")
        return floats
    return exact_array(array.astype(np.uint8) if array.dtype.kind == "b" else array, dtype)
