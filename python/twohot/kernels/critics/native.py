"""The operations of `op.py` by native code, where whole tiles of rows pass all layers inside of one thread."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from twohot.kernels.activation import LEAKY_RELU_SLOPE
from twohot.kernels.addresses import address, optional_address, refuse
from twohot.kernels.backend import choose_two_hot, native
from twohot.kernels.critics.types import Critics, Rows
from twohot.kernels.dtypes import PRODUCT_DTYPE_NAMES
from twohot.kernels.threads import native_threads
from twohot.kernels.two_hot.op import native_support
from twohot.kernels.two_hot.reference import Support


def runs(critics: Critics) -> bool:
    """Whether native code takes these critics."""
    head = critics.head
    if not head.is_cpu or head.dtype not in PRODUCT_DTYPE_NAMES or critics.state.dtype != head.dtype:
        return False
    if head.shape[2] == 1:
        return native is not None and os.environ.get("TWOHOT_BACKEND", "auto") in ("auto", "native")
    return choose_two_hot(head.device, head.dtype, head.shape[2]).name == "native"


def fill_cross_entropy(
    critics: Critics,
    rows: Rows,
    target: Tensor,
    mask: Tensor | None,
    scale: float | Tensor,
    support: Support,
    labels: str,
    sigma: float,
    *,
    loss: Tensor,
    readout: Tensor,
    gradients: Critics,
) -> None:
    """Fill loss and readout [C, R], and the gradients of all but the state, to whose what reaches a step is added.

    Raises TypeError or ValueError for tensors that are not what is said here, and ValueError for indices of no step or
    entry.

    Args:
        target: [R] float32. mask: [R] bool. scale: of the gradients.
        support, labels, sigma: as in `op.critics_cross_entropy`.
        gradients: float32 of the shapes of `critics`, contiguous but for the state's, which has contiguous rows.
    """
    critics, rows, count = _contiguous(critics), _contiguous(rows), len(rows.step)
    target, mask = target.contiguous(), None if mask is None else mask.contiguous()
    native.critics_cross_entropy(
        _ensemble(critics),
        count,
        **_rows(critics, rows),
        support=native_support(*support),
        target=address(target, "target", torch.float32, count),
        mask=optional_address(mask, "mask", torch.bool, count),
        labels=labels,
        sigma=sigma,
        scale=float(scale),
        loss=address(loss, "loss", torch.float32, len(critics.state), count),
        readout=address(readout, "readout", torch.float32, len(critics.state), count),
        gradients=_gradients(critics, gradients),
        threads=native_threads(),
    )


def fill_squared_error(
    critics: Critics,
    rows: Rows,
    wanted: tuple[Tensor, Tensor, Tensor],
    mask: Tensor | None,
    scale: float | Tensor,
    *,
    loss: Tensor,
    value: Tensor,
    gradients: Critics,
) -> None:
    """As `fill_cross_entropy`, of the squared error of values; `wanted`: target, factor and offset [R] float32."""
    critics, rows, count = _contiguous(critics), _contiguous(rows), len(rows.step)
    target, factor, offset = (x.contiguous() for x in wanted)
    mask = None if mask is None else mask.contiguous()
    native.critics_squared_error(
        _ensemble(critics),
        count,
        **_rows(critics, rows),
        target=address(target, "target", torch.float32, count),
        factor=address(factor, "factor", torch.float32, count),
        offset=address(offset, "offset", torch.float32, count),
        mask=optional_address(mask, "mask", torch.bool, count),
        scale=float(scale),
        loss=address(loss, "loss", torch.float32, len(critics.state), count),
        value=address(value, "value", torch.float32, len(critics.state), count),
        gradients=_gradients(critics, gradients),
        threads=native_threads(),
    )


def fill_expectation(critics: Critics, rows: Rows, support: Support, *, readout: Tensor) -> None:
    """Fill readout [C, R]."""
    critics, rows, count = _contiguous(critics), _contiguous(rows), len(rows.step)
    native.critics_expectation(
        _ensemble(critics),
        count,
        **_rows(critics, rows),
        support=native_support(*support),
        readout=address(readout, "readout", torch.float32, len(critics.state), count),
        threads=native_threads(),
    )


def fill_output(critics: Critics, rows: Rows, *, output: Tensor) -> None:
    """Fill output [C, R]."""
    critics, rows, count = _contiguous(critics), _contiguous(rows), len(rows.step)
    output_at = address(output, "output", torch.float32, len(critics.state), count)
    arguments = {**_rows(critics, rows), "output": output_at, "threads": native_threads()}
    native.critics_output(_ensemble(critics), count, **arguments)


def _ensemble(critics: Critics) -> native.Ensemble:
    """Raises TypeError or ValueError for tensors that are not those of one ensemble."""
    if critics.state.dim() != 3 or critics.head.dim() != 3 or critics.weights.dim() != 4 or critics.table.dim() != 3:
        refuse(critics.state, "state", "critics of the shapes that `Critics` names")
    many, steps, width = critics.state.shape
    sizes = {
        "critics": many,
        "steps": steps,
        "entries": critics.table.shape[1],
        "actions": 0 if critics.action_weight is None else critics.action_weight.shape[1],
        "depth": critics.weights.shape[0],
        "width": width,
        "bins": critics.head.shape[2],
    }
    addresses = _addresses(critics, critics.head.dtype, torch.float32, _shapes(**sizes))
    return native.Ensemble(
        **sizes,
        slope=LEAKY_RELU_SLOPE,
        dtype=PRODUCT_DTYPE_NAMES[critics.head.dtype],
        critic_stride=critics.state.stride(0),
        step_stride=critics.state.stride(1),
        **addresses,
    )


def _shapes(
    critics: int, steps: int, entries: int, actions: int, depth: int, width: int, bins: int
) -> dict[str, tuple[int, ...]]:
    return {
        "state": (critics, steps, width),
        "table": (critics, entries, width),
        "action_weight": (critics, actions, width),
        "weights": (depth, critics, width, width),
        "biases": (depth, critics, width),
        "head": (critics, width, bins),
        "head_bias": (critics, bins),
    }


def _contiguous(tensors):
    """The same with contiguous tensors; of a state rows are enough."""
    found = tensors._asdict()
    for name, x in found.items():
        if x is not None and not (name == "state" and x.stride(-1) == 1):
            found[name] = x.contiguous()
    return type(tensors)(**found)


def _addresses(
    critics: Critics, product_dtype: torch.dtype, accumulate_dtype: torch.dtype, shapes: dict
) -> dict[str, int]:
    """Of an ensemble's tensors, or of their gradients: `accumulate_dtype` is the dtype of what is not multiplied."""
    found = {}
    for name, x in critics._asdict().items():
        dtype = accumulate_dtype if name in ("table", "biases", "head_bias") else product_dtype
        take = optional_address if name == "action_weight" else address
        found[name] = take(x, name, dtype, *shapes[name], strided=name == "state")
    return found


def _rows(critics: Critics, rows: Rows) -> dict[str, Any]:
    """Whether indices are of steps and entries that there are is seen where they are read."""
    count = len(rows.step)
    if (critics.action_weight is None) != (rows.action is None):
        refuse(rows.action, "action", "actions where the first layer has a share of them, and None elsewhere")
    actions = 0 if critics.action_weight is None else critics.action_weight.shape[1]
    return {
        "step": address(rows.step, "step", torch.int64, count),
        "entry": address(rows.entry, "entry", torch.int64, count),
        "action": optional_address(rows.action, "action", critics.head.dtype, count, actions),
    }


def _gradients(critics: Critics, gradients: Critics) -> native.EnsembleGradients:
    shapes = {name: () if x is None else tuple(x.shape) for name, x in critics._asdict().items()}
    addresses = _addresses(gradients, torch.float32, torch.float32, shapes)
    critic_stride, step_stride, feature_stride = gradients.state.stride()
    if feature_stride != 1:
        refuse(gradients.state, "gradients.state", "rows whose numbers follow each other")
    return native.EnsembleGradients(critic_stride=critic_stride, step_stride=step_stride, **addresses)
