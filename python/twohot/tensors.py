"""Checks of tensors that come from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn


def require_tensor(name: str, other: str, tensor: object) -> Tensor:
    """The argument `other` of the function `name`; TypeError or ValueError unless it is a dense tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor as {other}, got {type(tensor).__name__}")
    if tensor.layout is not torch.strided:
        raise ValueError(f"{name}: expected a dense tensor as {other}, got {tensor.layout}")
    return tensor


def require_floating(name: str, other: str, tensor: object) -> Tensor:
    """The argument `other` of the function `name`; TypeError or ValueError unless it is floating point."""
    checked = require_tensor(name, other, tensor)
    if not checked.is_floating_point():
        raise ValueError(f"{name}: expected a floating point {other}, got {checked.dtype}")
    return checked


def require_device(name: str, other: str, tensor: Tensor, leader: str, leading: Tensor) -> None:
    """Raise ValueError unless the argument `other` is where the argument `leader` is."""
    if tensor.device != leading.device:
        raise ValueError(
            f"{name}: expected {other} on {leading.device}, as {leader} is, got {other} on {tensor.device}; "
            f"move it with .to({str(leading.device)!r})"
        )


def require_alike(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[torch.Size, torch.dtype]]) -> None:
    """Raise ValueError unless the tensors have the names that are expected, each with its shape and dtype."""
    for name in sorted(set(tensors) ^ set(expected)):
        raise ValueError(f"tensor {name!r} is {'one too many' if name in tensors else 'missing'}")
    for name, (shape, dtype) in expected.items():
        found = tensors[name]
        if (found.shape, found.dtype) != (shape, dtype):
            raise ValueError(
                f"tensor {name!r}: expected {list(shape)} of {dtype}, got {list(found.shape)} of {found.dtype}"
            )


class SharedStatistics(nn.Module):
    """Running statistics that several learners may share; a copy of the module is one for this process alone."""

    process_group: distributed.ProcessGroup | None = None
    """Ranks whose rows are all counted, which call `update` together; None for this process alone."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "process_group"}


def sum_over_ranks(x: Tensor, process_group: distributed.ProcessGroup | None) -> Tensor:
    """x after it has become, in place, its sum over the ranks of a group; as it was for None."""
    if process_group is not None:
        distributed.all_reduce(x, group=process_group)
    return x
