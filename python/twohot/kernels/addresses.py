"""Addresses of tensors for native code, which cannot see what they belong to."""

from __future__ import annotations

import torch
from torch import Tensor


def address(x: Tensor, what: str, dtype: torch.dtype, *shape: int, strided: bool = False) -> int:
    """Where the numbers of `x` are: a contiguous tensor of this dtype and shape in the memory of the CPU.

    Args:
        x: what native code is to read or write. what: its name, for the error.
        strided: whether native code knows the strides, so that any are right.

    Raises:
        TypeError: for what is no tensor. ValueError: for any other tensor.
    """
    try:
        fits = x.dtype is dtype and x.is_cpu and x.shape == shape and (strided or x.is_contiguous()) and not x.is_neg()
    except AttributeError:
        fits = False
    if not fits:
        refuse(x, what, f"a {'' if strided else 'contiguous '}tensor {list(shape)} of {dtype} on the CPU")
    at = x.data_ptr()
    # Native code would take 0 for nothing: so are tensors of a trace, of zeros alone, and whose memory was given back.
    if not at and x.numel():
        raise ValueError(f"{what}: expected a tensor with data, got {list(shape)} of {dtype} without memory")
    return at


def optional_address(x: Tensor | None, *expected, **options) -> int:
    """As `address`; 0, which native code takes for nothing, for None."""
    return 0 if x is None else address(x, *expected, **options)


def refuse(x: object, what: str, expected: str) -> None:
    """Raise the error that says what was expected of `x`, whose name is `what`, and what came."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{what}: expected {expected}, got {type(x).__name__}")
    if x.is_neg():
        raise ValueError(
            f"{what}: expected numbers as memory has them, got a view that negates them; x.resolve_neg() copies"
        )
    kind = "" if x.layout != torch.strided or x.is_contiguous() else "non-contiguous "
    kind = f"{x.layout} " if x.layout != torch.strided else kind
    raise ValueError(f"{what}: expected {expected}, got a {kind}tensor {list(x.shape)} of {x.dtype} on {x.device}")


def require_one_device(*arguments: object) -> None:
    """Raise ValueError where tensors among these live on several devices.

    For operations without data: torch asks them where any tensor has none, and would take what they give as a result.
    """
    devices = {x.device for x in arguments if isinstance(x, Tensor)}
    if len(devices) > 1:
        raise ValueError(f"expected tensors on one device, got them on {', '.join(sorted(map(str, devices)))}")
