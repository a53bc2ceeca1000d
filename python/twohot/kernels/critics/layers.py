"""The layers between the matrix products of `op.py`, in plain PyTorch.

A piece holds `P` rows of `E` features of one critic. Row r reads step `step[r]` and entry `entry[r]` of a table.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SLOPE = 0.01
"""Of leaky ReLU below 0."""
LINEAR = 1.0
"""The slope of a layer without leaky ReLU."""


def first(out: Tensor, state: Tensor, table: Tensor, step: Tensor, entry: Tensor, add: bool) -> None:
    """out[r] = leaky_relu(state[step[r]] + table[entry[r]] (+ out[r])).

    Args:
        out: [P, E]. state: [M, E]. table: [T, E]. step, entry: [P] int64.
        add: whether `out` holds a part of the sum already.
    """
    x = state[step] + table[entry]
    out.copy_(functional.leaky_relu(x + out if add else x, SLOPE))


def hidden(x: Tensor, bias: Tensor, slope: float = SLOPE) -> None:
    """x[r] = leaky_relu(x[r] + bias) for x [P, E], bias [E]."""
    x.add_(bias)
    if slope != LINEAR:
        functional.leaky_relu(x, slope, inplace=True)


def hidden_backward(gradient: Tensor, output: Tensor, of_bias: Tensor, slope: float = SLOPE) -> None:
    """The derivative of leaky_relu(x + bias) by its output: `gradient` [P, E] in place, of_bias [E] += its sum."""
    if slope != LINEAR:
        gradient.copy_(torch.where(output > 0, gradient, slope * gradient))
    of_bias += gradient.sum(0, dtype=of_bias.dtype)


def first_backward(
    gradient: Tensor, output: Tensor, step: Tensor, entry: Tensor, of_state: Tensor, of_table: Tensor
) -> None:
    """The derivative of `first`: of `gradient` [P, E] in place; of_state[step[r]] and of_table[entry[r]] += it.

    Args:
        of_state: [M, E] and of_table: [T, E].
    """
    gradient.copy_(torch.where(output > 0, gradient, SLOPE * gradient))
    wide = gradient.to(of_state.dtype)
    of_state.index_add_(0, step, wide)
    of_table.index_add_(0, entry, wide)
