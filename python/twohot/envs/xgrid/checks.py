"""What the native module needs to be told exactly."""

from __future__ import annotations

from operator import index
from typing import Any, Literal

import numpy as np

INT = 2**31 - 1
SEED = 2**64 - 1
Split = Literal["train", "test"]


def integer(name: str, value: Any, low: int = -INT, high: int = INT) -> int:
    """An integer from `low` to `high`.

    Raises:
        TypeError: it is no integer. ValueError: it is outside.
    """
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"expected an integer as {name}, got {value!r}") from None
    if not low <= number <= high:
        raise ValueError(f"expected {name} from {low} to {high}, got {number}")
    return number


def truth(name: str, value: Any) -> bool:
    """A truth value.

    Raises:
        TypeError: it is none, such as the text "no", which would be true.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"expected True or False as {name}, got {value!r}")
    return bool(value)


def split_name(split: Any) -> Split:
    """The name of a split, or a ValueError."""
    if isinstance(split, str) and split == "train":
        return "train"
    if isinstance(split, str) and split == "test":
        return "test"
    raise ValueError(f"expected split 'train' or 'test', got {split!r}")
