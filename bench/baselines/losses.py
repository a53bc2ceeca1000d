"""What others compute: (loss, readout) of logits and targets, to be differentiated by autograd.

Packages on PyPI are imported; what has no package is written here in our own lines, with the same tensors and about
the same passes over them as the original.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.nn import functional

from bench.baselines.packages import without_procgen

Pair = tuple[Tensor, Tensor]


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|), in the operations that most code uses."""
    return x.sign() * (1 + x.abs()).log()


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp(|x|) - 1)."""
    return x.sign() * (x.abs().exp() - 1)


def neighbours(x: Tensor, centers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The bins around x [...] and the share of the right one, by comparing x with every bin, once for each side."""
    last = len(centers) - 1
    left = ((x.unsqueeze(-1) >= centers).sum(-1) - 1).clamp(0, last)
    right = (last + 1 - (x.unsqueeze(-1) < centers).sum(-1)).clamp(0, last)
    gaps = [torch.where(left == right, 1.0, (x - centers[side]).abs()) for side in (left, right)]
    return left, right, gaps[0] / (gaps[0] + gaps[1])


def one_hot_labels(x: Tensor, centers: Tensor) -> Tensor:
    """[..., N] labels of x as a sum of two one-hot tensors of integers."""
    left, right, share = neighbours(x, centers)
    parts = ((left, 1 - share), (right, share))
    return sum(functional.one_hot(side, len(centers)) * weight.unsqueeze(-1) for side, weight in parts)


def amago(logits: Tensor, target: Tensor, centers: Tensor) -> Pair:
    """The critic loss of the official AMAGO-2 code and its readout.

    A categorical distribution normalises the logits and gives the probabilities; labels are made once for a target and
    repeated over the critics; the cross-entropy takes them as probabilities.

    Args:
        logits: [B, L, C, G, N]. target: [B, L, 1, G]. centers: [N] in symlog space.
    """
    distribution = Categorical(logits=logits, validate_args=False)
    with torch.no_grad():
        labels = one_hot_labels(symlog(target), centers)
        labels = labels.repeat(1, 1, logits.shape[2], 1, 1).flatten(0, -2)
    loss = functional.cross_entropy(distribution.logits.flatten(0, -2), labels, reduction="none").mean()
    return loss, symexp((distribution.probs * centers).sum(-1))


class DreamerDistribution:
    """A two-hot distribution in the manner of DreamerV3's ports to PyTorch (arXiv 2301.04104).

    Built from logits [..., N], asked for a log-probability and a mean; each row has a target of its own.
    """

    def __init__(self, logits: Tensor, centers: Tensor) -> None:
        self.logits, self.centers = logits, centers
        self.probabilities = logits.softmax(-1)

    def log_prob(self, target: Tensor) -> Tensor:
        labels = one_hot_labels(symlog(target), self.centers)
        return (labels * (self.logits - self.logits.logsumexp(-1, keepdim=True))).sum(-1)

    def mean(self) -> Tensor:
        return symexp((self.probabilities * self.centers).sum(-1))


def dreamer(logits: Tensor, target: Tensor, centers: Tensor) -> Pair:
    """Loss and readout of a `DreamerDistribution`. logits: [R, N]. target: [R]. centers: [N] in symlog space."""
    distribution = DreamerDistribution(logits, centers)
    return -distribution.log_prob(target).mean(), distribution.mean()


def dense_labels(target: Tensor, centers: Tensor) -> Tensor:
    """[..., N] relu(1 - |f - k|), f the place of symlog(target) among evenly spaced centers: without an index."""
    low, high, last = centers[0], centers[-1], len(centers) - 1
    place = (target.sign() * target.abs().log1p()).clamp(low, high).sub(low) * (last / (high - low))
    return torch.relu(1 - (place.unsqueeze(-1) - torch.arange(last + 1, dtype=place.dtype, device=place.device)).abs())


def plain(logits: Tensor, target: Tensor, centers: Tensor) -> Pair:
    """The shortest way that PyTorch has, with the readout from the same log-sum of exponentials.

    Args:
        logits: [C, T, N]. target: [T]. centers: [N], evenly spaced in symlog space.
    """
    total = logits.logsumexp(-1)
    loss = (total - (dense_labels(target, centers) * logits).sum(-1)).mean()
    probabilities = (logits.detach() - total.detach().unsqueeze(-1)).exp()
    return loss, symexp((probabilities * centers).sum(-1))


def plain_with_gradient(logits: Tensor, target: Tensor, centers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `plain`, with (softmax - label) / R written out: a compiler sees loss, readout and gradient at once."""
    labels = dense_labels(target, centers)
    maximum = logits.amax(-1, keepdim=True)
    exponentials = (logits - maximum).exp()
    total = exponentials.sum(-1, keepdim=True)
    loss = ((maximum + total.log()).squeeze(-1) - (labels * logits).sum(-1)).mean()
    readout = symexp((exponentials * centers).sum(-1) / total.squeeze(-1))
    return loss, readout, (exponentials * (1 / total) - labels) * (1 / total.numel())


def torchrl(logits: Tensor, target: Tensor, bins: Tensor) -> Pair:
    """torchrl's loss and readout; it interpolates between the values of bins, our meaning where bins are linear.

    Args:
        logits: [R, N]. target: [R]. bins: [N] in units of the return.
    """
    with without_procgen():
        from torchrl.objectives import two_hot_cross_entropy, two_hot_decode

    loss = two_hot_cross_entropy(logits, target, bins).mean()
    with torch.no_grad():
        return loss, two_hot_decode(logits, bins)


def hl_gauss_pytorch(low: float, high: float, count: int, sigma: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean loss of hl-gauss-pytorch over symlog bins with the outer edges `low` and `high`; sigma in bin widths.

    It takes logits [R, N] and a target for each row. Its labels are ours for targets half a bin inside the edges.
    """
    from hl_gauss_pytorch import HLGaussLoss

    return HLGaussLoss(
        low, high, count, sigma_to_bin_ratio=sigma, use_symlog=True, clamp_to_range=True, warn_out_of_range=False
    )
