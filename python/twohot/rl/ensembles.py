"""Reductions over a critic ensemble."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


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
    """
    drawn = torch.randint(q.shape[0], (subset, *q.shape[1:]), device=q.device, generator=generator)
    chosen = q.gather(0, drawn)
    return chosen.mean(0) if reduction == "mean" else chosen.amin(0)
