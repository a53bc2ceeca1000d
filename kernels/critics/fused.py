"""The operations of `op.py` by native code, where whole pieces of rows pass all layers inside of one thread."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from twohot.kernels.backend import choose_two_hot, native
from twohot.kernels.critics.ensemble import Critics, Rows
from twohot.kernels.critics.layers import SLOPE

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def runs(critics: Critics) -> bool:
    """Whether native code takes these critics."""
    head = critics.head
    if not head.is_cpu or head.dtype not in _NAMES or critics.state.dtype != head.dtype:
        return False
    if head.shape[2] == 1:
        return native is not None and os.environ.get("TWOHOT_BACKEND", "auto") in ("auto", "native")
    return choose_two_hot(head.device, head.dtype, head.shape[2]).name == "native"


def fill_cross_entropy(
    critics: Critics,
    rows: Rows,
    target: Tensor,
    mask: Tensor | None,
    scale: float,
    support: tuple[float, float, str, bool],
    sigma: float,
    *,
    loss: Tensor,
    readout: Tensor,
    gradients: Critics,
) -> None:
    """Fill loss and readout [C, R], and the gradients of all but the state, to whose what reaches a step is added.

    Args:
        target: [R] float32. mask: [R] bool. scale: of the gradients. support, sigma: as in `op.critics_cross_entropy`.
        gradients: float32 of the shapes of `critics`, contiguous but for the state's, which has contiguous rows.
    """
    critics, rows = _contiguous(critics), _contiguous(rows)
    target, mask = target.contiguous(), None if mask is None else mask.contiguous()
    native.critics_cross_entropy(
        _ensemble(critics),
        rows.step.shape[0],
        **_addresses(rows),
        **_support(support),
        target=target.data_ptr(),
        mask=0 if mask is None else mask.data_ptr(),
        sigma=max(sigma, 0.0),
        raw_labels=sigma < 0,
        scale=scale,
        loss=loss.data_ptr(),
        readout=readout.data_ptr(),
        **_gradients(gradients),
        threads=torch.get_num_threads(),
    )


def fill_squared_error(
    critics: Critics,
    rows: Rows,
    wanted: tuple[Tensor, Tensor, Tensor],
    mask: Tensor | None,
    scale: float,
    *,
    loss: Tensor,
    value: Tensor,
    gradients: Critics,
) -> None:
    """As `fill_cross_entropy`, of the squared error of values; `wanted`: target, factor and offset [R] float32."""
    critics, rows = _contiguous(critics), _contiguous(rows)
    target, factor, offset = (x.contiguous() for x in wanted)
    mask = None if mask is None else mask.contiguous()
    native.critics_squared_error(
        _ensemble(critics),
        rows.step.shape[0],
        **_addresses(rows),
        target=target.data_ptr(),
        factor=factor.data_ptr(),
        offset=offset.data_ptr(),
        mask=0 if mask is None else mask.data_ptr(),
        scale=scale,
        loss=loss.data_ptr(),
        value=value.data_ptr(),
        **_gradients(gradients),
        threads=torch.get_num_threads(),
    )


def fill_expectation(critics: Critics, rows: Rows, support: tuple[float, float, str, bool], *, readout: Tensor) -> None:
    """Fill readout [C, R]."""
    critics, rows = _contiguous(critics), _contiguous(rows)
    native.critics_expectation(
        _ensemble(critics),
        rows.step.shape[0],
        **_addresses(rows),
        **_support(support),
        readout=readout.data_ptr(),
        threads=torch.get_num_threads(),
    )


def fill_output(critics: Critics, rows: Rows, *, output: Tensor) -> None:
    """Fill output [C, R]."""
    critics, rows = _contiguous(critics), _contiguous(rows)
    arguments = {**_addresses(rows), "output": output.data_ptr(), "threads": torch.get_num_threads()}
    native.critics_output(_ensemble(critics), rows.step.shape[0], **arguments)


def _ensemble(critics: Critics) -> native.Ensemble:
    actions = critics.action_weight
    return native.Ensemble(
        critics=critics.state.shape[0],
        steps=critics.state.shape[1],
        entries=critics.table.shape[1],
        actions=0 if actions is None else actions.shape[1],
        depth=critics.weights.shape[0],
        width=critics.head.shape[1],
        bins=critics.head.shape[2],
        slope=SLOPE,
        dtype=_NAMES[critics.head.dtype],
        critic_stride=critics.state.stride(0),
        step_stride=critics.state.stride(1),
        **_addresses(critics),
    )


def _contiguous(tensors):
    """The same with contiguous tensors; of a state rows are enough."""
    found = tensors._asdict()
    for name, x in found.items():
        if x is not None and not (name == "state" and x.stride(-1) == 1):
            found[name] = x.contiguous()
    return type(tensors)(**found)


def _addresses(tensors: Critics | Rows) -> dict[str, int]:
    return {name: 0 if x is None else x.data_ptr() for name, x in tensors._asdict().items()}


def _gradients(gradients: Critics) -> dict[str, int]:
    critic_stride, step_stride, _ = gradients.state.stride()
    addresses = {f"of_{name}": address for name, address in _addresses(gradients).items()}
    return {"of_critic_stride": critic_stride, "of_step_stride": step_stride, **addresses}


def _support(support: tuple[float, float, str, bool]) -> dict:
    return dict(zip(("low", "high", "transform", "raw"), support, strict=True))
