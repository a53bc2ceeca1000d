"""The losses on a GPU, beside plain PyTorch, torch.compile and one copy of the logits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import peers
from frame import Row, interleaved, percentiles
from twohot import losses
from twohot.losses import ValueBins

CRITICS, TARGETS, BINS, WIDTH = 4, 43008, 128, 256
ROUNDS = 30


def milliseconds(work: Callable[[], object]) -> float:
    """Milliseconds of `work` on the GPU, by its own clock, the L2 cache emptied before."""
    torch.empty(1 << 28, dtype=torch.int8, device="cuda").zero_()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def timed_rows(case: str, works: dict[str, Callable[[], object]], shape: str, floor: str) -> list[Row]:
    """A row for each work, in turn; `floor` names the one that does the least that any could."""
    figures = interleaved({name: lambda work=work: milliseconds(work) for name, work in works.items()}, ROUNDS)
    medians = {name: percentiles(values)[1] for name, values in figures.items()}
    name = torch.cuda.get_device_name()
    return [
        Row(
            case,
            provider,
            name,
            *percentiles(values),
            "ms",
            shape,
            share_of_limit=round(medians[provider] / medians[floor], 3),
            limit=floor,
            times_ours=round(medians[provider] / medians["twohot"], 3),
        )
        for provider, values in figures.items()
    ]


def losses_on_a_gpu() -> list[Row]:
    """Two-hot and HL-Gauss losses with gradient and readout, and the last layer fused with them, on a GPU."""
    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA or ROCm device is here")
    bins, target = ValueBins.amago2(BINS), 1000 * torch.randn(TARGETS, device="cuda")
    dtypes = (torch.float32, torch.bfloat16)
    return [row for dtype in dtypes for part in (_rows_of, _layer) for row in part(dtype, target, bins)]


def _rows_of(dtype: torch.dtype, target: Tensor, bins: ValueBins) -> list[Row]:
    logits = torch.randn(CRITICS, TARGETS, BINS, device="cuda", dtype=dtype).requires_grad_()
    buffer, centers = torch.empty_like(logits), bins.centers(device="cuda")
    compiled = torch.compile(peers.plain, fullgraph=True, dynamic=False)

    def differentiated(compute: Callable[..., tuple[Tensor, ...]], *others) -> None:
        torch.autograd.grad(compute(logits, target, *others)[0], logits)

    copy = {"copy of the logits": lambda: buffer.copy_(logits.detach())}
    two_hot = {
        "twohot": partial(differentiated, partial(losses.two_hot_cross_entropy, bins=bins, return_readout=True)),
        "plain PyTorch": partial(differentiated, peers.plain, centers),
        "torch.compile": partial(differentiated, compiled, centers),
    }
    hl_gauss = {
        "twohot": partial(differentiated, partial(losses.hl_gauss_cross_entropy, bins=bins, return_readout=True))
    }
    shape = f"{CRITICS * TARGETS} rows x {BINS} bins, {dtype}"
    return [
        *timed_rows("two-hot: loss, gradient, readout", {**copy, **two_hot}, shape, "copy of the logits"),
        *timed_rows("HL-Gauss: loss, gradient, readout", {**copy, **hl_gauss}, shape, "copy of the logits"),
    ]


def _layer(dtype: torch.dtype, target: Tensor, bins: ValueBins) -> list[Row]:
    hidden = torch.randn(CRITICS, TARGETS, WIDTH, device="cuda", dtype=dtype).requires_grad_()
    weight = (torch.randn(CRITICS, BINS, WIDTH, device="cuda", dtype=dtype) / WIDTH**0.5).requires_grad_()
    h, w = hidden.detach(), weight.detach()

    def products() -> None:
        logits = h @ w.mT
        _, _ = logits @ w, logits.mT @ h

    def fused() -> None:
        loss = losses.linear_two_hot_cross_entropy(hidden, weight, None, target, bins)
        torch.autograd.grad(loss, (hidden, weight))

    def unfused() -> None:
        loss = losses.two_hot_cross_entropy(hidden @ weight.mT, target, bins)
        torch.autograd.grad(loss, (hidden, weight))

    works = {"three matrix products": products, "twohot": fused, "twohot after the layer": unfused}
    shape = f"{CRITICS} x {TARGETS} rows x {WIDTH} to {BINS} bins, {dtype}"
    return timed_rows("last layer and two-hot loss", works, shape, "three matrix products")
