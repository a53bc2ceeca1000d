"""The operations of `op.py` by products of torch, in pieces of rows: for GPUs, and for dtypes of no native code."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from twohot.kernels.backend import choose_two_hot
from twohot.kernels.critics import layers
from twohot.kernels.critics.ensemble import Critics, Rows
from twohot.kernels.two_hot import reference
from twohot.kernels.two_hot.op import fill_expectation, fill_rows

# Numbers in one piece of features: enough for matrix products at full speed, few enough for the cache of a core.
_PIECE_ELEMENTS = 3 << 17
_PIECE_ELEMENTS_GPU = 1 << 25


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


def two_hot_loss(
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
    """Add all gradients; `finish` overwrites the logits of a critic's piece by their gradient."""
    count = rows.step.shape[0]
    buffers = _Buffers(critics, count, gradients=True)
    for c in range(critics.state.shape[0]):
        for piece in buffers.pieces(count):
            features, g = _forward(critics, rows, c, piece, buffers)
            finish(g, c, piece)
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


def fill_readout(critics: Critics, rows: Rows, support: tuple[float, float, str, bool], *, readout: Tensor) -> None:
    """As `fused.fill_expectation`."""
    low, high, transform, raw = support
    plain = choose_two_hot(critics.head.device, critics.head.dtype, critics.head.shape[2]).name == "reference"
    kind = "raw" if raw else "transformed"
    for logits, c, piece in _logits(critics, rows):
        if plain:
            readout[c, piece] = reference.bin_expectation(logits.to(readout.dtype), low, high, transform, kind)
        else:
            fill_expectation(logits, *support, readout=readout[c, piece])


def fill_output(critics: Critics, rows: Rows, *, output: Tensor) -> None:
    """As `fused.fill_output`."""
    for logits, c, piece in _logits(critics, rows):
        output[c, piece] = logits.squeeze(-1)


def _logits(critics: Critics, rows: Rows) -> Iterator[tuple[Tensor, int, slice]]:
    buffers = _Buffers(critics, rows.step.shape[0], gradients=False)
    for c in range(critics.state.shape[0]):
        for piece in buffers.pieces(rows.step.shape[0]):
            yield _forward(critics, rows, c, piece, buffers)[1], c, piece
