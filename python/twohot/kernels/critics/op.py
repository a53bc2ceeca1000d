"""An ensemble of critics, registered with torch.library: values of rows, and their loss with all gradients.

Row r is a step of the batch, a discount and an action. The first layer is linear, so that its output is a sum:
x = state[c, step_r] + table[c, entry_r] + action_r A[c], where the table holds what discounts and discrete actions
add, and A is the first layer's share of an action that is a vector. Then come leaky ReLU, `D` hidden layers and the
last one. Tiles of rows go through all of it, the two-hot operation and back while they are in the cache, so that
neither features nor logits ever exist as a whole (the idea of Hsu et al. 2024, Liger-Kernel, arXiv 2410.10989, for a
network instead of a layer).

Shapes: `C` critics, `M` steps, `T` entries, `R` rows, `E` hidden units, `A` size of an action, `N` bins. Products run
in the dtype of `weights`; biases, the table and sums are float32 (float64 for float64).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

import torch
from torch import Tensor

from twohot.kernels.addresses import require_one_device
from twohot.kernels.autograd import differentiable, scaled
from twohot.kernels.critics import native, tiled
from twohot.kernels.critics.types import Critics, Rows
from twohot.kernels.memory import empty_from_pool
from twohot.kernels.reduction import count_valid_rows, per_valid_row

_LossOutputs: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("twohot::critics_cross_entropy", mutates_args=())
def critics_cross_entropy(
    state: Tensor,
    table: Tensor,
    action_weight: Tensor | None,
    weights: Tensor,
    biases: Tensor,
    head: Tensor,
    head_bias: Tensor,
    step: Tensor,
    entry: Tensor,
    action: Tensor | None,
    target: Tensor,
    mask: Tensor | None,
    low: float,
    high: float,
    transform: str,
    readout_kind: str,
    labels: str,
    sigma: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean cross-entropy of all critics' rows with two-hot or HL-Gauss labels, with all gradients found on the way.

    Args:
        state, table, action_weight, weights, biases, head, head_bias: as `Critics`. step, entry, action: as `Rows`.
        target: [R] of the dtype of `biases`, in units of the return. mask: [R] bool, True where a row counts.
        low, high, transform, readout_kind, labels, sigma: support and labels, as in `twohot.kernels.two_hot.op`.

    Returns:
        The loss [], with gradients; the readout [C, R], 0 where a row does not count; then the gradients of the first
        seven arguments ([0] where there is none).
    """
    critics, rows = Critics(state, table, action_weight, weights, biases, head, head_bias), Rows(step, entry, action)
    support = (low, high, transform, readout_kind)

    def fill(scale: float | Tensor, loss: Tensor, readout: Tensor, gradients: Critics) -> None:
        def finish(logits: Tensor, c: int, tile: slice) -> None:
            own = None if mask is None else mask[tile]
            outputs = loss[c, tile], readout[c, tile]
            tiled.two_hot_loss(logits, target[tile], own, scale, support, labels, sigma, *outputs)

        if native.runs(critics):
            outputs = {"loss": loss, "readout": readout, "gradients": gradients}
            native.fill_cross_entropy(critics, rows, target, mask, scale, support, labels, sigma, **outputs)
        else:
            tiled.fill_loss(critics, rows, finish, gradients)

    return _loss(critics, rows, mask, fill)


def _loss(critics: Critics, rows: Rows, mask: Tensor | None, fill: Callable[..., None]) -> _LossOutputs:
    """What a loss returns: `fill` gets the scale of a row, the losses and values [C, R] and the gradients to fill."""
    state, accumulate_dtype, count = critics.state, critics.biases.dtype, rows.step.shape[0]
    scale = per_valid_row(count_valid_rows(mask, count, count) * state.shape[0])
    loss, value = (torch.empty(state.shape[0], count, dtype=accumulate_dtype, device=state.device) for _ in range(2))
    grad_state = (
        empty_from_pool((state.shape[1], state.shape[0], state.shape[2]), critics.biases).zero_().transpose(0, 1)
    )
    others = {name: x for name, x in critics._asdict().items() if name != "state" and x is not None}
    zeros = {name: x.new_zeros(x.shape, dtype=accumulate_dtype) for name, x in others.items()}
    gradients = critics._replace(state=grad_state, **zeros)
    fill(scale, loss, value, gradients)
    empty = state.new_empty(0)
    pairs = zip(gradients, critics, strict=True)
    typed = (empty if x is None or like is None else x.to(like.dtype) for x, like in pairs)
    return cast("_LossOutputs", (loss.sum() * scale, value, *typed))


def _loss_fake(state, table, action_weight, weights, biases, head, head_bias, step, *rest):
    require_one_device(state, table, action_weight, weights, biases, head, head_bias, step, *rest)
    grad_state = state.new_empty(state.shape[1], state.shape[0], state.shape[2]).transpose(0, 1)
    others = (table, action_weight, weights, biases, head, head_bias)
    gradients = [state.new_empty(0) if x is None else x.new_empty(x.shape) for x in others]
    return biases.new_empty(()), biases.new_empty(state.shape[0], step.shape[0]), grad_state, *gradients


def _save(ctx, inputs, output) -> None:
    _, value, *gradients = output
    ctx.mark_non_differentiable(value, *gradients)
    ctx.save_for_backward(*gradients)
    ctx.with_action, ctx.others = inputs[2] is not None, len(inputs) - len(gradients)
    ctx.set_materialize_grads(False)


def _backward(ctx, loss, *_):
    gradients: list[Tensor | None] = [None] * len(Critics._fields)
    if loss is not None:
        gradients = [*scaled(ctx, ctx.saved_tensors, loss)]
        gradients[2] = gradients[2] if ctx.with_action else None
    return *gradients, *[None] * ctx.others


critics_cross_entropy.register_fake(_loss_fake)
cross_entropy = differentiable(critics_cross_entropy, _save, _backward, inputs=7, visible=2)


@torch.library.custom_op("twohot::critics_squared_error", mutates_args=())
def critics_squared_error(
    state: Tensor,
    table: Tensor,
    action_weight: Tensor | None,
    weights: Tensor,
    biases: Tensor,
    head: Tensor,
    head_bias: Tensor,
    step: Tensor,
    entry: Tensor,
    action: Tensor | None,
    target: Tensor,
    factor: Tensor,
    offset: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean of (factor x + offset - target)^2 over all critics' rows, x being the one output of a critic (N = 1).

    Args:
        target, factor, offset: [R] of the dtype of `biases`. The others: as `critics_cross_entropy`.

    Returns:
        As `critics_cross_entropy`; the values are factor x + offset.
    """
    critics, rows = Critics(state, table, action_weight, weights, biases, head, head_bias), Rows(step, entry, action)

    def fill(scale: float | Tensor, loss: Tensor, value: Tensor, gradients: Critics) -> None:
        def finish(output: Tensor, c: int, tile: slice) -> None:
            own = None if mask is None else mask[tile]
            wanted = target[tile], factor[tile], offset[tile]
            tiled.squared_error(output, *wanted, own, scale, loss[c, tile], value[c, tile])

        if native.runs(critics):
            outputs = {"loss": loss, "value": value, "gradients": gradients}
            native.fill_squared_error(critics, rows, (target, factor, offset), mask, scale, **outputs)
        else:
            tiled.fill_loss(critics, rows, finish, gradients)

    return _loss(critics, rows, mask, fill)


critics_squared_error.register_fake(_loss_fake)
squared_error = differentiable(critics_squared_error, _save, _backward, inputs=7, visible=2)


@torch.library.custom_op("twohot::critics_expectation", mutates_args=())
def critics_expectation(
    state: Tensor,
    table: Tensor,
    action_weight: Tensor | None,
    weights: Tensor,
    biases: Tensor,
    head: Tensor,
    head_bias: Tensor,
    step: Tensor,
    entry: Tensor,
    action: Tensor | None,
    low: float,
    high: float,
    transform: str,
    readout_kind: str,
) -> Tensor:
    """Readout [C, R] of all critics' rows, without gradient; arguments as `critics_cross_entropy`."""
    critics, rows = Critics(state, table, action_weight, weights, biases, head, head_bias), Rows(step, entry, action)
    readout = torch.empty(state.shape[0], step.shape[0], dtype=biases.dtype, device=state.device)
    support = (low, high, transform, readout_kind)
    (native if native.runs(critics) else tiled).fill_expectation(critics, rows, support, readout=readout)
    return readout


@torch.library.custom_op("twohot::critics_output", mutates_args=())
def critics_output(
    state: Tensor,
    table: Tensor,
    action_weight: Tensor | None,
    weights: Tensor,
    biases: Tensor,
    head: Tensor,
    head_bias: Tensor,
    step: Tensor,
    entry: Tensor,
    action: Tensor | None,
) -> Tensor:
    """The one output [C, R] of all critics' rows, without gradient; arguments as `critics_squared_error`."""
    critics, rows = Critics(state, table, action_weight, weights, biases, head, head_bias), Rows(step, entry, action)
    output = torch.empty(state.shape[0], step.shape[0], dtype=biases.dtype, device=state.device)
    (native if native.runs(critics) else tiled).fill_output(critics, rows, output=output)
    return output


def _rows_fake(state, table, action_weight, weights, biases, head, head_bias, step, *others):
    require_one_device(state, table, action_weight, weights, biases, head, head_bias, step, *others)
    return biases.new_empty(state.shape[0], step.shape[0])


critics_expectation.register_fake(_rows_fake)
critics_output.register_fake(_rows_fake)
