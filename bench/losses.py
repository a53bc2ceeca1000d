"""Cases of the two-hot losses."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from frame import Row, interleaved, percentiles
from twohot.kernels.two_hot import op, reference
from twohot.losses import ValueBins, two_hot_cross_entropy

CRITICS, SEQUENCES, STEPS, DISCOUNTS, BINS = 4, 24, 256, 7, 128


def dense_chain(logits: Tensor, target: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and readout through dense tensors, in the manner of AMAGO-2's code: a comparison with all bins, two one-hot
    tensors, a cross-entropy with the dense label, and a categorical distribution for the readout.

    These lines are ours and do a little less than the official ones, which compare twice.
    """
    x = reference.symlog(target)
    upper = (x.unsqueeze(-1) >= centers).sum(-1).clamp(1, len(centers) - 1)
    share = ((x - centers[upper - 1]) / (centers[upper] - centers[upper - 1])).clamp(0, 1).unsqueeze(-1)
    one_hot = [functional.one_hot(index, len(centers)) for index in (upper - 1, upper)]
    label = torch.lerp(one_hot[0].to(share.dtype), one_hot[1].to(share.dtype), share).expand_as(logits)
    loss = functional.cross_entropy(logits.flatten(0, -2), label.flatten(0, -2))
    with torch.no_grad():
        distribution = torch.distributions.Categorical(logits=logits, validate_args=False)
        readout = reference.symexp((distribution.probs * centers).sum(-1))
    return loss, readout


def two_hot_milliseconds() -> list[Row]:
    """Two-hot loss, gradient and readout of 172 032 rows of 128 float32 logits, a target shared by the critics; ms."""
    bins = ValueBins.amago2(BINS)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(CRITICS, SEQUENCES, STEPS, DISCOUNTS, BINS, generator=generator).requires_grad_()
    target = 1000 * torch.randn(SEQUENCES, STEPS, DISCOUNTS, generator=generator)
    centers, copy = bins.centers(), torch.empty_like(logits)
    low, high = bins.transformed_ends
    rows = logits.flatten(0, -2)

    def copied() -> None:
        with torch.no_grad():
            copy.copy_(logits)

    def native() -> None:
        position = reference.position(target, low, high, BINS, "symlog").flatten()
        loss, _, _, readout = op.two_hot_rows(rows, position, None, centers, True)
        reference.symexp(readout.detach())
        torch.autograd.grad(loss.mean(), logits)

    def native_loss_only() -> None:
        torch.autograd.grad(two_hot_cross_entropy(logits, target, bins), logits)

    def plain() -> None:
        labels = reference.two_hot(target, low, high, BINS, "symlog")
        loss = reference.cross_entropy(logits, labels).mean()
        with torch.no_grad():
            reference.bin_expectation(logits, low, high, "symlog", "transformed")
        torch.autograd.grad(loss, logits)

    def dense() -> None:
        loss, _ = dense_chain(logits, target, centers)
        torch.autograd.grad(loss, logits)

    def timed(work: Callable[[], None]) -> float:
        start = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - start)

    works = {
        "copy of the logits": copied,
        "twohot, native: loss, gradient, readout": native,
        "twohot, native: loss, gradient": native_loss_only,
        "twohot, plain PyTorch reference": plain,
        "dense labels, in AMAGO-2's manner": dense,
    }
    result = []
    shape = f"{rows.shape[0]} rows x {BINS} bins, float32"
    for threads in (1, 2):
        torch.set_num_threads(threads)
        figures = interleaved({name: lambda work=work: timed(work) for name, work in works.items()}, rounds=7)
        floor = percentiles(figures["copy of the logits"])[1]
        for name, values in figures.items():
            p20, p50, p80 = percentiles(values)
            result.append(
                Row(
                    "two-hot",
                    f"{name} ({threads} thread{'s' if threads > 1 else ''})",
                    "train",
                    p20,
                    p50,
                    p80,
                    "ms",
                    shape,
                    threads,
                    round(p50 / floor, 2),
                    "one copy",
                )
            )
    return result
