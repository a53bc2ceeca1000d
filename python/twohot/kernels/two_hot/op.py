"""The two-hot operations, registered with torch.library: autograd, torch.compile, vmap.

`R` rows of `N` logits belong to `T` targets, row r to r % T, so that a target which an ensemble shares is stored once.
A support is `low`, `high` (its ends in transformed space), `transform` and `readout_kind` (`ValueBins.readout`).
`labels` is a value of `reference.Labels`; `sigma`, in bin widths, is that of HL-Gauss labels, not read for the others.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from twohot.kernels.addresses import address, optional_address, refuse
from twohot.kernels.autograd import differentiable, differentiated_once, require_one_derivative, scaled
from twohot.kernels.backend import is_eager_tensor, native, runs_triton
from twohot.kernels.dtypes import DTYPE_NAMES
from twohot.kernels.memory import empty_from_pool
from twohot.kernels.reduction import count_valid_rows, per_valid_row
from twohot.kernels.threads import native_threads
from twohot.kernels.two_hot.reference import LABELS


def fill_cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    scale: float | Tensor,
    low: float,
    high: float,
    transform: str,
    readout_kind: str,
    labels: str,
    sigma: float,
    *,
    offset: int = 0,
    loss: Tensor | None = None,
    readout: Tensor | None = None,
    gradient: Tensor | None = None,
) -> float | None:
    """Write what is asked for into the given tensors, by the implementation that fits the logits.

    Args:
        logits: [R, N] float32, bfloat16 or float16, contiguous.
        target: [T] float32, contiguous. mask: [T] bool, contiguous. weight: [R] float32, contiguous.
        scale: of the gradient. offset: row r belongs to target (r + offset) % T.
        loss, readout: [R] float32. gradient: [R, N], may be `logits`.

    Returns:
        The sum of the losses where the native code ran and they were asked for.

    Raises:
        ValueError: for `labels` that are none of `reference.Labels`.
        TypeError, ValueError: where the native code would run and a tensor is not what is said here.
    """
    if labels not in LABELS:
        raise ValueError(f"labels: expected one of {', '.join(LABELS)}, got {labels!r}")
    if runs_triton(logits):
        from twohot.kernels.two_hot.launchers import launch_cross_entropy

        if offset:
            target, mask = target.roll(-offset), None if mask is None else mask.roll(-offset)
        launch_cross_entropy(
            logits,
            target,
            mask,
            weight,
            torch.as_tensor(scale, dtype=torch.float32, device=logits.device),
            low=low,
            high=high,
            transform=transform,
            labels=labels,
            sigma=sigma,
            readout_kind=readout_kind,
            loss=loss,
            readout=readout,
            gradient=gradient,
        )
        return None
    rows, bins = _rows_and_bins(logits)
    targets = len(target)
    if rows and not targets:
        refuse(target, "target", f"at least one number for {rows} rows")
    return native.cross_entropy(
        address(logits, "logits", logits.dtype, rows, bins),
        DTYPE_NAMES[logits.dtype],
        rows,
        bins,
        native_support(low, high, transform, readout_kind),
        target=address(target, "target", torch.float32, targets),
        targets=max(targets, 1),
        offset=offset,
        mask=optional_address(mask, "mask", torch.bool, targets),
        labels=labels,
        sigma=sigma,
        weight=optional_address(weight, "weight", torch.float32, rows),
        scale=float(scale),
        loss=optional_address(loss, "loss", torch.float32, rows),
        readout=optional_address(readout, "readout", torch.float32, rows),
        gradient=optional_address(gradient, "gradient", logits.dtype, rows, bins),
        threads=native_threads(),
    )


@lru_cache(maxsize=256)
def native_support(low: float, high: float, transform: str, readout_kind: str) -> native.Support:
    """The support as native code takes it."""
    return native.Support(low, high, transform, readout_kind)


def _rows_and_bins(logits: Tensor) -> tuple[int, int]:
    if logits.dim() != 2 or logits.dtype not in DTYPE_NAMES:
        refuse(logits, "logits", f"a tensor [R, N] of {', '.join(map(str, DTYPE_NAMES))}")
    rows, bins = logits.shape
    return rows, bins


def fill_expectation(
    logits: Tensor,
    low: float,
    high: float,
    transform: str,
    readout_kind: str,
    *,
    grad_output: Tensor | None = None,
    readout: Tensor | None = None,
    gradient: Tensor | None = None,
) -> None:
    """The readout [R] of logits [R, N], and its gradient times `grad_output` [R], as `fill_cross_entropy`."""
    if runs_triton(logits):
        from twohot.kernels.two_hot.launchers import launch_expectation

        support = {"low": low, "high": high, "transform": transform, "readout_kind": readout_kind}
        launch_expectation(logits, **support, readout=readout, grad_output=grad_output, gradient=gradient)
        return
    rows, bins = _rows_and_bins(logits)
    native.expectation(
        address(logits, "logits", logits.dtype, rows, bins),
        DTYPE_NAMES[logits.dtype],
        rows,
        bins,
        native_support(low, high, transform, readout_kind),
        grad_output=optional_address(grad_output, "grad_output", torch.float32, rows),
        readout=optional_address(readout, "readout", torch.float32, rows),
        gradient=optional_address(gradient, "gradient", logits.dtype, rows, bins),
        threads=native_threads(),
    )


@torch.library.custom_op("twohot::cross_entropy_rows", mutates_args=())
def cross_entropy_rows_op(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    low: float,
    high: float,
    transform: str,
    readout_kind: str,
    labels: str,
    sigma: float,
    with_readout: bool,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each row, and the readout of the same logits.

    Args:
        logits: [R, N] float32, bfloat16 or float16, contiguous.
        target: [T] float32, contiguous, in units of the return; NaN gives a NaN loss.
        mask: [T] bool, contiguous: a row that is False gives zeros, whatever it holds.

    Returns:
        float32 [R]: loss, with a gradient for the logits; readout ([0] unless `with_readout`), without.
    """
    loss = logits.new_empty(logits.shape[0], dtype=torch.float32)
    readout = torch.empty_like(loss if with_readout else loss[:0])
    outputs = {"loss": loss, "readout": readout if with_readout else None}
    fill_cross_entropy(logits, target, mask, None, 1.0, low, high, transform, readout_kind, labels, sigma, **outputs)
    return loss, readout


@cross_entropy_rows_op.register_fake
def _(logits, target, mask, low, high, transform, readout_kind, labels, sigma, with_readout):
    loss = logits.new_empty(logits.shape[0], dtype=torch.float32)
    return loss, logits.new_empty(logits.shape[0] if with_readout else 0, dtype=torch.float32)


@torch.library.custom_op("twohot::cross_entropy_rows_backward", mutates_args=())
def cross_entropy_rows_backward_op(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    grad_output: Tensor,
    low: float,
    high: float,
    transform: str,
    labels: str,
    sigma: float,
) -> Tensor:
    """grad_output[r] (softmax(logits) - label) [R, N]; a row that is masked or has a grad_output of 0 gives zeros."""
    gradient = empty_from_pool(logits.shape, logits)
    fill_cross_entropy(
        logits, target, mask, grad_output, 1.0, low, high, transform, "transformed", labels, sigma, gradient=gradient
    )
    return gradient


@cross_entropy_rows_backward_op.register_fake
def _(logits, target, mask, grad_output, low, high, transform, labels, sigma):
    return torch.empty_like(logits)


cross_entropy_rows_backward = differentiated_once(cross_entropy_rows_backward_op)


def _save_rows(ctx, inputs, output) -> None:
    logits, target, mask, *support, _ = inputs
    ctx.save_for_backward(logits, target, mask)
    ctx.support = support
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _rows_backward(ctx, loss, readout):
    gradient = None
    if loss is not None:
        low, high, transform, _, labels, sigma = ctx.support
        gradient = cross_entropy_rows_backward(
            *ctx.saved_tensors, loss.contiguous(), low, high, transform, labels, sigma
        )
    return gradient, *[None] * 9


cross_entropy_rows = differentiable(cross_entropy_rows_op, _save_rows, _rows_backward)


@torch.library.custom_op("twohot::cross_entropy", mutates_args=())
def cross_entropy_op(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    mean: bool,
    low: float,
    high: float,
    transform: str,
    readout_kind: str,
    labels: str,
    sigma: float,
    with_readout: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum or mean of the rows' cross-entropies, with the gradient found in the same reading of the logits.

    Args:
        logits, target, mask: as `cross_entropy_rows_op`. weight: [R] float32, contiguous, a factor of each row.
        mean: divide by the number of rows that count.

    Returns:
        float32 loss [], with a gradient for the logits; readout [R] or [0]; gradient of the loss [R, N] or [0, N].
    """
    rows = logits.shape[0]
    count = count_valid_rows(mask, rows, target.shape[0])
    scale = per_valid_row(count) if mean else 1.0
    loss = logits.new_empty(rows, dtype=torch.float32)
    readout = logits.new_empty(rows if with_readout else 0, dtype=torch.float32)
    gradient = empty_from_pool(logits.shape if with_gradient else (0, logits.shape[1]), logits)
    total = fill_cross_entropy(
        logits,
        target,
        mask,
        weight,
        scale,
        low,
        high,
        transform,
        readout_kind,
        labels,
        sigma,
        loss=loss,
        readout=readout if with_readout else None,
        gradient=gradient if with_gradient else None,
    )
    if total is None:
        return loss.sum() * scale, readout, gradient
    return loss.new_full((), total * float(scale)), readout, gradient


@cross_entropy_op.register_fake
def _(logits, *others):
    *_, with_readout, with_gradient = others
    readout = logits.new_empty(logits.shape[0] if with_readout else 0, dtype=torch.float32)
    gradient = torch.empty_like(logits) if with_gradient else logits.new_empty((0, logits.shape[1]))
    return logits.new_empty((), dtype=torch.float32), readout, gradient


def _save_loss(ctx, inputs, output) -> None:
    logits, target, mask, weight, *options, with_gradient = inputs
    _, readout, gradient = output
    ctx.mark_non_differentiable(readout, gradient)
    ctx.set_materialize_grads(False)
    ctx.with_gradient, ctx.options = with_gradient, options
    # A GPU's factor cannot be looked at without waiting for it, so there the gradient is scaled in place: it is given
    # away once, and computed again where the graph is kept.
    ctx.unscaled_gradient = None
    if not (runs_triton(logits) and is_eager_tensor(logits)):
        ctx.save_for_backward(gradient if with_gradient else None)
    elif with_gradient:
        ctx.unscaled_gradient = gradient
        ctx.save_for_backward(logits, target, mask, weight)


def _loss_backward(ctx, loss, *_):
    if loss is None:
        return (None,) * 13
    if not ctx.with_gradient:
        raise RuntimeError("twohot::cross_entropy: called without its gradient (with_gradient=False)")
    saved = ctx.saved_tensors
    if len(saved) == 1:
        return *scaled(ctx, saved, loss), *[None] * 12
    require_one_derivative(ctx)
    from twohot.kernels.two_hot.launchers import launch_scale

    gradient, ctx.unscaled_gradient = ctx.unscaled_gradient, None
    if gradient is None:
        mean, *support, _ = ctx.options
        *_, gradient = cross_entropy_op(*saved, mean, *support, False, True)
    launch_scale(gradient, loss)
    return gradient, *[None] * 12


cross_entropy = differentiable(cross_entropy_op, _save_loss, _loss_backward, visible=2)


@torch.library.custom_op("twohot::expectation", mutates_args=())
def expectation_op(logits: Tensor, low: float, high: float, transform: str, readout_kind: str) -> Tensor:
    """float32 [R] readout of logits [R, N] (float32, bfloat16 or float16, contiguous), with a gradient."""
    out = logits.new_empty(logits.shape[0], dtype=torch.float32)
    fill_expectation(logits, low, high, transform, readout_kind, readout=out)
    return out


@expectation_op.register_fake
def _(logits, low, high, transform, readout_kind):
    return logits.new_empty(logits.shape[0], dtype=torch.float32)


@torch.library.custom_op("twohot::expectation_backward", mutates_args=())
def expectation_backward_op(
    logits: Tensor, grad_output: Tensor, low: float, high: float, transform: str, readout_kind: str
) -> Tensor:
    """grad_output[r] d readout[r] / d logits[r] [R, N]."""
    gradient = empty_from_pool(logits.shape, logits)
    fill_expectation(logits, low, high, transform, readout_kind, grad_output=grad_output, gradient=gradient)
    return gradient


@expectation_backward_op.register_fake
def _(logits, grad_output, low, high, transform, readout_kind):
    return torch.empty_like(logits)


expectation_backward = differentiated_once(expectation_backward_op)


def _save_expectation(ctx, inputs, output) -> None:
    logits, *support = inputs
    ctx.save_for_backward(logits)
    ctx.support = support


def _expectation_backward(ctx, grad_output):
    return expectation_backward(*ctx.saved_tensors, grad_output.contiguous(), *ctx.support), *[None] * 4


expectation = differentiable(expectation_op, _save_expectation, _expectation_backward)


def _batch_rows(size: int, tensor: Tensor | None, dim: int | None) -> Tensor | None:
    """[size * rows, ...] of a tensor whose dimension `dim` is mapped over, or that all share."""
    if tensor is None:
        return None
    tensor = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return tensor.flatten(0, 1).contiguous()


def _vmap_rows(op):
    """The rule of an operation over logits [R, N], a target [T], a mask [T] (and a gradient [R]): all as more rows."""

    def rule(info, in_dims, logits, target, mask, *rest):
        size = info.batch_size
        rows = logits.shape[0] if in_dims[0] is None else logits.movedim(in_dims[0], 0).shape[1]
        targets = target.numel() if in_dims[1] is None else target.numel() // size
        if in_dims[1] is not None or (mask is not None and in_dims[2] is not None):
            # One target for each row, for r % T runs through the targets of one sample only.
            repeat = rows // max(targets, 1)
            target = _repeat_targets(target, in_dims[1], repeat, size)
            mask = None if mask is None else _repeat_targets(mask, in_dims[2], repeat, size)
        head = [_batch_rows(size, logits, in_dims[0]), target, mask]
        rest = [_batch_rows(size, x, d) if isinstance(x, Tensor) else x for x, d in zip(rest, in_dims[3:], strict=True)]
        out = op(*head, *rest)
        if isinstance(out, Tensor):
            return out.unflatten(0, (size, -1)), 0
        return tuple(x.reshape(size, x.shape[0] // size, *x.shape[1:]) for x in out), (0,) * len(out)

    return rule


def _repeat_targets(tensor: Tensor, dim: int | None, repeat: int, size: int) -> Tensor:
    tensor = tensor.expand(size, -1) if dim is None else tensor.movedim(dim, 0)
    return tensor.repeat(1, repeat).flatten().contiguous()


def _vmap_expectation(op):
    def rule(info, in_dims, logits, *rest):
        size = info.batch_size
        rest = [_batch_rows(size, x, d) if isinstance(x, Tensor) else x for x, d in zip(rest, in_dims[1:], strict=True)]
        return op(_batch_rows(size, logits, in_dims[0]), *rest).unflatten(0, (size, -1)), 0

    return rule


cross_entropy_rows_op.register_vmap(_vmap_rows(cross_entropy_rows_op))
cross_entropy_rows_backward_op.register_vmap(_vmap_rows(cross_entropy_rows_backward_op))
expectation_op.register_vmap(_vmap_expectation(expectation_op))
expectation_backward_op.register_vmap(_vmap_expectation(expectation_backward_op))
