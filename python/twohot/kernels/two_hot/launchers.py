"""How the kernels of `kernel.py` are launched: block sizes, numbers of a support, outputs."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import triton
from torch import Tensor

from twohot.kernels.triton_device import launch, wave_size
from twohot.kernels.two_hot.kernel import cross_entropy_kernel, expectation_kernel, scale_kernel

WARPS = 4
ELEMENTS_PER_THREAD = 32
ROWS_PER_THREAD = 2


@lru_cache(maxsize=256)
def support_numbers(low: float, high: float, bins: int) -> dict[str, float]:
    """The kernels' float32 numbers of a support; each `_rest` is what its float32 lacks of the exact number."""
    middle, half_width = (low + high) / 2, (high - low) / 2 / (bins - 1)
    return {
        "middle": middle,
        "middle_rest": middle - float(np.float32(middle)),
        "half_width": half_width,
        "half_width_rest": half_width - float(np.float32(half_width)),
    }


@lru_cache(maxsize=256)
def tile(bins: int, element_size: int, wave: int, targets: int | None) -> dict[str, int]:
    """Block sizes for rows of `bins` logits.

    The threads that share a row are 4, or 8 where a row's logits cannot be loaded 16 bytes at a time, so that each
    access covers 16 to 64 bytes of a row; they are more where one would get more than 32 elements. A program has as
    many rows as give its threads 32 elements each, of at most 2 rows.

    Args:
        bins: N. element_size: bytes of a logit. wave: threads of a warp.
        targets: T where rows share targets: a program then holds at most T rows, so that its targets wrap once.
    """
    block = triton.next_power_of_2(bins)
    vector = min(math.gcd(bins, 16 // element_size), block)
    threads = max(4 if vector * element_size == 16 else 8, block // ELEMENTS_PER_THREAD)
    threads = min(threads, block // vector)
    rows = max(min(ELEMENTS_PER_THREAD * WARPS * wave // block, ROWS_PER_THREAD * WARPS * wave // threads), 1)
    if targets is not None:
        rows = min(rows, 1 << (targets.bit_length() - 1))
    half_chunks = triton.next_power_of_2(triton.cdiv((bins + 1) // 2, threads * vector))
    return {
        "BLOCK_R": rows,
        "BLOCK_C": threads * vector,
        "CHUNKS": block // (threads * vector),
        "HALF_CHUNKS": half_chunks,
        "threads": threads,
    }


def launch_cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    scale: Tensor | None,
    *,
    low: float,
    high: float,
    transform: str,
    labels: str,
    sigma: float,
    readout_kind: str,
    loss: Tensor | None,
    readout: Tensor | None,
    gradient: Tensor | None,
) -> None:
    """Cross-entropy of rows of logits with the labels of their targets, its gradient, and the readout, in one reading.

    A row that does not count gives zeros, whatever it holds. A NaN target gives a NaN loss and gradient of its row; a
    target beyond the ends or infinite belongs to the end bin.

    Args:
        logits: [R, N] float32, bfloat16 or float16, contiguous, 2 <= N <= 4096.
        target: [T] float32 in units of the return, contiguous, R % T == 0: row r belongs to target r % T.
        mask: [T] bool, contiguous, True where a target's rows count. None: all count.
        weight: [R] float32, contiguous: factor of each row's loss and gradient. None: 1.
        scale: 0-dimensional float32: factor of the gradient alone. None: 1.
        low, high: first and last bin center in transformed space.
        transform: "symlog", "signed_sqrt" or "linear".
        labels: a value of `reference.Labels`. sigma: of HL-Gauss labels, in bin widths; not read for the others.
        readout_kind: "transformed" or "raw".
        loss, readout: [R] float32, contiguous, written; None: not wanted.
        gradient: [R, N] of the dtype of logits, contiguous, written: scale weight (softmax - label). It may be `logits`
            itself. None: not wanted.
    """
    rows, bins = logits.shape
    if rows == 0:
        return
    targets = target.shape[0]
    block = tile(bins, logits.element_size(), wave_size(), targets if targets < rows else None)
    window, per_sigma = 2, 0.0
    if labels == "hl_gauss":
        window = min(triton.next_power_of_2(math.ceil(12 * sigma) + 2), triton.next_power_of_2(bins))
        per_sigma = 1 / (sigma * math.sqrt(2))
    with torch.cuda.device_of(logits):
        launch(
            cross_entropy_kernel,
            (triton.cdiv(rows, block["BLOCK_R"]),),
            p_logits=logits,
            p_target=target,
            p_mask=mask,
            p_weight=weight,
            p_scale=scale,
            p_loss=loss,
            p_readout=readout,
            p_gradient=gradient,
            R=rows,
            T=targets,
            **support_numbers(low, high, bins),
            per_width=(bins - 1) / (high - low),
            per_sigma=per_sigma,
            N=bins,
            SHARED=targets < rows,
            SYMMETRIC=low == -high,
            TRANSFORM=transform,
            LABELS=labels,
            READOUT_KIND="" if readout is None else readout_kind,
            **{name: size for name, size in block.items() if name != "threads"},
            BLOCK_W=block["threads"],
            WINDOWS=max(window // block["threads"], 1),
            num_warps=WARPS,
            enable_fp_fusion=True,
        )


def launch_expectation(
    logits: Tensor,
    *,
    low: float,
    high: float,
    transform: str,
    readout_kind: str,
    readout: Tensor | None,
    grad_output: Tensor | None,
    gradient: Tensor | None,
) -> None:
    """The value that each row of logits stands for, and its derivative times a gradient `grad_output`.

    Args:
        logits: [R, N] float32, bfloat16 or float16, contiguous, 2 <= N <= 4096.
        low, high, transform, readout_kind: as for `launch_cross_entropy`.
        readout: [R] float32, contiguous, written. None: not wanted.
        grad_output: [R] float32, contiguous: derivative of a loss by each readout; needed for `gradient`.
        gradient: [R, N] of the dtype of logits, contiguous, written: grad_output d readout / d logits. It may be
            `logits` itself. None: not wanted.
    """
    rows, bins = logits.shape
    if rows == 0:
        return
    block = tile(bins, logits.element_size(), wave_size(), None)
    with torch.cuda.device_of(logits):
        launch(
            expectation_kernel,
            (triton.cdiv(rows, block["BLOCK_R"]),),
            p_logits=logits,
            p_readout=readout,
            p_grad_output=grad_output,
            p_gradient=gradient,
            R=rows,
            **support_numbers(low, high, bins),
            N=bins,
            SYMMETRIC=low == -high,
            TRANSFORM=transform,
            READOUT_KIND=readout_kind,
            **{name: size for name, size in block.items() if name != "threads"},
            num_warps=WARPS,
            enable_fp_fusion=True,
        )


def launch_scale(gradient: Tensor, factor: Tensor) -> None:
    """gradient *= factor in place; for a factor of 1 the gradient is neither read nor written.

    Args:
        gradient: any shape, float32, bfloat16 or float16, contiguous.
        factor: 0-dimensional float32 on the same device; the host does not wait for it.
    """
    count = gradient.numel()
    if count == 0:
        return
    block = ELEMENTS_PER_THREAD * WARPS * wave_size()
    with torch.cuda.device_of(gradient):
        launch(
            scale_kernel,
            (triton.cdiv(count, block),),
            p_gradient=gradient,
            p_factor=factor,
            count=count,
            BLOCK=block,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
