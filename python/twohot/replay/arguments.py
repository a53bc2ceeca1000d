"""Checks of what users give, so that native code gets the types and ranges that it expects."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Any

import numpy as np

MOST = 2**63 - 1
MOST_ROWS = 2**31 - 1
"""Of the environments of a writer, the windows of a batch and the steps of a window."""


def integer(name: str, value: Any, least: int | None = None, most: int = MOST) -> int:
    """`value` as an int, of Python or numpy, that is no bool.

    Raises TypeError for any other value and ValueError outside of least .. most (None: -most - 1).
    """
    number = value
    if type(value) is not int:
        try:
            number = None if isinstance(value, bool) else operator.index(value)
        except TypeError:
            number = None
        if number is None:
            raise TypeError(f"{name}: expected an integer, got {value!r:.60}")
    lowest = -most - 1 if least is None else least
    if not lowest <= number <= most:
        expected = f">= {lowest}" if number < lowest else f"<= {most}"
        raise ValueError(f"{name}: expected an integer {expected}, got {number!s:.60}")
    return number


def real(name: str, value: Any) -> float:
    """`value` as a float. Raises TypeError for what is no number."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number) or np.iscomplexobj(value):
        raise TypeError(f"{name}: expected a number, got {value!r:.60}")
    return float(value)


def boolean(name: str, value: Any) -> bool:
    """`value` as a bool, of Python or numpy. Raises TypeError for any other value."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {value!r:.60}")
    return bool(value)


def text(name: str, value: Any) -> str:
    """`value`, a string. Raises TypeError for any other value."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {value!r:.60}")
    return value


def place(path: str | bytes | os.PathLike[Any]) -> Path:
    """An absolute path, so that it is the same one when the working directory changes. Raises TypeError."""
    return Path(os.fsdecode(path)).absolute()
