"""Reductions over a critic ensemble."""

from __future__ import annotations

from numbers import Integral
from typing import Literal

import torch
from torch import Tensor

from twohot.tensors import require_floating


def subset_value(
    q: Tensor, subset: int, reduction: Literal["mean", "min"], generator: torch.Generator | None = None
) -> Tensor:
    """Draw `subset` of the C critics with replacement, independently for each element, and reduce them.

    The random subset is REDQ's (Chen et al. 2021); AMAGO takes the minimum where the actor's loss depends on the
    scale of the return (clipped double Q), AMAGO-2 the mean.

    Args:
        q: [C, ...] values. subset: critics drawn, at least 1. reduction: "mean" or "min".

    Returns:
        [...].

    Raises:
        ValueError: without a critic, for a subset below 1, and for another reduction or values that are no floats.
    """
    require_floating("subset_value", "q", q)
    if not q.dim() or not len(q):
        raise ValueError(f"subset_value: expected values [C, ...] of at least one critic, got {list(q.shape)}")
    if isinstance(subset, bool) or not isinstance(subset, Integral) or subset < 1:
        raise ValueError(f"subset_value: expected a subset of at least 1 critic, got {subset!r}")
    if reduction not in ("mean", "min"):
        raise ValueError(f"subset_value: expected the reduction 'mean' or 'min', got {reduction!r}")
    drawn = torch.randint(q.shape[0], (subset, *q.shape[1:]), device=q.device, generator=generator)
    chosen = q.gather(0, drawn)
    return chosen.mean(0) if reduction == "mean" else chosen.amin(0)
