"""The layers between the matrix products of `op.py`, each one pass over a piece of rows.

Native on a CPU, and plain PyTorch elsewhere.
A piece holds `P` rows of `E` features of one critic. Row r reads step `step[r]` and entry `entry[r]` of a table.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from twohot.kernels.backend import FUSED_DTYPES, native

SLOPE = 0.01
"""Of leaky ReLU below 0."""
LINEAR = 1.0
"""The slope of a layer without leaky ReLU."""
_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def _runs_natively(x: Tensor) -> bool:
    return native is not None and x.is_cpu and x.dtype in FUSED_DTYPES


def first(out: Tensor, state: Tensor, table: Tensor, step: Tensor, entry: Tensor, add: bool) -> None:
    """out[r] = leaky_relu(state[step[r]] + table[entry[r]] (+ out[r])).

    Args:
        out: [P, E] contiguous. state: [M, E] of any strides between rows. table: [T, E] float32 (float64 for float64).
        step, entry: [P] int64. add: whether `out` holds a part of the sum already.
    """
    if _runs_natively(out) and state.dtype in FUSED_DTYPES:
        native.first_layer(
            out.data_ptr(),
            _NAMES[out.dtype],
            *out.shape,
            state=state.data_ptr(),
            state_dtype=_NAMES[state.dtype],
            state_stride=state.stride(0),
            table=table.data_ptr(),
            step=step.data_ptr(),
            entry=entry.data_ptr(),
            slope=SLOPE,
            add=add,
            threads=torch.get_num_threads(),
        )
        return
    x = state[step] + table[entry]
    out.copy_(functional.leaky_relu(x + out if add else x, SLOPE))


def hidden(x: Tensor, bias: Tensor, slope: float = SLOPE) -> None:
    """x[r] = leaky_relu(x[r] + bias) for x [P, E] contiguous, bias [E] float32 (float64 for float64)."""
    if _runs_natively(x):
        native.hidden_layer(
            x.data_ptr(), _NAMES[x.dtype], *x.shape, bias=bias.data_ptr(), slope=slope, threads=torch.get_num_threads()
        )
        return
    x.add_(bias)
    if slope != LINEAR:
        functional.leaky_relu(x, slope, inplace=True)


def hidden_backward(gradient: Tensor, output: Tensor, of_bias: Tensor, slope: float = SLOPE) -> None:
    """The derivative of leaky_relu(x + bias) by its output: `gradient` [P, E] in place, of_bias [E] += its sum."""
    if _runs_natively(gradient):
        native.hidden_layer_backward(
            gradient.data_ptr(),
            _NAMES[gradient.dtype],
            *gradient.shape,
            output=output.data_ptr(),
            of_bias=of_bias.data_ptr(),
            slope=slope,
            threads=torch.get_num_threads(),
        )
        return
    if slope != LINEAR:
        gradient.copy_(torch.where(output > 0, gradient, slope * gradient))
    of_bias += gradient.sum(0, dtype=of_bias.dtype)


def first_backward(
    gradient: Tensor, output: Tensor, step: Tensor, entry: Tensor, of_state: Tensor, of_table: Tensor
) -> None:
    """The derivative of `first`: of `gradient` [P, E] in place; of_state[step[r]] and of_table[entry[r]] += it.

    Args:
        of_state: [M, E], rows of any stride, and of_table: [T, E] contiguous; float32 (float64 for float64).
    """
    if _runs_natively(gradient):
        native.first_layer_backward(
            gradient.data_ptr(),
            _NAMES[gradient.dtype],
            *gradient.shape,
            output=output.data_ptr(),
            step=step.data_ptr(),
            entry=entry.data_ptr(),
            of_state=of_state.data_ptr(),
            of_state_stride=of_state.stride(0),
            of_table=of_table.data_ptr(),
            slope=SLOPE,
            threads=torch.get_num_threads(),
        )
        return
    gradient.copy_(torch.where(output > 0, gradient, SLOPE * gradient))
    wide = gradient.to(of_state.dtype)
    of_state.index_add_(0, step, wide)
    of_table.index_add_(0, entry, wide)
