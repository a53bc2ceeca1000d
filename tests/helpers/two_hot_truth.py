"""Value classification by its formulas, in the dtype that comes in: float64 for the truth, float32 for plain PyTorch.

Nothing here is taken from the code under test; the transforms and labels are checked by loops in `test_value_bins`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from twohot.losses import ValueBins

SUPPORTS = {
    "amago2": ValueBins.amago2(),
    "tdmpc2": ValueBins.tdmpc2(),
    "dreamerv3": ValueBins.dreamerv3(),
    "muzero": ValueBins.muzero(),
    "c51": ValueBins.c51(),
    "dreamerv3 of 2023": ValueBins.dreamerv3("transformed"),
    "raw labels": ValueBins(-3.0, 50.0, 21, readout="raw", labels="raw"),
    "from edges": ValueBins.from_edges(-3.0, 7.0, 64),
    "retro": ValueBins(-10_000, 60_000, 96),
    "raw and asymmetric": ValueBins(-1.0, 2000.0, 33, "signed_sqrt", "raw"),
    "two bins": ValueBins.amago2(2),
    "three bins": ValueBins(-2.0, 5.0, 3, "linear"),
}


def forward(y: Tensor, transform: str) -> Tensor:
    """f(y)."""
    if transform == "symlog":
        return y.sign() * y.abs().log1p()
    if transform == "signed_sqrt":
        return torch.where(y.isinf(), y, y.sign() * ((y.abs() + 1).sqrt() - 1) + 1e-3 * y)
    return y


def inverse(x: Tensor, transform: str) -> Tensor:
    """f^-1(x)."""
    if transform == "symlog":
        return x.sign() * x.abs().expm1()
    if transform == "signed_sqrt":
        # With s = sqrt(|y| + 1), |x| = s - 1 + 0.001 (s^2 - 1).
        return x.sign() * (((1 + 4e-3 * (x.abs() + 1.001)).sqrt() - 1) / 2e-3).square().sub(1)
    return x


def ends(bins: ValueBins) -> tuple[float, float]:
    """f(low), f(high)."""
    low, high = forward(torch.tensor([bins.low, bins.high], dtype=torch.float64), bins.transform).tolist()
    return low, high


def centers(bins: ValueBins) -> Tensor:
    """[N] bin centers after the transform."""
    low, high = ends(bins)
    return low + torch.arange(bins.count, dtype=torch.float64) * ((high - low) / (bins.count - 1))


def bin_values(bins: ValueBins, dtype: torch.dtype = torch.float64) -> Tensor:
    """[N] what each bin adds to the mean: its value where the readout is raw, else its center."""
    return (inverse(centers(bins), bins.transform) if bins.readout == "raw" else centers(bins)).to(dtype)


def labels(target: Tensor, bins: ValueBins, sigma: float = 0.0) -> Tensor:
    """[..., N]: two-hot where sigma is 0, else HL-Gauss of sigma bin widths; in the dtype of `target`."""
    low, high = ends(bins)
    place = (forward(target, bins.transform).clamp(low, high) - low) / ((high - low) / (bins.count - 1))
    if sigma == 0 and bins.labels == "raw":
        points = inverse(centers(bins), bins.transform).to(target.dtype)
        above = torch.searchsorted(points, target.contiguous()).clamp(1, bins.count - 1)
        place = above - 1 + ((target - points[above - 1]) / (points[above] - points[above - 1])).clamp(0, 1)
    if sigma > 0:
        edges = torch.arange(bins.count + 1, dtype=target.dtype) - 0.5
        cdf = torch.erf((edges - place.unsqueeze(-1)) / (sigma * math.sqrt(2)))
        return cdf.diff() / (cdf[..., -1:] - cdf[..., :1])
    k = place.nan_to_num().floor().clamp(0, bins.count - 2).long().unsqueeze(-1)
    share = place.unsqueeze(-1) - k
    zeros = target.new_zeros(*target.shape, bins.count)
    return zeros.scatter(-1, k, 1 - share).scatter(-1, k + 1, share)


def labelling(bins: ValueBins, sigma: float = 0.0) -> tuple[str, float]:
    """What operations take for these labels."""
    return ("hl_gauss", sigma) if sigma else (bins.two_hot_labels, 0.0)


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """[...] of logits [..., N] and labels; a label of 0 takes no part."""
    return -torch.where(label == 0, 0, label * logits.log_softmax(-1)).sum(-1)


def readout(logits: Tensor, bins: ValueBins) -> Tensor:
    """[...] values that the logits [..., N] stand for."""
    mean = logits.softmax(-1) @ bin_values(bins, logits.dtype)
    return mean if bins.readout == "raw" else inverse(mean, bins.transform)


def label_shift(label: Callable[[Tensor], Tensor], target: Tensor, transform: str, low: float = 0.0) -> Tensor:
    """[..., N] what labels of float64 targets move by, in eps, where f(y) is off by one: |f(y)| dl / df(y).

    Args:
        label: from targets to labels. low: the first center, where f(y) is measured from there: it is off by an eps of
            that, too.
    """
    x, step = forward(target, transform), 1e-6
    step = step * (x.abs() + abs(low)).clamp(min=1e-30)
    above, below = (label(inverse(place, transform)) for place in (x + step, x - step))
    return ((above - below) / 2e-6).nan_to_num()


def cross_entropy_shift(logits: Tensor, shift: Tensor) -> Tensor:
    """[...] what a cross-entropy of float64 logits moves by where the labels move by `shift` [..., N]."""
    return torch.where(shift == 0, 0, shift * logits.log_softmax(-1)).sum(-1).abs()


def readout_sensitivity(
    logits: Tensor, centers: Tensor, transform: str, readout: str, size: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """What a readout of float64 logits [...] and its gradient [..., N] are off by, in eps, to first order.

    Each step is off by an eps: exp(z - max z) by an eps and by that of its argument; the terms of the mean by one, and
    by that of the centers; f^-1 multiplies what its argument is off by by its slope: at 20, symexp makes 20 eps of one.

    Args:
        centers: [N] in transformed space. readout: as `ValueBins.readout`.
        size: [..., N] what the logits are off by in eps, where they are computed themselves.
    """

    def slope(x: Tensor) -> Tensor:
        return (inverse(x + 1e-6, transform) - inverse(x - 1e-6, transform)) / 2e-6

    share = logits.softmax(-1)
    values, of_center = centers, centers.abs()
    if readout == "raw":
        values, of_center = inverse(centers, transform), centers.abs() * slope(centers)
    mean = (share * values).sum(-1, keepdim=True)
    off = torch.where(share == 0, 0, 1 + (logits - logits.amax(-1, keepdim=True)).abs() + size)
    of_mean = mean.abs() + (share * (off * (values.abs() + mean.abs()) + of_center)).sum(-1, keepdim=True)
    apart = (values - mean).abs()
    of_apart = (off + (share * off).sum(-1, keepdim=True)) * apart + of_center + values.abs() + of_mean
    of_gradient = share * of_apart
    if readout != "raw":
        bend = (slope(mean + 1e-3) - slope(mean - 1e-3)).abs() / 2e-3
        of_gradient = slope(mean) * of_gradient + bend * of_mean * share * apart
        of_mean = slope(mean) * of_mean
    return of_mean.squeeze(-1), of_gradient


def targets(bins: ValueBins, count: int, seed: int = 0) -> Tensor:
    """[count] float32: spread over the support, a tenth beyond its ends; the first at the ends, infinite and 0."""
    place = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.1 - 0.05
    low, high = ends(bins)
    y = inverse(low + place * (high - low), bins.transform)
    edge = torch.tensor([bins.low, bins.high, math.inf, -math.inf, 0.0], dtype=torch.float64)
    y[: len(edge)] = edge[:count]
    return y.float()


def gradient(output: Tensor, inputs: Tensor | tuple[Tensor, ...], grad_output: Tensor | None = None):
    """Of sum(grad_output x output)."""
    found = torch.autograd.grad(output, inputs, torch.ones_like(output) if grad_output is None else grad_output)
    return found[0] if isinstance(inputs, Tensor) else found


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers, the same in every dtype up to rounding."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
