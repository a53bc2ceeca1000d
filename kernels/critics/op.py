"""An ensemble of value classifiers, registered with torch.library: values of rows, and their loss with all gradients.

Row r is a step of the batch, a discount and an action. The first layer is linear, so that its output is a sum:
x = state[c, step_r] + table[c, entry_r] + action_r A[c], where the table holds what discounts and discrete actions
add, and A is the first layer's share of an action that is a vector. Then come leaky ReLU, `D` hidden layers and the
last one. Pieces of rows go through all of it, the two-hot operation and back while they are in the cache, so that
neither features nor logits ever exist as a whole (the idea of Hsu et al. 2024, Liger-Kernel, arXiv 2410.10989, for a
network instead of a layer).

Shapes: `C` critics, `M` steps, `T` entries, `R` rows, `E` hidden units, `A` size of an action, `N` bins. Products run
in the dtype of `weights`; biases, the table and sums are float32 (float64 for float64).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from twohot.kernels.backend import choose_two_hot
from twohot.kernels.critics import fused, layers
from twohot.kernels.two_hot import reference
from twohot.kernels.two_hot.op import (
    differentiable,
    empty_recycled,
    fill_expectation,
    fill_rows,
    mean_scale,
    rows_that_count,
    scaled,
)

# Numbers in one piece of features: enough for matrix products at full speed, few enough for the cache of a core.
_PIECE_ELEMENTS = 3 << 17
_PIECE_ELEMENTS_GPU = 1 << 25


class Critics(NamedTuple):
    """What the ensemble computes with."""

    state: Tensor
    """[C, M, E] a step's share of the first layer."""
    table: Tensor
    """[C, T, E]"""
    action_weight: Tensor | None
    """[C, A, E]"""
    weights: Tensor
    """[D, C, E, E] of the hidden layers, from inputs to outputs."""
    biases: Tensor
    """[D, C, E]"""
    head: Tensor
    """[C, E, N]"""
    head_bias: Tensor
    """[C, N]"""


class Rows(NamedTuple):
    """Which rows are computed."""

    step: Tensor
    """[R] int64 in 0 .. M - 1."""
    entry: Tensor
    """[R] int64 in 0 .. T - 1."""
    action: Tensor | None
    """[R, A]"""


class _Buffers:
    """Memory of one piece: the outputs of the first and of the hidden layers, logits, and a gradient's two."""

    def __init__(self, critics: Critics, rows: int, gradients: bool) -> None:
        width, bins = critics.head.shape[1:]
        most = _PIECE_ELEMENTS if critics.head.is_cpu else _PIECE_ELEMENTS_GPU
        pieces = max(-(-rows * width // most), 1)
        self.rows = max(-(-rows // pieces), 1)
        depth = critics.weights.shape[0] + 1
        self.features = [critics.head.new_empty(self.rows, width) for _ in range(depth if gradients else min(depth, 2))]
        self.logits = critics.head.new_empty(self.rows, bins)
        self.gradients = [critics.head.new_empty(self.rows, width) for _ in range(min(depth, 2) if gradients else 0)]

    def pieces(self, rows: int) -> Iterator[slice]:
        for start in range(0, rows, self.rows):
            yield slice(start, min(rows, start + self.rows))


def _forward(critics: Critics, rows: Rows, c: int, piece: slice, buffers: _Buffers) -> tuple[list[Tensor], Tensor]:
    """Outputs of every layer but the last for a piece of critic c (as many as there are buffers), and its logits."""
    count = piece.stop - piece.start
    features = [buffer[:count] for buffer in buffers.features]
    x = features[0]
    if rows.action is not None:
        torch.mm(rows.action[piece], critics.action_weight[c], out=x)
    layers.first(x, critics.state[c], critics.table[c], rows.step[piece], rows.entry[piece], rows.action is not None)
    for depth, (weight, bias) in enumerate(zip(critics.weights[:, c], critics.biases[:, c], strict=True), start=1):
        y = features[depth % len(features)]
        torch.mm(x, weight, out=y)
        layers.hidden(y, bias)
        x = y
    logits = torch.mm(x, critics.head[c], out=buffers.logits[:count])
    layers.hidden(logits, critics.head_bias[c], layers.LINEAR)
    return features, logits


def _two_hot(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    scale: float | Tensor,
    support: tuple[float, float, str, bool],
    sigma: float,
    loss: Tensor,
    readout: Tensor,
) -> None:
    """Fill loss [P] and readout [P], and overwrite logits [P, N] by their gradient times `scale`."""
    low, high, transform, raw = support
    if choose_two_hot(logits.device, logits.dtype, logits.shape[1]).name != "reference":
        fill_rows(logits, target, mask, None, scale, *support, sigma, loss=loss, readout=readout, gradient=logits)
        return
    labelled = (target, low, high, logits.shape[1], transform)
    labels = reference.hl_gauss(*labelled, sigma) if sigma > 0 else reference.two_hot(*labelled, raw=sigma < 0)
    counts = torch.ones_like(target) if mask is None else mask.to(target.dtype)
    wide = logits.to(target.dtype)
    loss.copy_(reference.cross_entropy(wide, labels) * counts)
    readout.copy_(reference.bin_expectation(wide, low, high, transform, "raw" if raw else "transformed") * counts)
    logits.copy_((wide.softmax(-1) - labels) * (counts * scale).unsqueeze(-1))


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
    raw: bool,
    sigma: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean cross-entropy of all critics' rows with two-hot or HL-Gauss labels, with all gradients found on the way.

    Args:
        state, table, action_weight, weights, biases, head, head_bias: as `Critics`. step, entry, action: as `Rows`.
        target: [R] of the dtype of `biases`, in units of the return. mask: [R] bool, True where a row counts.
        low, high, transform, raw, sigma: the support and its labels, as in `twohot.kernels.two_hot.op`.

    Returns:
        The loss [], with gradients; the readout [C, R], 0 where a row does not count; then the gradients of the first
        seven arguments ([0] where there is none).
    """
    critics = Critics(state, table, action_weight, weights, biases, head, head_bias)
    rows = Rows(step, entry, action)
    count, wide = step.shape[0], biases.dtype
    scale = mean_scale(rows_that_count(mask, count, count) * state.shape[0])
    loss, readout = (torch.empty(state.shape[0], count, dtype=wide, device=state.device) for _ in range(2))
    support = (low, high, transform, raw)
    of_state = empty_recycled((state.shape[1], state.shape[0], state.shape[2]), biases).zero_().transpose(0, 1)
    others = (None if x is None else x.new_zeros(x.shape, dtype=wide) for x in critics[1:])
    gradients = Critics(of_state, *others)
    if fused.runs(critics):
        outputs = {"loss": loss, "readout": readout, "gradients": gradients}
        fused.fill_cross_entropy(critics, rows, target, mask, scale, support, sigma, **outputs)
    else:
        _fill_cross_entropy(critics, rows, target, mask, scale, support, sigma, loss, readout, gradients)
    return loss.sum() * scale, readout, *_of_dtypes(gradients, critics)


def _fill_cross_entropy(
    critics: Critics,
    rows: Rows,
    target: Tensor,
    mask: Tensor | None,
    scale: float | Tensor,
    support: tuple[float, float, str, bool],
    sigma: float,
    loss: Tensor,
    readout: Tensor,
    gradients: Critics,
) -> None:
    """As `fused.fill_cross_entropy`, by products of torch."""
    buffers = _Buffers(critics, target.shape[0], gradients=True)
    for c in range(critics.state.shape[0]):
        for piece in buffers.pieces(target.shape[0]):
            features, g = _forward(critics, rows, c, piece, buffers)
            own = None if mask is None else mask[piece]
            _two_hot(g, target[piece], own, scale, support, sigma, loss[c, piece], readout[c, piece])
            x = features[-1]
            _add_product(gradients.head[c], x, g)
            layers.hidden_backward(g, g, gradients.head_bias[c], layers.LINEAR)
            g = torch.mm(g, critics.head[c].t(), out=buffers.gradients[0][: len(x)])
            for depth in range(len(features) - 1, 0, -1):
                layers.hidden_backward(g, features[depth], gradients.biases[depth - 1, c])
                _add_product(gradients.weights[depth - 1, c], features[depth - 1], g)
                other = buffers.gradients[(len(features) - depth) % 2][: len(x)]
                g = torch.mm(g, critics.weights[depth - 1, c].t(), out=other)
            places = rows.step[piece], rows.entry[piece]
            layers.first_backward(g, features[0], *places, gradients.state[c], gradients.table[c])
            if gradients.action_weight is not None:
                _add_product(gradients.action_weight[c], rows.action[piece], g)


def _add_product(total: Tensor, x: Tensor, g: Tensor) -> None:
    """total += x^T g; half-precision products are summed in float32."""
    if total.dtype == g.dtype:
        total.addmm_(x.t(), g)
    else:
        total += torch.mm(x.t(), g)


def _of_dtypes(gradients: Critics, critics: Critics) -> list[Tensor]:
    empty = critics.state.new_empty(0)
    return [empty if x is None else x.to(like.dtype) for x, like in zip(gradients, critics, strict=True)]


@critics_cross_entropy.register_fake
def _(state, table, action_weight, weights, biases, head, head_bias, step, *_):
    of_state = state.new_empty(state.shape[1], state.shape[0], state.shape[2]).transpose(0, 1)
    others = (table, action_weight, weights, biases, head, head_bias)
    gradients = [state.new_empty(0) if x is None else torch.empty_like(x) for x in others]
    return biases.new_empty(()), biases.new_empty(state.shape[0], step.shape[0]), of_state, *gradients


def _save(ctx, inputs, output) -> None:
    _, readout, *gradients = output
    ctx.mark_non_differentiable(readout, *gradients)
    ctx.save_for_backward(*gradients)
    ctx.with_action = inputs[2] is not None
    ctx.set_materialize_grads(False)


def _backward(ctx, loss, *_):
    gradients = [None] * 7
    if loss is not None:
        gradients = scaled(ctx, loss)
        gradients[2] = gradients[2] if ctx.with_action else None
    return *gradients, *[None] * 10


cross_entropy = differentiable(critics_cross_entropy, _save, _backward, inputs=7, visible=2)


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
    raw: bool,
) -> Tensor:
    """Readout [C, R] of all critics' rows, without gradient; arguments as `critics_cross_entropy`."""
    critics = Critics(state, table, action_weight, weights, biases, head, head_bias)
    rows = Rows(step, entry, action)
    readout = torch.empty(state.shape[0], step.shape[0], dtype=biases.dtype, device=state.device)
    if fused.runs(critics):
        fused.fill_expectation(critics, rows, (low, high, transform, raw), readout=readout)
        return readout
    buffers = _Buffers(critics, step.shape[0], gradients=False)
    plain = choose_two_hot(head.device, head.dtype, head.shape[2]).name == "reference"
    for c in range(state.shape[0]):
        for piece in buffers.pieces(step.shape[0]):
            _, logits = _forward(critics, rows, c, piece, buffers)
            if plain:
                kind = "raw" if raw else "transformed"
                readout[c, piece] = reference.bin_expectation(logits.to(readout.dtype), low, high, transform, kind)
            else:
                fill_expectation(logits, low, high, transform, raw, readout=readout[c, piece])
    return readout


@critics_expectation.register_fake
def _(state, table, action_weight, weights, biases, head, head_bias, step, *_):
    return biases.new_empty(state.shape[0], step.shape[0])
