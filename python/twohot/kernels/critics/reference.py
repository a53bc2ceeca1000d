"""Plain PyTorch truth of an ensemble of critics: runs in any floating dtype on any device, float64 included."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from twohot.kernels.activation import LEAKY_RELU_SLOPE
from twohot.kernels.critics.types import Critics, Rows
from twohot.kernels.two_hot import reference


def outputs(critics: Critics, rows: Rows) -> Tensor:
    """[C, R, N] of all critics for all rows."""
    x = critics.state[:, rows.step] + critics.table[:, rows.entry]
    if rows.action is not None and critics.action_weight is not None:
        x = x + rows.action @ critics.action_weight
    x = functional.leaky_relu(x, LEAKY_RELU_SLOPE)
    for weight, bias in zip(critics.weights, critics.biases, strict=True):
        x = functional.leaky_relu(x @ weight + bias.unsqueeze(1), LEAKY_RELU_SLOPE)
    return x @ critics.head + critics.head_bias.unsqueeze(1)


def cross_entropy(
    critics: Critics,
    rows: Rows,
    target: Tensor,
    mask: Tensor | None,
    low: float,
    high: float,
    transform: str,
    readout_kind: str,
    labels: str,
    sigma: float,
) -> tuple[Tensor, Tensor]:
    """As `op.cross_entropy`: the mean loss [] over critics and rows that count, and the readout [C, R], 0 elsewhere."""
    logits = outputs(critics, rows)
    counts = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    label = reference.labels_of(target.masked_fill(~counts, 0), low, high, logits.shape[-1], transform, labels, sigma)
    loss = reference.cross_entropy(logits, label).masked_fill(~counts, 0)
    readout = reference.bin_expectation(logits.detach(), low, high, transform, readout_kind)
    return loss.sum() / (counts.sum() * len(logits)).clamp(min=1), readout.masked_fill(~counts, 0)


def squared_error(
    critics: Critics, rows: Rows, target: Tensor, factor: Tensor, offset: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `op.squared_error`: the mean loss [] over critics and rows that count, and the values [C, R], 0 elsewhere."""
    value = factor * outputs(critics, rows).squeeze(-1) + offset
    counts = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    loss = (value - target).square().masked_fill(~counts, 0)
    return loss.sum() / (counts.sum() * len(value)).clamp(min=1), value.detach().masked_fill(~counts, 0)
