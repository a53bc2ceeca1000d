"""Numbers from outside as arrays of the dtype that is needed: every one of them, or an error."""

from __future__ import annotations

from typing import Any

import numpy as np


def exact_array(value: Any, dtype: np.dtype, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A contiguous array of a dtype that holds the numbers of `value`; `value` itself where it is that already.

    float32 takes all finite numbers within its range: floats are rounded to it, integers have to be exact in it, False
    and True are 0 and 1. An integer dtype takes integers within its range; int8, of which masks are, also bools.

    Args:
        value: an array, a tensor, a number, or lists of those. shape: that it has to have; None: any.

    Raises:
        ValueError: what was expected and what came, as "expected ..., got ...".
    """
    dtype, array = np.dtype(dtype), read_array(value)
    if isinstance(array, np.ma.MaskedArray) or array.dtype.kind not in "biuf":
        raise ValueError(f"expected real numbers, got {type(value).__name__} of {array.dtype}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"expected the shape {shape}, got {array.shape}")
    if not array.flags.writeable:
        array = array.copy()  # a tensor over it could be written
    if dtype.kind == "f":
        return _floats(array, dtype)
    if array.dtype == dtype:
        return np.asarray(array, order="C")
    if array.dtype.kind == "f" or (array.dtype.kind == "b" and dtype != np.int8):
        raise ValueError(f"expected integers of {dtype}, got {array.dtype}: {_advice(array)}")
    limits = np.iinfo(dtype)
    if array.size and not (limits.min <= int(array.min()) and int(array.max()) <= limits.max):
        raise ValueError(f"expected integers of {dtype}, got {array.min()} to {array.max()}")
    return np.asarray(array, dtype, order="C")


def read_array(value: Any) -> np.ndarray:
    """What numpy reads from an array, a tensor or lists.

    Raises:
        ValueError: it cannot, as from a tensor on another device or lists of several lengths.
    """
    try:
        return value if isinstance(value, np.ndarray) else np.asarray(value)
    except Exception as error:  # each kind of tensor has its own
        raise ValueError(f"expected what numpy can read, got {type(value).__name__} ({error})") from error


def _floats(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        floats = np.asarray(array, dtype, order="C")
    if not np.isfinite(floats).all():
        raise ValueError(f"expected finite numbers within {dtype}, got {array[~np.isfinite(floats)][0]}")
    if array.dtype.kind in "iu" and array.dtype.itemsize > 2:
        changed = floats.astype(np.float64) != array
        large = np.abs(floats) >= 2.0**53  # where numpy compares with integers that are rounded themselves
        changed[large] = [int(now) != int(then) for now, then in zip(floats[large], array[large], strict=True)]
        if changed.any():
            raise ValueError(f"expected numbers that {dtype} holds exactly, got {array[changed][0]}")
    return floats


def _advice(array: np.ndarray) -> str:
    if array.dtype.kind == "f" and array.size and array.min() >= 0 and array.max() <= 1:
        return "an image in [0, 1] is (255 * image).round().astype(np.uint8)"
    return "convert it with care"
