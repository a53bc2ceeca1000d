"""What the tests of the last layer fused with its loss share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import two_hot_truth as truth
from compare import summation
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


def gradients(loss: Tensor, tensors: list[Tensor | None], grad_output: Tensor | None = None) -> dict[str, Tensor]:
    present = {name: x for name, x in zip(NAMES, tensors, strict=True) if x is not None}
    return dict(zip(present, truth.gradient(loss, tuple(present.values()), grad_output), strict=True))


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


@dataclass(frozen=True)
class Sensitivities:
    """As `compare` takes them: of float32 losses [...] and values [...] of rows, of gradients in their own dtype."""

    loss: Tensor
    value: Tensor
    of_loss: dict[str, Tensor]
    """Of the gradients of the sum of losses."""
    of_value: dict[str, Tensor]
    """Of the gradients of the sum of values."""


def sensitivities(inputs, target, bins, sigma=0.0, row_weight=None, mask=None) -> Sensitivities:
    """Of the last layer fused with its loss.

    Logits are sums of E terms and a bias, rounded to the dtype of the inputs, as gradients are; what they are off by
    moves probabilities, and these move gradients, which are sums themselves: of N terms for the hidden states, of R for
    the layer.

    Args:
        row_weight: of rows; its sign does not matter, and for values it is that of grad_output.
    """
    hidden, weight, bias = (None if x is None else x.detach().double() for x in inputs)
    rounding = max(in_eps_of_float32(inputs[0].dtype, 1), 1) if inputs[0].dtype.itemsize == 2 else 1
    logits, target = layer(hidden, weight, bias), target.double()
    off = summation(hidden.shape[-1]) * layer(*(None if x is None else x.abs() for x in (hidden, weight, bias)))
    off = off + rounding * logits.abs()
    share, label = logits.softmax(-1), truth.labels(target, bins, sigma)
    low, _ = truth.ends(bins)
    shift = truth.label_shift(lambda y: truth.labels(y, bins, sigma), target, bins.transform, low)
    factor = torch.ones(logits.shape[:-1], dtype=torch.float64)
    factor = factor if row_weight is None else factor * row_weight.detach().abs()
    factor = factor if mask is None else factor * mask
    wrong = (share - label).abs()
    loss = factor * ((wrong * off).sum(-1) + truth.cross_entropy_shift(logits, shift))
    moved = share * (1 + off + (share * off).sum(-1, keepdim=True)) + shift.abs()
    value, of_value = truth.readout_sensitivity(logits, truth.centers(bins), bins.transform, bins.readout, off)
    z = logits.clone().requires_grad_()
    slope = truth.gradient(truth.readout(z, bins), z).abs()

    def of_gradients(gradient: Tensor, off: Tensor) -> dict[str, Tensor]:
        """From those of the logits [..., N], and what they are off by."""
        heads = weight.shape[:-2]
        gradient, off = (
            (factor.unsqueeze(-1) * x).reshape(*heads, -1, bins.count) for x in (gradient, off + rounding * gradient)
        )
        flat = hidden.abs().reshape(*heads, -1, hidden.shape[-1])
        of_layer = off + summation(flat.shape[-2]) * gradient
        found = {
            "hidden": ((off + summation(bins.count) * gradient) @ weight.abs()).reshape(hidden.shape),
            "weight": of_layer.mT @ flat,
            "bias": of_layer.sum(-2),
        }
        return {name: x / rounding for name, x in found.items() if name != "bias" or bias is not None}

    return Sensitivities(loss, value, of_gradients(wrong, moved), of_gradients(slope, of_value))
