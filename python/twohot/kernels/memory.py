"""Memory for large results on a CPU: reused by the process, since fresh pages cost more to touch than to fill."""

from __future__ import annotations

import math
import os
import warnings

import torch
from torch import Tensor

from twohot.kernels.backend import native

POOLED_BYTES = 1 << 20
"""The fewest that come from the pool: the allocator of torch reuses less by itself."""

if "TWOHOT_RECYCLED_MB" in os.environ:
    warnings.warn("TWOHOT_RECYCLED_MB is deprecated: set TWOHOT_POOL_MB", DeprecationWarning, stacklevel=2)


def empty_from_pool(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised tensor of this shape, dtype and device of `like`; on a CPU, large ones reuse touched memory.

    Fresh pages cost more to touch than to fill. The memory goes back to a pool of the process when the last tensor that
    uses it is freed (`twohot.losses.release_memory` empties the pool).
    """
    bytes_ = math.prod(shape) * like.element_size()
    if bytes_ < POOLED_BYTES or not like.is_cpu or native is None:
        return like.new_empty(shape)
    return torch.from_numpy(native.empty_from_pool(bytes_)).view(like.dtype).view(shape)
