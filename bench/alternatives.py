"""Alternatives in the contests of the losses: the same work by twohot, by its peers, and the least that it takes.

Each function makes them for a divisor of the number of rows, by their names in the CSV.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

import peers
from contest import Alternative, Result
from empty_op import empty_twin
from twohot import losses
from twohot.losses import ValueBins

CRITICS, SEQUENCES, STEPS, DISCOUNTS, BINS, WIDTH = 4, 24, 256, 7, 128, 256
SIGMA = 0.75
COPIES = ("copy of the logits, reused output", "copy of the logits, fresh output")
PRODUCTS = ("three matrix products, reused outputs", "three matrix products, fresh outputs")


def inputs(divisor: int) -> tuple[Tensor, Tensor]:
    """Logits [C, T, N] of order 1 that want a gradient, and targets [T] of order 1000 that the C critics share."""
    count = SEQUENCES * max(STEPS // divisor, 1) * DISCOUNTS
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(CRITICS, count, BINS, generator=generator).requires_grad_()
    return logits, 1000 * torch.randn(count, generator=generator)


def differentiated(
    compute: Callable[..., tuple[Tensor, Tensor] | Tensor], leaves: tuple[Tensor, ...], *others
) -> Result:
    """(loss, readout or None, gradients of `leaves`) of compute(*leaves, *others)."""
    pair = compute(*leaves, *others)
    loss, readout = pair if isinstance(pair, tuple) else (pair, None)
    return loss, readout, *torch.autograd.grad(loss, leaves)


def reshaped(result: Result, change: Callable[[Tensor], Tensor]) -> Result:
    """A result whose readout and gradients, leading dimensions [C, T], are laid out as a peer's."""
    return result[0], *(None if tensor is None else change(tensor) for tensor in result[1:])


def copies(logits: Tensor) -> dict[str, Alternative]:
    """Copies of the logits: what any way must do that reads them once and writes their gradient once."""
    source, buffer = logits.detach(), torch.zeros_like(logits)

    def reused() -> Result:
        buffer.copy_(source)
        return ()

    def fresh() -> Result:
        return None, None, source.clone()

    return dict(zip(COPIES, (Alternative(reused), Alternative(fresh)), strict=True))


def two_hot(divisor: int) -> dict[str, Alternative]:
    """Two-hot loss, gradient and readout."""
    bins, linear = ValueBins.amago2(BINS), ValueBins.c51(-10, 10, BINS)
    logits, target = inputs(divisor)
    centers, values = bins.centers(), linear.values()
    # [B, L, C, G, N] and [B, L, 1, G], as its agent holds them
    own = logits.detach().unflatten(1, (SEQUENCES, -1, DISCOUNTS)).permute(1, 2, 0, 3, 4).contiguous().requires_grad_()
    own_target = target.unflatten(0, (SEQUENCES, -1, 1, DISCOUNTS))
    flat = logits.detach().flatten(0, 1).requires_grad_()
    flat_target = target.expand(CRITICS, -1).flatten()
    torch.compiler.reset()
    compiled = torch.compile(peers.plain, fullgraph=True, dynamic=False)
    by_hand = torch.compile(peers.plain_with_gradient, fullgraph=True, dynamic=False)

    def ours(bins: ValueBins = bins, target: Tensor = target) -> Result:
        return differentiated(
            lambda logits: losses.two_hot_cross_entropy(logits, target, bins, return_readout=True), (logits,)
        )

    def as_official() -> Result:
        return reshaped(ours(), lambda tensor: tensor.unflatten(1, (SEQUENCES, -1, DISCOUNTS)).movedim(0, 2))

    def as_rows(bins: ValueBins = bins, target: Tensor = target) -> Result:
        return reshaped(ours(bins, target), lambda tensor: tensor.flatten(0, 1))

    def without_autograd() -> Result:
        with torch.no_grad():
            return by_hand(logits, target, centers)

    torchrl = peers.release("torchrl")
    return {
        **copies(logits),
        "twohot": Alternative(ours),
        "official AMAGO chain, in our lines": Alternative(
            lambda: differentiated(peers.amago, (own,), own_target, centers), as_official
        ),
        f"torchrl {torchrl or ''}".strip(): Alternative(
            torchrl and (lambda: differentiated(peers.torchrl, (flat,), flat_target / 100, values)),
            lambda: as_rows(linear, target / 100),
        ),
        "DreamerV3-torch distribution, in our lines": Alternative(
            lambda: differentiated(peers.dreamer, (flat,), flat_target, centers), as_rows
        ),
        "plain PyTorch": Alternative(lambda: differentiated(peers.plain, (logits,), target, centers), ours),
        "torch.compile": Alternative(lambda: differentiated(compiled, (logits,), target, centers), ours),
        "torch.compile, gradient by hand": Alternative(without_autograd, ours),
    }


def hl_gauss(divisor: int) -> dict[str, Alternative]:
    """HL-Gauss loss and gradient, symlog bins with the outer edges -100 000 and 100 000."""
    bins = ValueBins.from_edges(-100_000.0, 100_000.0, BINS, transform="symlog")
    logits, target = inputs(divisor)
    flat, flat_target = logits.detach().flatten(0, 1).requires_grad_(), target.expand(CRITICS, -1).flatten()
    installed = peers.release("hl-gauss-pytorch")
    module = peers.hl_gauss_pytorch(-100_000.0, 100_000.0, BINS, SIGMA) if installed else None

    def ours() -> Result:
        return differentiated(lambda logits: losses.hl_gauss_cross_entropy(logits, target, bins, SIGMA), (logits,))

    def plain(logits: Tensor) -> Tensor:
        labels = losses.hl_gauss(target, bins, SIGMA)
        return -(labels * logits.log_softmax(-1)).sum(-1).mean()

    return {
        **copies(logits),
        "twohot": Alternative(ours),
        f"hl-gauss-pytorch {installed or ''}".strip(): Alternative(
            module and (lambda: differentiated(module, (flat,), flat_target)),
            lambda: reshaped(ours(), lambda tensor: tensor.flatten(0, 1)),
        ),
        "plain PyTorch": Alternative(lambda: differentiated(plain, (logits,)), ours),
    }


def linear(heads: int, divisor: int) -> dict[str, Alternative]:
    """The last layer with its loss and gradients, beside its three matrix products; one head, or one a critic."""
    bins = ValueBins.amago2(BINS)
    logits, target = inputs(divisor)
    logits = logits.detach() if heads > 1 else logits.detach().flatten(0, 1)
    target = target if heads > 1 else target.expand(CRITICS, -1).flatten()
    batch = logits.shape[:-2]  # [C], or []
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(*logits.shape[:-1], WIDTH, generator=generator).requires_grad_()
    weight = (torch.randn(*batch, BINS, WIDTH, generator=generator) / WIDTH**0.5).requires_grad_()
    bias = torch.randn(*batch, BINS, generator=generator).requires_grad_()
    leaves = (hidden, weight, bias)
    # gradients of the logits have the shape of logits and, for time, any values
    triples = [
        (hidden.detach(), weight.detach().mT, logits),
        (logits, weight.detach(), torch.zeros_like(hidden)),
        (logits.mT, hidden.detach(), torch.zeros_like(weight)),
    ]
    outputs = [torch.zeros_like(logits), *(output for *_, output in triples[1:])]

    def reused() -> Result:
        for (left, right, _), output in zip(triples, outputs, strict=True):
            torch.matmul(left, right, out=output)
        return ()

    def fresh() -> Result:
        torch.matmul(*triples[0][:2])
        return None, None, *(torch.matmul(left, right) for left, right, _ in triples[1:])

    def fused(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return losses.linear_two_hot_cross_entropy(hidden, weight, bias, target, bins)

    def layer(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if heads == 1:
            return functional.linear(hidden, weight, bias)
        return torch.baddbmm(bias.unsqueeze(-2), hidden, weight.mT)

    def unfused(*leaves: Tensor) -> Tensor:
        return losses.two_hot_cross_entropy(layer(*leaves), target, bins)

    def plain(*leaves: Tensor) -> Tensor:
        return peers.plain(layer(*leaves), target, bins.centers())[0]

    ours = partial(differentiated, fused, leaves)
    return {
        **dict(zip(PRODUCTS, (Alternative(reused), Alternative(fresh)), strict=True)),
        "twohot, fused with the layer": Alternative(ours),
        "twohot after the layer": Alternative(partial(differentiated, unfused, leaves), ours),
        "plain PyTorch after the layer": Alternative(partial(differentiated, plain, leaves), ours),
    }


def half_precision(divisor: int) -> dict[str, Alternative]:
    """Two-hot loss, gradient and readout in three types of logits."""
    bins = ValueBins.amago2(BINS)
    logits, target = inputs(divisor)

    def ours(dtype: torch.dtype) -> Alternative:
        typed = logits.detach().to(dtype).requires_grad_()
        return Alternative(
            lambda: differentiated(
                lambda logits: losses.two_hot_cross_entropy(logits, target, bins, return_readout=True), (typed,)
            )
        )

    names = ("float32", "bfloat16", "float16")
    return {**copies(logits), **{f"twohot, {name}": ours(getattr(torch, name)) for name in names}}


def small(divisor: int) -> dict[str, Alternative]:
    """Two-hot loss of 32 rows, alone and with its gradient, beside a registered op that does nothing."""
    bins = ValueBins.amago2(BINS)
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(32, BINS, generator=generator), torch.randn(32, generator=generator)
    leaf = logits.clone().requires_grad_()

    def forward(logits: Tensor = logits) -> Result:
        return losses.two_hot_cross_entropy(logits, target, bins), None

    def backward() -> Result:
        return differentiated(lambda logits: forward(logits)[0], (leaf,))

    empty = empty_twin(forward, logits)
    empty_leaf = empty_twin(lambda: forward(leaf), leaf)
    answer = empty_leaf().detach()
    upstream = torch.ones_like(answer) if answer.dim() else None

    def empty_backward() -> Result:
        return torch.autograd.grad(empty_leaf(), leaf, upstream)

    calls = max(20 // divisor, 1)  # few, so that an interruption spoils few
    return {
        "empty op, forward": Alternative(empty, calls=calls),
        "twohot, forward": Alternative(forward, calls=calls),
        "empty op, forward and backward": Alternative(empty_backward, calls=calls),
        "twohot, forward and backward": Alternative(backward, calls=calls),
    }
