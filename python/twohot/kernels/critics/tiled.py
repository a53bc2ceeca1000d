"""The operations of `op.py` by products of torch, in tiles of rows: for GPUs, and for dtypes of no native code.

A tile holds `P` rows of `E` features of one critic. Row r reads step `step[r]` and entry `entry[r]` of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from twohot.kernels.activation import LEAKY_RELU_SLOPE
from twohot.kernels.backend import choose_two_hot
from twohot.kernels.critics.types import Critics, Rows
from twohot.kernels.row_tiles import row_tiles, tile_size
from twohot.kernels.two_hot import op, reference
from twohot.kernels.two_hot.reference import Support

# Numbers in one tile of features: enough for matrix products at full speed, few enough for the cache of a core.
_TILE_ELEMENTS = 3 << 17
_TILE_ELEMENTS_GPU = 1 << 25
_LINEAR = 1.0
"""The slope of a layer without leaky ReLU."""


def _first_layer(out: Tensor, state: Tensor, table: Tensor, step: Tensor, entry: Tensor, add: bool) -> None:
    """out[r] = leaky_relu(state[step[r]] + table[entry[r]] (+ out[r])).

    Args:
        out: [P, E]. state: [M, E]. table: [T, E]. step, entry: [P] int64.
        add: whether `out` holds a part of the sum already.
    """
    x = state[step] + table[entry]
    out.copy_(functional.leaky_relu(x + out if add else x, LEAKY_RELU_SLOPE))


def _hidden_layer(x: Tensor, bias: Tensor, slope: float = LEAKY_RELU_SLOPE) -> None:
    """x[r] = leaky_relu(x[r] + bias) for x [P, E], bias [E]."""
    x.add_(bias)
    if slope != _LINEAR:
        functional.leaky_relu(x, slope, inplace=True)


def _hidden_backward(gradient: Tensor, output: Tensor, grad_bias: Tensor, slope: float = LEAKY_RELU_SLOPE) -> None:
    """The derivative of leaky_relu(x + bias) by its output: `gradient` [P, E] in place, grad_bias [E] += its sum."""
    if slope != _LINEAR:
        gradient.copy_(torch.where(output > 0, gradient, slope * gradient))
    grad_bias += gradient.sum(0, dtype=grad_bias.dtype)


def _first_backward(
    gradient: Tensor, output: Tensor, step: Tensor, entry: Tensor, grad_state: Tensor, grad_table: Tensor
) -> None:
    """The derivative of `_first_layer`: `gradient` [P, E] in place, added to grad_state[step[r]], grad_table[entry[r]].

    Args:
        grad_state: [M, E] and grad_table: [T, E].
    """
    gradient.copy_(torch.where(output > 0, gradient, LEAKY_RELU_SLOPE * gradient))
    summed = gradient.to(grad_state.dtype)
    grad_state.index_add_(0, step, summed)
    grad_table.index_add_(0, entry, summed)


class _Buffers:
    """Memory of one tile: the outputs of the first and of the hidden layers, logits, and a gradient's two."""

    def __init__(self, critics: Critics, rows: int, gradients: bool) -> None:
        width, bins = critics.head.shape[1:]
        elements = _TILE_ELEMENTS if critics.head.is_cpu else _TILE_ELEMENTS_GPU
        self.rows = tile_size(rows, -(-rows * width // elements))
        depth = critics.weights.shape[0] + 1
        self.features = [critics.head.new_empty(self.rows, width) for _ in range(depth if gradients else min(depth, 2))]
        self.logits = critics.head.new_empty(self.rows, bins)
        self.gradients = [critics.head.new_empty(self.rows, width) for _ in range(min(depth, 2) if gradients else 0)]


def _forward(critics: Critics, rows: Rows, c: int, tile: slice, buffers: _Buffers) -> tuple[list[Tensor], Tensor]:
    """Outputs of every layer but the last for a tile of critic c (as many as there are buffers), and its logits."""
    count = tile.stop - tile.start
    features = [buffer[:count] for buffer in buffers.features]
    x = features[0]
    if rows.action is not None and critics.action_weight is not None:
        torch.mm(rows.action[tile], critics.action_weight[c], out=x)
    _first_layer(x, critics.state[c], critics.table[c], rows.step[tile], rows.entry[tile], rows.action is not None)
    for depth, (weight, bias) in enumerate(zip(critics.weights[:, c], critics.biases[:, c], strict=True), start=1):
        y = features[depth % len(features)]
        torch.mm(x, weight, out=y)
        _hidden_layer(y, bias)
        x = y
    logits = torch.mm(x, critics.head[c], out=buffers.logits[:count])
    _hidden_layer(logits, critics.head_bias[c], _LINEAR)
    return features, logits


def two_hot_loss(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    scale: float | Tensor,
    support: Support,
    labels: str,
    sigma: float,
    loss: Tensor,
    readout: Tensor,
) -> None:
    """Fill loss [P] and readout [P], and overwrite logits [P, N] by their gradient times `scale`."""
    low, high, transform, readout_kind = support
    if choose_two_hot(logits.device, logits.dtype, logits.shape[1]).name != "reference":
        arguments = (logits, target, mask, None, scale, *support, labels, sigma)
        op.fill_cross_entropy(*arguments, loss=loss, readout=readout, gradient=logits)
        return
    label = reference.labels_of(target, low, high, logits.shape[1], transform, labels, sigma)
    counts = torch.ones_like(target) if mask is None else mask.to(target.dtype)
    upcast = logits.to(target.dtype)
    loss.copy_(reference.cross_entropy(upcast, label) * counts)
    readout.copy_(reference.bin_expectation(upcast, low, high, transform, readout_kind) * counts)
    logits.copy_((upcast.softmax(-1) - label) * (counts * scale).unsqueeze(-1))


def squared_error(
    output: Tensor,
    target: Tensor,
    factor: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    scale: float | Tensor,
    loss: Tensor,
    value: Tensor,
) -> None:
    """Fill loss [P] and value [P], and overwrite output [P, 1] by its gradient times `scale`."""
    counts = torch.ones_like(target) if mask is None else mask.to(target.dtype)
    x = factor * output.squeeze(-1) + offset
    error = (x - target) * counts
    torch.mul(x, counts, out=value)
    torch.square(error, out=loss)
    output.copy_((2 * scale * error * factor).unsqueeze(-1))


def fill_loss(critics: Critics, rows: Rows, finish: Callable[[Tensor, int, slice], None], gradients: Critics) -> None:
    """Add all gradients; `finish` overwrites the logits of a critic's tile by their gradient."""
    count = rows.step.shape[0]
    buffers = _Buffers(critics, count, gradients=True)
    for c in range(critics.state.shape[0]):
        for tile in row_tiles(count, buffers.rows):
            features, g = _forward(critics, rows, c, tile, buffers)
            finish(g, c, tile)
            x = features[-1]
            _add_product(gradients.head[c], x, g)
            _hidden_backward(g, g, gradients.head_bias[c], _LINEAR)
            g = torch.mm(g, critics.head[c].t(), out=buffers.gradients[0][: len(x)])
            for depth in range(len(features) - 1, 0, -1):
                _hidden_backward(g, features[depth], gradients.biases[depth - 1, c])
                _add_product(gradients.weights[depth - 1, c], features[depth - 1], g)
                other = buffers.gradients[(len(features) - depth) % 2][: len(x)]
                g = torch.mm(g, critics.weights[depth - 1, c].t(), out=other)
            indices = rows.step[tile], rows.entry[tile]
            _first_backward(g, features[0], *indices, gradients.state[c], gradients.table[c])
            if gradients.action_weight is not None and rows.action is not None:
                _add_product(gradients.action_weight[c], rows.action[tile], g)


def _add_product(total: Tensor, x: Tensor, g: Tensor) -> None:
    """total += x^T g; half-precision products are summed in float32."""
    if total.dtype == g.dtype:
        total.addmm_(x.t(), g)
    else:
        total += torch.mm(x.t(), g)


def fill_expectation(critics: Critics, rows: Rows, support: Support, *, readout: Tensor) -> None:
    """As `native.fill_expectation`."""
    plain = choose_two_hot(critics.head.device, critics.head.dtype, critics.head.shape[2]).name == "reference"
    for logits, c, tile in _logits(critics, rows):
        if plain:
            readout[c, tile] = reference.bin_expectation(logits.to(readout.dtype), *support)
        else:
            op.fill_expectation(logits, *support, readout=readout[c, tile])


def fill_output(critics: Critics, rows: Rows, *, output: Tensor) -> None:
    """As `native.fill_output`."""
    for logits, c, tile in _logits(critics, rows):
        output[c, tile] = logits.squeeze(-1)


def _logits(critics: Critics, rows: Rows) -> Iterator[tuple[Tensor, int, slice]]:
    buffers = _Buffers(critics, rows.step.shape[0], gradients=False)
    for c in range(critics.state.shape[0]):
        for tile in row_tiles(rows.step.shape[0], buffers.rows):
            yield _forward(critics, rows, c, tile, buffers)[1], c, tile
