"""Running normalisation of vectors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from twohot.rl.popart import masked_moments, update_moments
from twohot.tensors import SharedStatistics, sum_over_ranks


class RunningNormalization(SharedStatistics):
    """(x - mean) / std of everything seen so far, clipped to +-10; the statistics are part of the checkpoint.

    Args:
        size: features, normalised one by one.
    """

    EPSILON, CLIP = 1e-4, 10.0
    """What is added to the variance, and the bound of what comes out."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, x: Tensor, mask: Tensor) -> None:
        """Merge the rows of x [..., size] where mask [...] (bool) is True (Chan et al. 1979)."""
        count: int | Tensor
        if x.is_cpu and self.process_group is None:
            rows = x[mask].to(torch.float64)
            if rows.shape[0] == 0:
                return
            mean, count = rows.mean(0), rows.shape[0]
            variance = (rows - mean).square_().mean(0)  # `var` goes through columns number by number
        else:
            count, mean, variance = masked_moments(x.to(torch.float64), mask, self.process_group)
        total = self.count + count
        weight = count / total.clamp(min=1)
        delta = mean - self.mean
        variance = self.variance * (1 - weight) + variance * weight + delta.square() * weight * (1 - weight)
        self.mean.copy_(self.mean + delta * weight)
        self.variance.copy_(variance)
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] to [..., size]."""
        return ((x - self.mean) * torch.rsqrt(self.variance + self.EPSILON)).clamp(-self.CLIP, self.CLIP)

    def affine(self) -> tuple[Tensor, Tensor, Tensor]:
        """What is subtracted, what divides then, and the bound of results; each [size]."""
        bound = torch.full_like(self.mean, self.CLIP)
        return self.mean, (self.variance + self.EPSILON).sqrt(), bound


class MovingNormalization(SharedStatistics):
    """(x - mean) / std by moving averages, clipped to +-10 000, as in the official AMAGO code.

    A feature whose deviation is at most `CONSTANT` is centred alone. A mean of 0 and a variance of 1 stand at the
    beginning, and weigh as much as one batch.

    Args:
        size: features, normalised one by one. rate: of the averages in the long run.
    """

    EPSILON, CONSTANT, CLIP = 1e-5, 0.01, 1e4
    """What is added to the variance, the deviation up to which a feature counts as constant, the bound of results."""

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, size: int, rate: float = 1e-4) -> None:
        super().__init__()
        self.rate = rate
        # A step of 1e-4 would be lost in float32 once a mean is large.
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("batches", torch.ones((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, x: Tensor, mask: Tensor) -> None:
        """Count the rows of x [..., size] where mask [...] (bool) is True as one batch, if there are any."""
        rows, chosen = x.to(torch.float64), mask
        if x.is_cpu and self.process_group is None:
            rows, chosen = rows[mask], None
            if rows.shape[0] == 0:
                return
        self.batches += 1 if chosen is None else sum_over_ranks(chosen.sum(), self.process_group).clamp(max=1)
        mean, variance = update_moments(
            self.mean, self.variance, self.batches, rows, self.rate, chosen, self.process_group
        )
        self.mean.copy_(mean)
        self.variance.copy_(variance)

    def affine(self) -> tuple[Tensor, Tensor, Tensor]:
        """What is subtracted, what divides then, and the bound of results; each [size]."""
        deviation = (self.variance + self.EPSILON).sqrt()
        constant = deviation <= self.CONSTANT
        bound = torch.full_like(deviation, self.CLIP).masked_fill(constant, torch.inf)
        return self.mean, deviation.masked_fill(constant, 1), bound

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] to [..., size]."""
        mean, deviation, bound = (each.to(x.dtype) for each in self.affine())
        return ((x - mean) / deviation).clamp(-bound, bound)


def make_normalization(
    kind: Literal["all_steps", "moving_average"], size: int
) -> RunningNormalization | MovingNormalization:
    """The normalisation of `size` features that the configuration names."""
    return (MovingNormalization if kind == "moving_average" else RunningNormalization)(size)
