"""Running normalisation of vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningNormalization(nn.Module):
    """(x - mean) / std of everything seen so far, clipped to +-10; the statistics are part of the checkpoint.

    Args:
        size: features, normalised one by one.
    """

    LEAST_VARIANCE, MOST = 1e-4, 10.0
    """What is added to the variance, and the bound of what comes out."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, x: Tensor, mask: Tensor) -> None:
        """Merge the rows of x [..., size] where mask [...] (bool) is True (Chan et al. 1979)."""
        rows = x[mask].to(torch.float64)
        if rows.shape[0] == 0:
            return
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        total = self.count + rows.shape[0]
        share = rows.shape[0] / total
        delta = mean - self.mean
        if self.count > 0:
            variance = self.variance * (1 - share) + variance * share + delta.square() * share * (1 - share)
        self.mean.copy_(self.mean + delta * share)
        self.variance.copy_(variance)
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] to [..., size]."""
        return ((x - self.mean) * torch.rsqrt(self.variance + self.LEAST_VARIANCE)).clamp(-self.MOST, self.MOST)
