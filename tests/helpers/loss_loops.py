"""One number at a time: the formulas of the value losses as loops, and what their tests share."""

import math
from functools import cache

import pytest
import torch

from two_hot_truth import SUPPORTS, normal
from twohot.losses import (
    ValueBins,
    hl_gauss_cross_entropy,
    two_hot_cross_entropy,
)

NAN, INFINITY = math.nan, math.inf
every_support = pytest.mark.parametrize("bins", SUPPORTS.values(), ids=SUPPORTS.keys())


def compute_dtype(dtype):
    """The dtype of the losses of logits of this dtype."""
    return torch.promote_types(dtype, torch.float32)


def cross_entropy_of(logits, target, bins, sigma, **options):
    """The face that has labels of this sigma; 0 is two-hot."""
    if sigma > 0:
        return hl_gauss_cross_entropy(logits, target, bins, sigma, **options)
    return two_hot_cross_entropy(logits, target, bins, **options)


def forward(y, transform):
    """f(y) of method.md, one number in float64."""
    if math.isinf(y):
        return y
    if transform == "symlog":
        return math.copysign(math.log1p(abs(y)), y)
    if transform == "signed_sqrt":
        return math.copysign(math.sqrt(abs(y) + 1) - 1, y) + 1e-3 * y
    return y


def inverse(x, transform):
    """f^-1(x), one number in float64; the signed square root's by bisection."""
    if transform == "symlog":
        return math.copysign(math.expm1(abs(x)), x)
    if transform == "linear":
        return x
    low, high = -1e7, 1e7
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if forward(middle, transform) < x else (low, middle)
    return high


def centers(bins):
    low, high = forward(bins.low, bins.transform), forward(bins.high, bins.transform)
    return [low + k * (high - low) / (bins.count - 1) for k in range(bins.count)]


def two_hot_of_one(y, bins):
    """The two bins around a target share the mass in proportion to nearness."""
    b = centers(bins)
    x = forward(y, bins.transform)
    if bins.labels == "raw":
        x, b = y, [inverse(c, bins.transform) for c in b]
    x = min(max(x, b[0]), b[-1])
    row = [0.0] * bins.count
    k = next(k for k in range(bins.count - 1) if x <= b[k + 1] or k == bins.count - 2)
    row[k + 1] = (x - b[k]) / (b[k + 1] - b[k])
    row[k] = 1 - row[k + 1]
    return row


def hl_gauss_of_one(y, bins, sigma):
    """The mass of a Gaussian in each bin, of the mass in all of them; each by the tail that loses no digits."""
    b = centers(bins)
    x, width = min(max(forward(y, bins.transform), b[0]), b[-1]), (b[-1] - b[0]) / (bins.count - 1)

    def mass(low, high):
        low, high = (low - x) / (sigma * width * math.sqrt(2)), (high - x) / (sigma * width * math.sqrt(2))
        if low > 0:
            return (math.erfc(low) - math.erfc(high)) / 2
        return (math.erfc(-high) - math.erfc(-low)) / 2

    whole = mass(b[0] - width / 2, b[-1] + width / 2)
    return [mass(c - width / 2, c + width / 2) / whole for c in b]


def label_of_one(y, bins, sigma):
    return hl_gauss_of_one(y, bins, sigma) if sigma > 0 else two_hot_of_one(y, bins)


def labels(targets, bins, sigma=0.0):
    flat = [label_of_one(y, bins, sigma) for y in targets.flatten().tolist()]
    return torch.tensor(flat, dtype=torch.float64).reshape(*targets.shape, bins.count)


def log_softmax(row):
    top = max(row)
    total = math.log(sum(math.exp(x - top) for x in row))
    return [x - top - total for x in row]


def cross_entropies(logits, targets, bins, sigma=0.0):
    """- sum_k label_k log softmax_k of each row; `targets` already has the shape of the rows."""
    rows = [
        -sum(p * q for p, q in zip(label_of_one(y, bins, sigma), log_softmax(row), strict=True))
        for row, y in zip(logits.reshape(-1, bins.count).tolist(), targets.flatten().tolist(), strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64).reshape(targets.shape)


def readout(row, bins):
    probability = [math.exp(x) for x in log_softmax(row)]
    if bins.readout == "raw":
        return sum(p * inverse(b, bins.transform) for p, b in zip(probability, centers(bins), strict=True))
    return inverse(sum(p * b for p, b in zip(probability, centers(bins), strict=True)), bins.transform)


@cache
def targets_of(bins, dtype=torch.float64):
    """Targets on the bins, between them, just inside and beyond the ends, infinite, and zero."""
    b = torch.tensor(centers(bins), dtype=torch.float64)
    inside = b[0] + (b[-1] - b[0]) * torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = [inverse(x, bins.transform) for x in (*b.tolist(), *inside.tolist())]
    ends = [bins.low, bins.high, 2 * bins.low - 1, 2 * bins.high + 1, 1e30, -1e30, INFINITY, -INFINITY]
    return torch.tensor([*values, *ends, 0.0, -0.0, 1e-30], dtype=torch.float64).to(dtype)


def example(dtype=torch.float64):
    bins = ValueBins.amago2(9)
    logits, target = normal(3, 4, 2, 9, seed=8, dtype=dtype), 100 * normal(3, 4, 2, seed=9, dtype=compute_dtype(dtype))
    weight, mask = normal(3, 4, 2, seed=10, dtype=compute_dtype(dtype)).abs(), normal(3, 4, 2, seed=11) < 0.3
    return bins, logits, target, weight, mask
