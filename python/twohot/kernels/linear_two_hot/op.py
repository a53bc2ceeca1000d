"""A last linear layer and the two-hot operations in one, registered with torch.library.

Tiles of rows go through the layer, the loss and back while their logits are in the cache: logits = h W^T + b, which
the loss overwrites by its gradient g, then g W for the hidden state, g^T h for the weight and the sum of g for the bias
(after Hsu et al. 2024, Liger-Kernel, arXiv 2410.10989). `C` heads of `M` rows make R = C M rows, row c M + m, which
belong to `T` targets as in `twohot.kernels.two_hot.op`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from twohot.kernels.addresses import require_one_device
from twohot.kernels.autograd import differentiable, differentiated_once, scaled
from twohot.kernels.memory import empty_from_pool
from twohot.kernels.reduction import count_valid_rows, per_valid_row
from twohot.kernels.row_tiles import row_tiles, tile_size
from twohot.kernels.two_hot.op import fill_cross_entropy, fill_expectation
from twohot.kernels.two_hot.reference import Support

# The most logits of a tile: enough for matrix products at full speed, few enough for the last cache.
_TILE_ELEMENTS = 3 << 19


def tiles(hidden: Tensor, bins: int) -> Iterator[tuple[int, slice]]:
    """(head, rows) of each tile of hidden [C, M, E]."""
    heads, rows, _ = hidden.shape
    for head in range(heads):
        for tile in row_tiles(rows, _tile_rows(rows, bins)):
            yield head, tile


def _tile_rows(rows: int, bins: int) -> int:
    return tile_size(rows, -(-rows // max(256, _TILE_ELEMENTS // bins)))


def _logits(buffer: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = buffer[: h.shape[0]]
    return torch.mm(h, weight.t(), out=out) if bias is None else torch.addmm(bias, h, weight.t(), out=out)


def _buffer(hidden: Tensor, bins: int) -> Tensor:
    return hidden.new_empty((_tile_rows(hidden.shape[1], bins), bins))


def _fill(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    mask: Tensor | None,
    row_weight: Tensor | None,
    scale: float | Tensor,
    support: Support,
    labels: str,
    sigma: float,
    wanted: Sequence[bool],
    loss: Tensor | None = None,
    readout: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fill loss [R] and readout [R]; the gradients of hidden, weight and bias, [0] where they are not wanted."""
    bins, targets = weight.shape[1], max(target.shape[0], 1)
    # Half-precision sums over tiles are kept in float32.
    accumulate_dtype = torch.promote_types(weight.dtype, torch.float32)
    grad_hidden = empty_from_pool(hidden.shape if wanted[0] else (0,), hidden)
    grad_weight = torch.zeros_like(weight if wanted[1] else weight[:0], dtype=accumulate_dtype)
    grad_bias = weight.new_zeros(weight.shape[:2] if wanted[2] else (0,), dtype=accumulate_dtype)
    outputs = {name: x for name, x in (("loss", loss), ("readout", readout)) if x is not None}
    buffer = _buffer(hidden, bins)
    for head, tile in tiles(hidden, bins):
        first = head * hidden.shape[1] + tile.start
        here = slice(first, first + tile.stop - tile.start)
        h, own, offset, index = hidden[head, tile], target, first % targets, None
        if mask is not None:
            target_index = torch.arange(here.start, here.stop, device=mask.device) % targets
            index = mask[target_index].nonzero().squeeze(-1)
            h, own, offset = h.index_select(0, index), target[target_index[index]], 0
        results = {name: x[here] for name, x in outputs.items()}
        if index is not None:
            # Rows that do not count are left out of the products too: a NaN in them would spread to the weight.
            results = {name: x.new_empty(len(index)) for name, x in results.items()}
        factor = None if row_weight is None else row_weight[here] if index is None else row_weight[here][index]
        logits = _logits(buffer, h, weight[head], None if bias is None else bias[head])
        options = {"offset": offset, "gradient": logits if any(wanted) else None, **results}
        fill_cross_entropy(logits, own, None, factor, scale, *support, labels, sigma, **options)
        for name, out in outputs.items():
            if index is not None:
                out[here] = 0
                out[here][index] = results[name]
        if wanted[0] and index is None:
            torch.mm(logits, weight[head], out=grad_hidden[head, tile])
        elif wanted[0]:
            grad_hidden[head, tile] = 0
            grad_hidden[head, tile][index] = torch.mm(logits, weight[head])
        if wanted[1] and accumulate_dtype == weight.dtype:
            grad_weight[head].addmm_(logits.t(), h)
        elif wanted[1]:
            grad_weight[head] += torch.mm(logits.t(), h)
        if wanted[2]:
            grad_bias[head] += logits.sum(0, dtype=accumulate_dtype)
    return grad_hidden, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype)


def _fake_gradients(hidden: Tensor, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty(hidden.shape if wanted[0] else (0,), dtype=hidden.dtype, device=hidden.device),
        torch.empty_like(weight if wanted[1] else weight[:0]),
        weight.new_empty(weight.shape[:2] if wanted[2] else (0,)),
    )


@torch.library.custom_op("twohot::linear_cross_entropy", mutates_args=())
def linear_cross_entropy_op(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    mask: Tensor | None,
    row_weight: Tensor | None,
    mean: bool,
    low: float,
    high: float,
    transform: str,
    readout_kind: str,
    labels: str,
    sigma: float,
    with_readout: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sum or mean of the cross-entropies of a layer's logits, with all gradients found on the way.

    Args:
        hidden: [C, M, E]. weight: [C, N, E]. bias: [C, N]. One dtype of float32, bfloat16 and float16.
        target: [T] float32, contiguous. mask: [T] bool, contiguous. row_weight: [R] float32, contiguous.
        mean: divide by the number of rows that count. wanted: which gradients of hidden, weight, bias to find.

    Returns:
        float32 loss [], with gradients; readout [R] or [0]; gradients of the loss, [0] where not wanted.
    """
    rows = hidden.shape[0] * hidden.shape[1]
    count = count_valid_rows(mask, rows, target.shape[0])
    scale = per_valid_row(count) if mean else 1.0
    loss = hidden.new_empty(rows, dtype=torch.float32)
    readout = hidden.new_empty(rows if with_readout else 0, dtype=torch.float32)
    support = (low, high, transform, readout_kind)
    outputs = {"loss": loss, "readout": readout if with_readout else None}
    gradients = _fill(hidden, weight, bias, target, mask, row_weight, scale, support, labels, sigma, wanted, **outputs)
    return loss.sum() * scale, readout, *gradients


@linear_cross_entropy_op.register_fake
def _(hidden, weight, *others):
    *_, with_readout, wanted = others
    rows = hidden.shape[0] * hidden.shape[1]
    readout = hidden.new_empty(rows if with_readout else 0, dtype=torch.float32)
    return hidden.new_empty((), dtype=torch.float32), readout, *_fake_gradients(hidden, weight, wanted)


def _save_loss(ctx, inputs, output) -> None:
    _, readout, *gradients = output
    ctx.mark_non_differentiable(readout, *gradients)
    ctx.save_for_backward(*gradients)
    ctx.wanted = inputs[-1]
    ctx.set_materialize_grads(False)


def _loss_backward(ctx, loss, *_):
    gradients = [None] * 3
    if loss is not None:
        found = scaled(ctx, ctx.saved_tensors, loss)
        gradients = [gradient if wanted else None for gradient, wanted in zip(found, ctx.wanted, strict=True)]
    return *gradients, *[None] * 12


linear_cross_entropy = differentiable(linear_cross_entropy_op, _save_loss, _loss_backward, inputs=3, visible=2)


@torch.library.custom_op("twohot::linear_cross_entropy_rows", mutates_args=())
def linear_cross_entropy_rows_op(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
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
    """float32 loss [R] of each row, with gradients (which compute the logits again), and readout [R] or [0]."""
    rows = hidden.shape[0] * hidden.shape[1]
    loss = hidden.new_empty(rows, dtype=torch.float32)
    readout = hidden.new_empty(rows if with_readout else 0, dtype=torch.float32)
    support = (low, high, transform, readout_kind)
    outputs = {"loss": loss, "readout": readout if with_readout else None}
    _fill(hidden, weight, bias, target, mask, None, 1.0, support, labels, sigma, [False] * 3, **outputs)
    return loss, readout


@linear_cross_entropy_rows_op.register_fake
def _(hidden, weight, bias, target, mask, low, high, transform, readout_kind, labels, sigma, with_readout):
    rows = hidden.shape[0] * hidden.shape[1]
    loss = hidden.new_empty(rows, dtype=torch.float32)
    return loss, hidden.new_empty(rows if with_readout else 0, dtype=torch.float32)


@torch.library.custom_op("twohot::linear_cross_entropy_rows_backward", mutates_args=())
def linear_cross_entropy_rows_backward_op(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    mask: Tensor | None,
    grad_output: Tensor,
    low: float,
    high: float,
    transform: str,
    labels: str,
    sigma: float,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of sum_r grad_output[r] loss[r] for hidden, weight and bias, [0] where not wanted."""
    support = (low, high, transform, "transformed")
    return _fill(hidden, weight, bias, target, mask, grad_output, 1.0, support, labels, sigma, wanted)


@linear_cross_entropy_rows_backward_op.register_fake
def _(hidden, weight, bias, target, mask, grad_output, low, high, transform, labels, sigma, wanted):
    return _fake_gradients(hidden, weight, wanted)


linear_cross_entropy_rows_backward = differentiated_once(linear_cross_entropy_rows_backward_op)


def _save_rows(ctx, inputs, output) -> None:
    hidden, weight, bias, target, mask, *support, _ = inputs
    ctx.save_for_backward(hidden, weight, bias, target, mask)
    ctx.support = support
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _rows_backward(ctx, loss, readout):
    gradients = [None] * 3
    if loss is not None:
        low, high, transform, _, labels, sigma = ctx.support
        wanted = list(ctx.needs_input_grad[:3])
        arguments = (*ctx.saved_tensors, loss.contiguous(), low, high, transform, labels, sigma, wanted)
        found = linear_cross_entropy_rows_backward(*arguments)
        gradients = [gradient if asked else None for gradient, asked in zip(found, wanted, strict=True)]
    return *gradients, *[None] * 9


linear_cross_entropy_rows = differentiable(linear_cross_entropy_rows_op, _save_rows, _rows_backward, inputs=3)


@torch.library.custom_op("twohot::linear_expectation", mutates_args=())
def linear_expectation(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, low: float, high: float, transform: str, readout_kind: str
) -> Tensor:
    """float32 [R] readout of a layer's logits; without gradient."""
    out = hidden.new_empty(hidden.shape[0] * hidden.shape[1], dtype=torch.float32)
    buffer = _buffer(hidden, weight.shape[1])
    for head, tile in tiles(hidden, weight.shape[1]):
        logits = _logits(buffer, hidden[head, tile], weight[head], None if bias is None else bias[head])
        first = head * hidden.shape[1] + tile.start
        fill_expectation(logits, low, high, transform, readout_kind, readout=out[first : first + logits.shape[0]])
    return out


@linear_expectation.register_fake
def _(hidden, weight, bias, low, high, transform, readout_kind):
    require_one_device(hidden, weight, bias)
    return hidden.new_empty(hidden.shape[0] * hidden.shape[1], dtype=torch.float32)
