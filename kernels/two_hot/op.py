"""The two-hot operations on the CPU's native kernels, registered with torch.library.

`twohot::two_hot_rows` gives loss, what its gradient needs, and the readout of the same logits, in one reading of them;
`twohot::expectation_rows` gives the readout alone. `R` rows of `N` logits belong to `T` targets: row r to r % T.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twohot.kernels.backend import native

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def _rows(logits: Tensor, targets: int) -> dict:
    return {
        "logits": logits.data_ptr(),
        "dtype": _NAMES[logits.dtype],
        "rows": logits.shape[0],
        "bins": logits.shape[1],
        "targets": max(targets, 1),
        "threads": torch.get_num_threads(),
    }


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


@torch.library.custom_op("twohot::two_hot_rows", mutates_args=(), device_types="cpu")
def two_hot_rows(
    logits: Tensor, position: Tensor, mask: Tensor | None, values: Tensor | None, antisymmetric: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cross-entropy of rows of logits with two-hot labels.

    Args:
        logits: [R, N] float32, bfloat16 or float16, contiguous.
        position: [T] float32, contiguous: place of each target among the bins, in 0 .. N - 1; NaN gives a NaN loss.
        mask: [T] bool, contiguous: a row that is False gives zeros, whatever it holds. None: all rows count.
        values: [N] float32, contiguous: numbers whose expectation is read out. None: no readout.
        antisymmetric: whether values[k] == -values[N - 1 - k].

    Returns:
        float32 [R]: loss; maximum and log-sum of exponentials, for the gradient; readout ([0] without values). Only the
        loss has a gradient, and only once.
    """
    rows, device = logits.shape[0], logits.device
    loss, maximum, log_sum = (torch.empty(rows, dtype=torch.float32, device=device) for _ in range(3))
    readout = torch.empty(rows if values is not None else 0, dtype=torch.float32, device=device)
    native.two_hot_forward(
        **_rows(logits, position.shape[0]),
        position=position.data_ptr(),
        mask=_address(mask),
        values=_address(values),
        antisymmetric=antisymmetric,
        loss=loss.data_ptr(),
        maximum=maximum.data_ptr(),
        log_sum=log_sum.data_ptr(),
        readout=readout.data_ptr() if values is not None else 0,
    )
    return loss, maximum, log_sum, readout


@two_hot_rows.register_fake
def _(logits, position, mask, values, antisymmetric):
    rows = logits.new_empty(logits.shape[0], dtype=torch.float32)
    readout = rows.new_empty(logits.shape[0] if values is not None else 0)
    return rows, torch.empty_like(rows), torch.empty_like(rows), readout


@torch.library.custom_op("twohot::two_hot_rows_backward", mutates_args=(), device_types="cpu")
def two_hot_rows_backward(
    logits: Tensor, position: Tensor, mask: Tensor | None, maximum: Tensor, log_sum: Tensor, gradient: Tensor
) -> Tensor:
    """gradient[r] (softmax(logits) - label) [R, N]; a row that is masked or has no gradient gives zeros unread."""
    out = torch.empty_like(logits)
    native.two_hot_backward(
        **_rows(logits, position.shape[0]),
        position=position.data_ptr(),
        mask=_address(mask),
        maximum=maximum.data_ptr(),
        log_sum=log_sum.data_ptr(),
        gradient=gradient.data_ptr(),
        out=out.data_ptr(),
    )
    return out


@two_hot_rows_backward.register_fake
def _(logits, position, mask, maximum, log_sum, gradient):
    return torch.empty_like(logits)


def _save(ctx, inputs, output) -> None:
    logits, position, mask, *_ = inputs
    _, maximum, log_sum, _ = output
    ctx.save_for_backward(logits, position, mask, maximum, log_sum)
    ctx.set_materialize_grads(False)


def _backward(ctx, loss, maximum, log_sum, readout):
    if maximum is not None or log_sum is not None or readout is not None:
        raise RuntimeError("twohot::two_hot_rows: only the loss has a gradient; detach the other outputs")
    if loss is None:
        return None, None, None, None, None
    return two_hot_rows_backward(*ctx.saved_tensors, loss.contiguous()), None, None, None, None


two_hot_rows.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op("twohot::expectation_rows", mutates_args=(), device_types="cpu")
def expectation_rows(logits: Tensor, values: Tensor, antisymmetric: bool) -> Tensor:
    """float32 [R] sum_k softmax(logits)_k values_k of logits [R, N]; no gradient."""
    out = torch.empty(logits.shape[0], dtype=torch.float32, device=logits.device)
    native.two_hot_forward(
        **_rows(logits, 1), values=values.data_ptr(), antisymmetric=antisymmetric, readout=out.data_ptr()
    )
    return out


@expectation_rows.register_fake
def _(logits, values, antisymmetric):
    return logits.new_empty(logits.shape[0], dtype=torch.float32)
