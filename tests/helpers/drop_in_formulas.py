"""The formulas of the host codes of docs/drop_in in plain PyTorch, of float32 or float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    return x.sign() * (x.abs().exp() - 1)


def labels_between(x: Tensor, points: Tensor) -> Tensor:
    """[..., N] two-hot labels of x [...] among ascending points [N]; beyond the ends is the end."""
    right = torch.searchsorted(points, x.contiguous()).clamp(1, len(points) - 1)
    share = ((x - points[right - 1]) / (points[right] - points[right - 1])).clamp(0, 1)
    labels = torch.zeros(*x.shape, len(points), dtype=x.dtype)
    labels.scatter_(-1, (right - 1).unsqueeze(-1), (1 - share).unsqueeze(-1))
    return labels.scatter_(-1, right.unsqueeze(-1), share.unsqueeze(-1))


def gaussian_labels(x: Tensor, points: Tensor, sigma: float) -> Tensor:
    """[..., N] HL-Gauss labels of x [...] among evenly spaced points [N], sigma in their distance."""
    width = points[1] - points[0]
    edges = torch.cat((points - width / 2, points[-1:] + width / 2))
    below = 0.5 * (1 + torch.erf((edges - x.unsqueeze(-1)) / (sigma * width * math.sqrt(2))))
    mass = below.diff(dim=-1)
    return mass / mass.sum(-1, keepdim=True).clamp(min=1e-8)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return -(labels * logits.log_softmax(-1)).sum(-1)
