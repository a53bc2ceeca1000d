"""Block sizes of the Triton kernels of attention."""

from __future__ import annotations

import os

import torch
import triton

from twohot.kernels.two_hot.kernel import wave_size


def tile(which: str, size: int, dtype: torch.dtype, precision: str) -> dict[str, int | str]:
    """Blocks of queries and keys, warps and stages for a head size: what spills nothing (bench/aot.py compiles it).

    Args:
        which: "forward", "query" or "key". size: D. dtype: of q, k, v. precision: of float32 products.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    block = max(triton.next_power_of_2(size), 16)
    exact = dtype == torch.float32 and precision == "ieee"
    backward = which != "forward"
    if exact:
        m, n = (32, 32) if block <= 64 else (16, 16)
        warps, stages = (4 if block <= 128 else 8), 1
    else:
        m = 128 if block <= 64 and not backward else 64
        n = 64 if block <= 128 else 32
        if block == 256 and backward:
            m = n = 32
        warps, stages = (4 if block <= 64 else 8), 2
        if dtype == torch.float32:
            m, n = min(m, 64), min(n, 32)
    if wave_size() == 64:
        stages = 1
    return {
        "PRECISION": precision if dtype == torch.float32 else "wide" if interpreted else "ieee",
        "BLOCK_D": block,
        "BLOCK_M": m,
        "BLOCK_N": n,
        "num_warps": warps,
        "num_stages": stages,
    }
