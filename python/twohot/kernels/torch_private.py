"""Every private interface of torch and Python that the operations use.

tests/kernels/test_torch_private.py holds each to what is said here: a version that moves one fails there by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

environment_key: Callable[[str], Any] = os.environ.encodekey
"""The key of a variable in `environment`."""
environment: dict[Any, Any] = os.environ._data  # pyright: ignore[reportAttributeAccessIssue]  # typeshed leaves it out
"""The variables of `os.environ`, which itself raises and catches two errors where one is missing, at the price of a
small loss."""

functorch_transforms_active: Callable[[], bool] = torch._C._are_functorch_transforms_active
"""Whether a transform of torch.func (grad, vmap, ...) runs the caller."""
dispatch_mode_count: Callable[[], int] = torch._C._len_torch_dispatch_stack
"""How many modes of `TorchDispatchMode` are on."""
graph_is_kept: Callable[[], bool] = torch._C._autograd._get_current_graph_task_keep_graph  # pyright: ignore[reportAttributeAccessIssue]  # so do torch's stubs
"""Within a backward pass: whether its graph is kept for another one (retain_graph=True)."""

foreach_lerp_: Callable[[list[torch.Tensor], list[torch.Tensor], float], None] = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]  # the stubs of torch name no operation with an underscore
"""Move each tensor towards another: x += weight (y - x)."""
foreach_norm: Callable[[list[torch.Tensor]], tuple[torch.Tensor, ...]] = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage]  # the same
"""The norm of each tensor."""
standard_gamma: Callable[..., torch.Tensor] = torch._standard_gamma  # pyright: ignore[reportPrivateImportUsage]  # the same
"""Numbers of Gamma distributions (shape, generator=None), with their implicit gradients (arXiv 1805.08498)."""


def operation_body(operation: Any) -> Callable[..., Any]:
    """The function that `torch.library.custom_op` registered as `operation`, to call past the dispatcher."""
    return operation._init_fn


def write_count(x: torch.Tensor) -> int:
    """How often `x` was written to in place. A tensor of inference mode has no such count."""
    return x._version
