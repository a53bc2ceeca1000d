"""What the tests of the last layer fused with its loss share."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import two_hot_truth as truth
from two_hot_truth import normal
from twohot.losses import (
    ValueBins,
    linear_hl_gauss_cross_entropy,
    linear_two_hot_cross_entropy,
)

NAN, INFINITY = math.nan, math.inf
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
BINS, BINS_64 = ValueBins.amago2(16), ValueBins.amago2(64)
NAMES = ("hidden", "weight", "bias")


def layer_example(
    heads: int | None,
    rows: tuple[int, ...],
    width: int,
    bins: int,
    dtype: torch.dtype = torch.float32,
    bias: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """hidden, weight, bias of a layer whose logits are of order 3."""
    of_heads = () if heads is None else (heads,)
    hidden = normal(*of_heads, *rows, width, seed=1, dtype=dtype)
    weight = (normal(*of_heads, bins, width, seed=2) * (3 / width**0.5)).to(dtype)
    return hidden, weight, normal(*of_heads, bins, seed=3, dtype=dtype) if bias else None


def in_eps_of_float32(dtype: torch.dtype, count: float) -> float:
    """`count` eps of the dtype that logits are rounded to, in eps of the float32 in which losses are."""
    return count * torch.finfo(dtype).eps / torch.finfo(torch.float32).eps


def layer(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits, one head after the other."""
    if weight.dim() == 2:
        return nn.functional.linear(hidden, weight, bias)
    biases = [None] * len(weight) if bias is None else bias
    return torch.stack([nn.functional.linear(*head) for head in zip(hidden, weight, biases, strict=True)])


def leaves(tensors: tuple[Tensor | None, ...], dtype: torch.dtype | None = None) -> list[Tensor | None]:
    return [None if x is None else x.detach().to(dtype or x.dtype).clone().requires_grad_() for x in tensors]


def gradients(loss: Tensor, tensors: list[Tensor | None], upstream: Tensor | None = None) -> dict[str, Tensor]:
    present = {name: x for name, x in zip(NAMES, tensors, strict=True) if x is not None}
    return dict(zip(present, truth.gradient(loss, tuple(present.values()), upstream), strict=True))


def linear_cross_entropy(hidden, weight, bias, target, bins, sigma=0.0, **options):
    """The face that has labels of this sigma; 0 is two-hot."""
    if sigma > 0:
        return linear_hl_gauss_cross_entropy(hidden, weight, bias, target, bins, sigma, **options)
    return linear_two_hot_cross_entropy(hidden, weight, bias, target, bins, **options)


def by_formulas(inputs, target, bins, sigma, row_weight, mask, reduction) -> tuple[Tensor, Tensor]:
    """Loss and readout of a layer in the dtype of its inputs, float32 at least behind the logits."""
    logits = layer(*inputs)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    rows = truth.cross_entropy(logits, truth.labels(target.to(logits.dtype), bins, sigma))
    factor = torch.ones((), dtype=logits.dtype) if row_weight is None else row_weight.to(logits.dtype)
    counts = torch.ones((), dtype=torch.bool) if mask is None else mask
    rows = torch.where(counts, rows * factor, 0)
    value = torch.where(counts, truth.readout(logits, bins), 0).detach()
    if reduction == "none":
        return rows, value
    count = max(int(counts.expand(rows.shape).sum()), 1) if reduction == "mean" else 1
    return rows.sum() / count, value
