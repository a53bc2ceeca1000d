"""The losses on a GPU, beside plain PyTorch, torch.compile and one copy of the logits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from bench.baselines import losses as baselines
from bench.cases.gpu_attention import attention_on_a_gpu
from bench.harness.gpu_timing import timed_rows
from bench.harness.group import Group
from bench.harness.measure import Row
from twohot import losses
from twohot.losses import ValueBins

CRITICS, TARGETS, BINS, WIDTH = 4, 43008, 128, 256


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
    compiled = torch.compile(baselines.plain, fullgraph=True, dynamic=False)

    def differentiated(compute: Callable[..., tuple[Tensor, ...]], *others) -> None:
        torch.autograd.grad(compute(logits, target, *others)[0], logits)

    copy = {"copy of the logits": lambda: buffer.copy_(logits.detach())}
    two_hot = {
        "twohot": partial(differentiated, partial(losses.two_hot_cross_entropy, bins=bins, return_readout=True)),
        "plain PyTorch": partial(differentiated, baselines.plain, centers),
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

    providers = {"three matrix products": products, "twohot": fused, "twohot after the layer": unfused}
    shape = f"{CRITICS} x {TARGETS} rows x {WIDTH} to {BINS} bins, {dtype}"
    return timed_rows("last layer and two-hot loss", providers, shape, "three matrix products")


GROUP = Group(
    measures="losses and attention on a GPU",
    gates=("kernels/test_two_hot_triton.py", "kernels/test_attention_triton.py"),
    cases=(losses_on_a_gpu, attention_on_a_gpu),
    long=True,
)
