"""Providers in the comparisons of the losses: the same work by twohot, by the baselines, and the least that it takes.

Each function makes them, by their names in the CSV, for 1 / batch_divisor of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from bench.baselines import losses as baselines
from bench.baselines.packages import installed_version
from bench.harness.compare import Provider, Result
from bench.harness.empty_op import empty_twin
from twohot import losses
from twohot.losses import ValueBins

CRITICS, SEQUENCES, STEPS, DISCOUNTS, BINS, WIDTH = 4, 24, 256, 7, 128, 256
SIGMA = 0.75
COPIES = ("copy of the logits, reused output", "copy of the logits, fresh output")
PRODUCTS = ("three matrix products, reused outputs", "three matrix products, fresh outputs")


def inputs(batch_divisor: int) -> tuple[Tensor, Tensor]:
    """Logits [C, T, N] of order 1 that want a gradient, and targets [T] of order 1000 that the C critics share."""
    count = SEQUENCES * max(STEPS // batch_divisor, 1) * DISCOUNTS
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
    """A result whose readout and gradients, leading dimensions [C, T], are laid out as a baseline's."""
    return result[0], *(None if tensor is None else change(tensor) for tensor in result[1:])


def copies(logits: Tensor) -> dict[str, Provider]:
    """Copies of the logits: what any way must do that reads them once and writes their gradient once."""
    source, buffer = logits.detach(), torch.zeros_like(logits)

    def reused() -> Result:
        buffer.copy_(source)
        return ()

    def fresh() -> Result:
        return None, None, source.clone()

    return dict(zip(COPIES, (Provider(reused), Provider(fresh)), strict=True))


def two_hot(batch_divisor: int) -> dict[str, Provider]:
    """Two-hot loss, gradient and readout."""
    bins, linear = ValueBins.amago2(BINS), ValueBins.c51(-10, 10, BINS)
    logits, target = inputs(batch_divisor)
    centers, values = bins.centers(), linear.values()
    # [B, L, C, G, N] and [B, L, 1, G], as its agent holds them
    own = logits.detach().unflatten(1, (SEQUENCES, -1, DISCOUNTS)).permute(1, 2, 0, 3, 4).contiguous().requires_grad_()
    own_target = target.unflatten(0, (SEQUENCES, -1, 1, DISCOUNTS))
    flat = logits.detach().flatten(0, 1).requires_grad_()
    flat_target = target.expand(CRITICS, -1).flatten()
    torch.compiler.reset()
    compiled = torch.compile(baselines.plain, fullgraph=True, dynamic=False)
    by_hand = torch.compile(baselines.plain_with_gradient, fullgraph=True, dynamic=False)

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

    torchrl = installed_version("torchrl")
    return {
        **copies(logits),
        "twohot": Provider(ours),
        "official AMAGO chain, in our lines": Provider(
            lambda: differentiated(baselines.amago, (own,), own_target, centers), as_official
        ),
        f"torchrl {torchrl or ''}".strip(): Provider(
            torchrl and (lambda: differentiated(baselines.torchrl, (flat,), flat_target / 100, values)),
            lambda: as_rows(linear, target / 100),
        ),
        "DreamerV3-torch distribution, in our lines": Provider(
            lambda: differentiated(baselines.dreamer, (flat,), flat_target, centers), as_rows
        ),
        "plain PyTorch": Provider(lambda: differentiated(baselines.plain, (logits,), target, centers), ours),
        "torch.compile": Provider(lambda: differentiated(compiled, (logits,), target, centers), ours),
        "torch.compile, gradient by hand": Provider(without_autograd, ours),
    }


def hl_gauss(batch_divisor: int) -> dict[str, Provider]:
    """HL-Gauss loss and gradient, symlog bins with the outer edges -100 000 and 100 000."""
    bins = ValueBins.from_edges(-100_000.0, 100_000.0, BINS, transform="symlog")
    logits, target = inputs(batch_divisor)
    flat, flat_target = logits.detach().flatten(0, 1).requires_grad_(), target.expand(CRITICS, -1).flatten()
    installed = installed_version("hl-gauss-pytorch")
    module = baselines.hl_gauss_pytorch(-100_000.0, 100_000.0, BINS, SIGMA) if installed else None

    def ours() -> Result:
        return differentiated(lambda logits: losses.hl_gauss_cross_entropy(logits, target, bins, SIGMA), (logits,))

    def plain(logits: Tensor) -> Tensor:
        labels = losses.hl_gauss(target, bins, SIGMA)
        return -(labels * logits.log_softmax(-1)).sum(-1).mean()

    return {
        **copies(logits),
        "twohot": Provider(ours),
        f"hl-gauss-pytorch {installed or ''}".strip(): Provider(
            module and (lambda: differentiated(module, (flat,), flat_target)),
            lambda: reshaped(ours(), lambda tensor: tensor.flatten(0, 1)),
        ),
        "plain PyTorch": Provider(lambda: differentiated(plain, (logits,)), ours),
    }


def linear(heads: int, batch_divisor: int) -> dict[str, Provider]:
    """The last layer with its loss and gradients, beside its three matrix products; one head, or one a critic."""
    bins = ValueBins.amago2(BINS)
    logits, target = inputs(batch_divisor)
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
        return baselines.plain(layer(*leaves), target, bins.centers())[0]

    ours = partial(differentiated, fused, leaves)
    return {
        **dict(zip(PRODUCTS, (Provider(reused), Provider(fresh)), strict=True)),
        "twohot, fused with the layer": Provider(ours),
        "twohot after the layer": Provider(partial(differentiated, unfused, leaves), ours),
        "plain PyTorch after the layer": Provider(partial(differentiated, plain, leaves), ours),
    }


def half_precision(batch_divisor: int) -> dict[str, Provider]:
    """Two-hot loss, gradient and readout in three types of logits."""
    bins = ValueBins.amago2(BINS)
    logits, target = inputs(batch_divisor)

    def ours(dtype: torch.dtype) -> Provider:
        typed = logits.detach().to(dtype).requires_grad_()
        return Provider(
            lambda: differentiated(
                lambda logits: losses.two_hot_cross_entropy(logits, target, bins, return_readout=True), (typed,)
            )
        )

    names = ("float32", "bfloat16", "float16")
    return {**copies(logits), **{f"twohot, {name}": ours(getattr(torch, name)) for name in names}}


def small(batch_divisor: int) -> dict[str, Provider]:
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
    grad_output = torch.ones_like(answer) if answer.dim() else None

    def empty_backward() -> Result:
        return torch.autograd.grad(empty_leaf(), leaf, grad_output)

    calls = max(20 // batch_divisor, 1)  # few, so that an interruption spoils few
    return {
        "empty op, forward": Provider(empty, calls=calls),
        "twohot, forward": Provider(forward, calls=calls),
        "empty op, forward and backward": Provider(empty_backward, calls=calls),
        "twohot, forward and backward": Provider(backward, calls=calls),
    }
