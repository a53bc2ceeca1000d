"""Checks of what users give, so that native code gets the types and ranges that it expects."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

MAX_INTEGER = 2**63 - 1
MAX_COUNT = 2**31 - 1
"""Of the environments of a writer, the windows of a batch and the steps of a window."""

T = TypeVar("T")
_BOOLEANS: tuple[type[Any], ...] = (bool, np.bool_)
_NUMBERS: tuple[type[Any], ...] = (int, float, np.integer, np.floating)


def integer(name: str, value: Any, minimum: int | None = None, maximum: int = MAX_INTEGER) -> int:
    """`value` as an int, of Python or numpy, that is no bool.

    Raises TypeError for any other value and ValueError outside of minimum .. maximum (None: -maximum - 1).
    """
    number = value
    if type(value) is not int:
        try:
            number = None if isinstance(value, bool) else operator.index(value)
        except TypeError:
            number = None
        if number is None:
            raise TypeError(f"{name}: expected an integer, got {value!r:.60}")
    lowest = -maximum - 1 if minimum is None else minimum
    if not lowest <= number <= maximum:
        expected = f">= {lowest}" if number < lowest else f"<= {maximum}"
        raise ValueError(f"{name}: expected an integer {expected}, got {number!s:.60}")
    return number


def real(name: str, value: Any) -> float:
    """`value` as a float. Raises TypeError for what is no number."""
    if isinstance(value, _BOOLEANS) or not isinstance(value, _NUMBERS):
        raise TypeError(f"{name}: expected a number, got {value!r:.60}")
    return float(value)


def boolean(name: str, value: Any) -> bool:
    """`value` as a bool, of Python or numpy. Raises TypeError for any other value."""
    if not isinstance(value, _BOOLEANS):
        raise TypeError(f"{name}: expected True or False, got {value!r:.60}")
    return bool(value)


def text(name: str, value: T) -> T:
    """`value`, a string. Raises TypeError for any other value."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {value!r:.60}")
    return value


def choice(name: str, value: object, choices: tuple[T, ...]) -> T:
    """The one of these strings that `value` is. Raises TypeError for what is no string and ValueError for others."""
    text(name, value)
    for known in choices:
        if known == value:
            return known
    raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}; got {value!r:.60}")


def instance(name: str, value: object, kind: type[T], how: str) -> T:
    """`value`, of this type. Raises TypeError for any other value; `how` says how to come by one."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected a {kind.__name__}, {how}; got {value!r:.60}")
    return value


def absolute_path(path: str | bytes | os.PathLike[Any]) -> Path:
    """An absolute path, so that it is the same one when the working directory changes. Raises TypeError."""
    return Path(os.fsdecode(path)).absolute()
