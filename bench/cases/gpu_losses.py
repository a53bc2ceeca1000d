"""The value losses on a GPU, beside plain PyTorch, torch.compile and a copy of the logits; and the fused last layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from bench.baselines import losses as baselines
from bench.baselines.packages import installed_version
from bench.harness.compare import NOT_INSTALLED
from bench.harness.gpu_timing import Case, Work
from twohot import losses
from twohot.losses import ValueBins

CRITICS, TARGETS, BINS, WIDTH = 4, 43008, 128, 256
DTYPES = (torch.float32, torch.bfloat16)
TOLERANCES = {
    torch.float32: 1e-4,
    torch.bfloat16: 0.1,
}  # bfloat16: plain PyTorch rounds probabilities, which symexp enlarges


def differentiated(
    logits: Tensor, compute: Callable[..., tuple[Tensor, ...]], *others
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, readout and gradient."""
    loss, readout = compute(logits, *others)
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach().float(), readout.detach().float(), gradient


def loss_works(dtype: torch.dtype, targets: int, kind: str, device: str) -> dict[str, Work | str]:
    """Loss, gradient and readout of each provider for C x `targets` rows; kind: "two_hot" or "hl_gauss"."""
    bins = ValueBins.amago2(BINS)
    target = 1000 * torch.randn(targets, device=device)
    logits = torch.randn(CRITICS, targets, BINS, device=device).to(dtype).requires_grad_()
    buffer, centers = torch.empty_like(logits), bins.centers(device=device)
    ours = losses.two_hot_cross_entropy if kind == "two_hot" else losses.hl_gauss_cross_entropy
    works: dict[str, Work | str] = {
        "copy of the logits": lambda: buffer.copy_(logits.detach()),
        "twohot": partial(differentiated, logits, partial(ours, bins=bins, return_readout=True), target),
    }
    if kind == "two_hot":
        compiled = torch.compile(baselines.plain, fullgraph=True, dynamic=False)
        works["plain PyTorch"] = partial(differentiated, logits, baselines.plain, target, centers)
        works["torch.compile"] = partial(differentiated, logits, compiled, target, centers)
        if device == "cpu":
            works["torch.compile"] = "no GPU"  # compiling for a CPU takes a minute, and tells nothing
    return works


def layer_works(dtype: torch.dtype, targets: int, device: str) -> dict[str, Work | str]:
    """The last layer with the two-hot loss, and both gradients."""
    bins, target = ValueBins.amago2(BINS), 1000 * torch.randn(targets, device=device)
    hidden = torch.randn(CRITICS, targets, WIDTH, device=device).to(dtype).requires_grad_()
    weight = (torch.randn(CRITICS, BINS, WIDTH, device=device) / WIDTH**0.5).to(dtype).requires_grad_()
    h, w = hidden.detach(), weight.detach()

    def products() -> None:
        logits = h @ w.mT
        _, _ = logits @ w, logits.mT @ h

    def fused() -> tuple[Tensor | None, ...]:
        loss = losses.linear_two_hot_cross_entropy(hidden, weight, None, target, bins)
        return loss.detach().float(), None, *torch.autograd.grad(loss, (hidden, weight))

    def unfused() -> tuple[Tensor | None, ...]:
        loss = losses.two_hot_cross_entropy(hidden @ weight.mT, target, bins)
        return loss.detach().float(), None, *torch.autograd.grad(loss, (hidden, weight))

    works: dict[str, Work | str] = {
        "three matrix products": products,
        "twohot": fused,
        "twohot after the layer": unfused,
    }
    works["Liger, a class for each row"] = _liger(h, w, device)
    return works


def _liger(hidden: Tensor, weight: Tensor, device: str) -> Work | str:
    """Its fused layer has labels of one class, so its loss is another one: the work is alike."""
    if installed_version("liger-kernel") is None:
        return NOT_INSTALLED
    if device == "cpu":
        return "no GPU"
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss()
    label = torch.randint(BINS, hidden.shape[1:2], device=device)
    inputs = [x.clone().requires_grad_() for x in (*hidden.unbind(), *weight.unbind())]

    def work() -> None:
        heads = zip(inputs[:CRITICS], inputs[CRITICS:], strict=True)
        torch.autograd.grad(sum(loss(w, h, label) for h, w in heads), inputs)

    return work


def cases(tiny: bool) -> list[Case]:
    """Losses, then the fused layer, in each dtype."""
    targets = 70 if tiny else TARGETS
    found = []
    for dtype in DTYPES:
        moved = 2 * CRITICS * targets * BINS * dtype.itemsize / 1e6  # MB, which a millisecond moves as GB/s
        shape, own = f"{CRITICS * targets} rows x {BINS} bins, {dtype}", {"tolerance": TOLERANCES[dtype]}
        own |= {"limit": "copy of the logits", "amount": moved, "rate_unit": "GB/s"}
        for kind, name in (("two_hot", "two-hot"), ("hl_gauss", "HL-Gauss")):
            build = partial(loss_works, dtype, targets, kind)
            found.append(Case(f"{name}: loss, gradient, readout", shape, build, seconds=25, **own))
    for dtype in DTYPES:
        flops = 6 * CRITICS * targets * BINS * WIDTH / 1e9  # GFLOP, which a millisecond does as TFLOP/s
        shape = f"{CRITICS} x {targets} rows x {WIDTH} to {BINS} bins, {dtype}"
        build, own = partial(layer_works, dtype, targets), {"amount": flops, "rate_unit": "TFLOP/s"}
        own |= {"limit": "three matrix products", "tolerance": TOLERANCES[dtype]}
        found.append(Case("last layer and two-hot loss", shape, build, **own))
    return found
