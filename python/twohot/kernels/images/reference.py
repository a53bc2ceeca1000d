"""Plain PyTorch truth of the passes between the convolutions of images."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def max_pool(x: Tensor) -> Tensor:
    """Maxima of 3 x 3 pixels, every second one in both directions, of x [M, C, H, W]."""
    return functional.max_pool2d(x, 3, stride=2)


def residual_norm(x: Tensor, residual: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """group_norm(x + residual), both [M, C, H, W], with weight and bias [C]."""
    return functional.group_norm(x + residual, groups, weight, bias, epsilon)
