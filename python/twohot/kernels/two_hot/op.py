"""The two-hot operations, registered with torch.library: autograd, torch.compile, vmap.

`R` rows of `N` logits belong to `T` targets, row r to r % T, so that a target which an ensemble shares is stored once.
A support is `low`, `high` (its ends in transformed space), `transform` and `raw` (the readout); labels are two-hot
where `sigma` is 0, two-hot between the values of the bins where it is `reference.RAW_LABELS`, below 0, and HL-Gauss of
`sigma` bin widths otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from twohot.kernels.addresses import address, optional_address, refuse
from twohot.kernels.backend import native, plain_eager, runs_triton

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
# Below this many bytes the allocator of torch recycles memory by itself.
_RECYCLED_BYTES = 1 << 20


def empty_recycled(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised tensor of this shape, dtype and device of `like`; on a CPU, large ones reuse touched memory.

    Fresh pages cost more to touch than to fill. The memory goes back to a pool of the process when the last tensor that
    uses it is freed (`twohot.losses.release_memory` empties the pool).
    """
    bytes_ = math.prod(shape) * like.element_size()
    if bytes_ < _RECYCLED_BYTES or not like.is_cpu or native is None:
        return like.new_empty(shape)
    return torch.from_numpy(native.recycled(bytes_)).view(like.dtype).view(shape)


def fill_rows(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    scale: float | Tensor,
    low: float,
    high: float,
    transform: str,
    raw: bool,
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
        TypeError, ValueError: where the native code would run and a tensor is not what is said here.
    """
    if runs_triton(logits):
        from twohot.kernels.two_hot.kernel import launch_cross_entropy

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
            sigma=sigma,
            readout_kind="" if readout is None else "raw" if raw else "transformed",
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
        _NAMES[logits.dtype],
        rows,
        bins,
        low,
        high,
        transform,
        raw,
        target=address(target, "target", torch.float32, targets),
        targets=max(targets, 1),
        offset=offset,
        mask=optional_address(mask, "mask", torch.bool, targets),
        sigma=max(sigma, 0.0),
        raw_labels=sigma < 0,
        weight=optional_address(weight, "weight", torch.float32, rows),
        scale=float(scale),
        loss=optional_address(loss, "loss", torch.float32, rows),
        readout=optional_address(readout, "readout", torch.float32, rows),
        gradient=optional_address(gradient, "gradient", logits.dtype, rows, bins),
        threads=torch.get_num_threads(),
    )


def _rows_and_bins(logits: Tensor) -> tuple[int, int]:
    if logits.dim() != 2 or logits.dtype not in _NAMES:
        refuse(logits, "logits", f"a tensor [R, N] of {', '.join(map(str, _NAMES))}")
    return tuple(logits.shape)


def fill_expectation(
    logits: Tensor,
    low: float,
    high: float,
    transform: str,
    raw: bool,
    *,
    upstream: Tensor | None = None,
    readout: Tensor | None = None,
    gradient: Tensor | None = None,
) -> None:
    """The readout [R] of logits [R, N], and its gradient times `upstream` [R], as `fill_rows`."""
    if runs_triton(logits):
        from twohot.kernels.two_hot.kernel import launch_expectation

        kind = "raw" if raw else "transformed"
        support = {"low": low, "high": high, "transform": transform, "readout_kind": kind}
        launch_expectation(logits, **support, readout=readout, upstream=upstream, gradient=gradient)
        return
    rows, bins = _rows_and_bins(logits)
    native.expectation(
        address(logits, "logits", logits.dtype, rows, bins),
        _NAMES[logits.dtype],
        rows,
        bins,
        low,
        high,
        transform,
        raw,
        upstream=optional_address(upstream, "upstream", torch.float32, rows),
        readout=optional_address(readout, "readout", torch.float32, rows),
        gradient=optional_address(gradient, "gradient", logits.dtype, rows, bins),
        threads=torch.get_num_threads(),
    )


def rows_that_count(mask: Tensor | None, rows: int, targets: int) -> int | Tensor:
    """How many of `rows` rows count: a number, or a float32 tensor on a device that would have to be waited for."""
    if mask is None:
        return rows
    count = mask.sum() * (rows // max(targets, 1))
    return int(count) if mask.device.type == "cpu" else count.float()


def mean_scale(count: int | Tensor) -> float | Tensor:
    """1 / count, and 1 for none."""
    return 1 / count.clamp(min=1) if isinstance(count, Tensor) else 1 / max(count, 1)


def differentiable(op, setup_context, backward, inputs=1, visible=None):
    """Register the derivative of `op` for its first `inputs` arguments (None: all), and give a form of it to call.

    An operation's own autograd rule costs more than a small loss, and does not serve torch.func. So where nothing
    traces, the form to call runs the body of the operation in an autograd Function, and under torch.func the operation.
    It returns the first `visible` outputs (None: all).
    """
    op.register_autograd(backward, setup_context=setup_context)

    body = op._init_fn

    class AtOnce(torch.autograd.Function):  # each argument of its own costs time: those without a gradient are one
        @staticmethod
        def forward(ctx, *arguments):
            arguments = (*arguments[:-1], *arguments[-1])
            output = body(*arguments)
            setup_context(ctx, arguments, output)
            return output if visible is None else output[:visible]

        @staticmethod
        def backward(ctx, *upstream):
            return *backward(ctx, *upstream)[:inputs], None

    class UnderTransforms(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*arguments):
            return op(*arguments)

    UnderTransforms.setup_context = staticmethod(setup_context)
    UnderTransforms.backward = staticmethod(backward)

    def call(*arguments):
        if plain_eager(arguments[0]):
            leading = arguments[:inputs]
            wanted = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in leading)
            if wanted:
                return AtOnce.apply(*leading, arguments[len(leading) :])
            if torch.is_grad_enabled():  # for others of the arguments
                with torch.no_grad():
                    output = body(*arguments)
            else:
                output = body(*arguments)
        else:
            output = (UnderTransforms.apply if torch._C._are_functorch_transforms_active() else op)(*arguments)
        return output if visible is None else output[:visible]

    return call


def raise_second_derivative(ctx, *_):
    """The derivative of what has none."""
    raise RuntimeError(
        "twohot: the fused operations can be differentiated once. For second derivatives use the plain PyTorch form, "
        "TWOHOT_BACKEND=reference"
    )


def differentiated_once(op):
    """`op`, which computes gradients, with a derivative that raises."""
    return differentiable(op, lambda ctx, inputs, output: None, raise_second_derivative, inputs=None)


@torch.library.custom_op("twohot::cross_entropy_rows", mutates_args=())
def cross_entropy_rows(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    low: float,
    high: float,
    transform: str,
    raw: bool,
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
    fill_rows(logits, target, mask, None, 1.0, low, high, transform, raw, sigma, **outputs)
    return loss, readout


@cross_entropy_rows.register_fake
def _(logits, target, mask, low, high, transform, raw, sigma, with_readout):
    loss = logits.new_empty(logits.shape[0], dtype=torch.float32)
    return loss, logits.new_empty(logits.shape[0] if with_readout else 0, dtype=torch.float32)


@torch.library.custom_op("twohot::cross_entropy_rows_backward", mutates_args=())
def cross_entropy_rows_backward(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    upstream: Tensor,
    low: float,
    high: float,
    transform: str,
    sigma: float,
) -> Tensor:
    """upstream[r] (softmax(logits) - label) [R, N]; a row that is masked or has an upstream of 0 gives zeros."""
    gradient = empty_recycled(logits.shape, logits)
    fill_rows(logits, target, mask, upstream, 1.0, low, high, transform, False, sigma, gradient=gradient)
    return gradient


@cross_entropy_rows_backward.register_fake
def _(logits, target, mask, upstream, low, high, transform, sigma):
    return torch.empty_like(logits)


gradient_of_rows = differentiated_once(cross_entropy_rows_backward)


def _save_rows(ctx, inputs, output) -> None:
    logits, target, mask, *support, _ = inputs
    ctx.save_for_backward(logits, target, mask)
    ctx.support = support
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _rows_backward(ctx, loss, readout):
    gradient = None
    if loss is not None:
        low, high, transform, _, sigma = ctx.support
        gradient = gradient_of_rows(*ctx.saved_tensors, loss.contiguous(), low, high, transform, sigma)
    return gradient, *[None] * 8


cross_entropy_of_rows = differentiable(cross_entropy_rows, _save_rows, _rows_backward)


@torch.library.custom_op("twohot::cross_entropy_loss", mutates_args=())
def cross_entropy_loss(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    mean: bool,
    low: float,
    high: float,
    transform: str,
    raw: bool,
    sigma: float,
    with_readout: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum or mean of the rows' cross-entropies, with the gradient found in the same reading of the logits.

    Args:
        logits, target, mask: as `cross_entropy_rows`. weight: [R] float32, contiguous, a factor of each row.
        mean: divide by the number of rows that count.

    Returns:
        float32 loss [], with a gradient for the logits; readout [R] or [0]; gradient of the loss [R, N] or [0, N].
    """
    rows = logits.shape[0]
    count = rows_that_count(mask, rows, target.shape[0])
    scale = mean_scale(count) if mean else 1.0
    loss = logits.new_empty(rows, dtype=torch.float32)
    readout = logits.new_empty(rows if with_readout else 0, dtype=torch.float32)
    gradient = empty_recycled(logits.shape if with_gradient else (0, logits.shape[1]), logits)
    total = fill_rows(
        logits,
        target,
        mask,
        weight,
        scale,
        low,
        high,
        transform,
        raw,
        sigma,
        loss=loss,
        readout=readout if with_readout else None,
        gradient=gradient if with_gradient else None,
    )
    if total is None:
        return loss.sum() * scale, readout, gradient
    return loss.new_full((), total * scale), readout, gradient


@cross_entropy_loss.register_fake
def _(logits, target, mask, weight, mean, low, high, transform, raw, sigma, with_readout, with_gradient):
    readout = logits.new_empty(logits.shape[0] if with_readout else 0, dtype=torch.float32)
    gradient = torch.empty_like(logits) if with_gradient else logits.new_empty((0, logits.shape[1]))
    return logits.new_empty((), dtype=torch.float32), readout, gradient


def scaled(ctx, saved: Sequence[Tensor], factor: Tensor) -> list[Tensor]:
    """The gradients that were `saved` x factor []: themselves where a look at it is free and finds 1.

    Whoever keeps the graph gets copies, so that what was given out can be changed. Saved tensors come as an argument
    because activation checkpointing hands them out once.
    """
    if torch.compiler.is_compiling() or not plain_eager(factor) or not factor.is_cpu:
        return [(gradient * factor).to(gradient.dtype) for gradient in saved]
    if torch.is_grad_enabled():  # create_graph=True
        raise_second_derivative(ctx)
    number = factor.item()
    if number == 1 and not torch._C._autograd._get_current_graph_task_keep_graph():
        return list(saved)
    return [_scaled(gradient, number) for gradient in saved]


def _scaled(gradient: Tensor, factor: float) -> Tensor:
    if not gradient.is_contiguous():
        return gradient * factor  # keeps the order of its dimensions
    return torch.mul(gradient, factor, out=empty_recycled(gradient.shape, gradient))


def _save_loss(ctx, inputs, output) -> None:
    logits, target, mask, weight, *options, with_gradient = inputs
    _, readout, gradient = output
    ctx.mark_non_differentiable(readout, gradient)
    ctx.set_materialize_grads(False)
    ctx.with_gradient, ctx.options = with_gradient, options
    # A GPU's factor cannot be looked at without waiting for it, so there the gradient is scaled in place: it is given
    # away once, and computed again for whoever keeps the graph.
    ctx.given_once = None
    if not (runs_triton(logits) and plain_eager(logits)):
        ctx.save_for_backward(gradient if with_gradient else None)
    elif with_gradient:
        ctx.given_once = gradient
        ctx.save_for_backward(logits, target, mask, weight)


def _loss_backward(ctx, loss, *_):
    if loss is None:
        return (None,) * 12
    if not ctx.with_gradient:
        raise RuntimeError("twohot::cross_entropy_loss: called without its gradient (with_gradient=False)")
    saved = ctx.saved_tensors
    if len(saved) == 1:
        return *scaled(ctx, saved, loss), *[None] * 11
    if torch.is_grad_enabled():  # create_graph=True
        raise_second_derivative(ctx)
    from twohot.kernels.two_hot.kernel import launch_scale

    gradient, ctx.given_once = ctx.given_once, None
    if gradient is None:
        mean, *support, _ = ctx.options
        *_, gradient = cross_entropy_loss(*saved, mean, *support, False, True)
    launch_scale(gradient, loss)
    return gradient, *[None] * 11


reduced_cross_entropy = differentiable(cross_entropy_loss, _save_loss, _loss_backward, visible=2)


@torch.library.custom_op("twohot::expectation_rows", mutates_args=())
def expectation_rows(logits: Tensor, low: float, high: float, transform: str, raw: bool) -> Tensor:
    """float32 [R] readout of logits [R, N] (float32, bfloat16 or float16, contiguous), with a gradient."""
    out = logits.new_empty(logits.shape[0], dtype=torch.float32)
    fill_expectation(logits, low, high, transform, raw, readout=out)
    return out


@expectation_rows.register_fake
def _(logits, low, high, transform, raw):
    return logits.new_empty(logits.shape[0], dtype=torch.float32)


@torch.library.custom_op("twohot::expectation_rows_backward", mutates_args=())
def expectation_rows_backward(
    logits: Tensor, upstream: Tensor, low: float, high: float, transform: str, raw: bool
) -> Tensor:
    """upstream[r] d readout[r] / d logits[r] [R, N]."""
    gradient = empty_recycled(logits.shape, logits)
    fill_expectation(logits, low, high, transform, raw, upstream=upstream, gradient=gradient)
    return gradient


@expectation_rows_backward.register_fake
def _(logits, upstream, low, high, transform, raw):
    return torch.empty_like(logits)


gradient_of_expectation = differentiated_once(expectation_rows_backward)


def _save_expectation(ctx, inputs, output) -> None:
    logits, *support = inputs
    ctx.save_for_backward(logits)
    ctx.support = support


def _expectation_backward(ctx, upstream):
    return gradient_of_expectation(*ctx.saved_tensors, upstream.contiguous(), *ctx.support), *[None] * 4


expectation_of_rows = differentiable(expectation_rows, _save_expectation, _expectation_backward)


def _batch_rows(size: int, tensor: Tensor | None, dim: int | None) -> Tensor | None:
    """[size * rows, ...] of a tensor whose dimension `dim` is mapped over, or that all share."""
    if tensor is None:
        return None
    tensor = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return tensor.flatten(0, 1).contiguous()


def _vmap_rows(op):
    """The rule of an operation over logits [R, N], a target [T], a mask [T] (and an upstream [R]): all as more rows."""

    def rule(info, in_dims, logits, target, mask, *rest):
        size = info.batch_size
        rows = logits.shape[0] if in_dims[0] is None else logits.movedim(in_dims[0], 0).shape[1]
        targets = target.numel() if in_dims[1] is None else target.numel() // size
        if in_dims[1] is not None or (mask is not None and in_dims[2] is not None):
            # Targets of their own: one for each row, for r % T runs through the targets of one sample only.
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


cross_entropy_rows.register_vmap(_vmap_rows(cross_entropy_rows))
cross_entropy_rows_backward.register_vmap(_vmap_rows(cross_entropy_rows_backward))
expectation_rows.register_vmap(_vmap_expectation(expectation_rows))
expectation_rows_backward.register_vmap(_vmap_expectation(expectation_rows_backward))
