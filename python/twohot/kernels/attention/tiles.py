"""Block sizes of the Triton kernels of attention."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from twohot.kernels.triton_device import wave_size

SIZES = (16, 32, 64, 128, 256)
NUMBERS_OF_A_WARP = 1024
"""Of the sums of a short window's block, which are two for keys: more spill registers, fewer leave warps idle."""


class TileKey(NamedTuple):
    """What the size of a block depends on, besides the head size."""

    amd: bool
    rich: bool
    """Whether there is a rotation, a softcap or a window."""
    products: str
    """Of matrices: "half_precision", or for float32 inputs the precision "tf32" or "ieee"."""


# To blocks of queries, of keys and warps for each of SIZES: the largest that spill no register, which bench/aot.py
# checks.
TILES = {
    TileKey(amd=False, rich=False, products="half_precision"): {
        "forward": ((128, 64, 4), (128, 64, 4), (128, 64, 8), (64, 32, 4), (32, 32, 8)),
        "query": ((128, 64, 4), (64, 64, 4), (128, 64, 8), (64, 64, 4), (16, 16, 4)),
        "key": ((64, 64, 4), (64, 64, 4), (64, 128, 8), (32, 64, 8), (16, 16, 4)),
    },
    TileKey(amd=False, rich=False, products="tf32"): {
        "forward": ((64, 32, 4), (64, 32, 4), (64, 32, 4), (32, 32, 4)),
        "query": ((64, 32, 4), (64, 32, 4), (64, 32, 4), (32, 32, 8)),
        "key": ((32, 64, 4), (32, 32, 4), (32, 64, 4), (32, 32, 8)),
    },
    TileKey(amd=False, rich=False, products="ieee"): {
        "forward": ((32, 32, 4), (32, 32, 4), (32, 32, 4), (32, 32, 8)),
        "query": ((32, 32, 4), (32, 32, 4), (32, 32, 8), (16, 16, 8)),
        "key": ((16, 32, 4), (32, 32, 4), (32, 32, 8), (32, 16, 8)),
    },
    TileKey(amd=False, rich=True, products="half_precision"): {
        "forward": ((128, 64, 4), (128, 64, 4), (128, 64, 8), (128, 64, 8), (32, 32, 8)),
        "query": ((64, 64, 4), (64, 64, 4), (128, 64, 8), (32, 32, 4), (16, 16, 4)),
        "key": ((64, 64, 4), (16, 32, 4), (32, 32, 4), (32, 32, 8), (16, 16, 4)),
    },
    TileKey(amd=False, rich=True, products="tf32"): {
        "forward": ((64, 32, 4), (64, 32, 4), (64, 32, 4), (32, 32, 4)),
        "query": ((64, 32, 4), (64, 32, 4), (64, 32, 4), (32, 32, 8)),
        "key": ((32, 64, 4), (32, 32, 4), (32, 32, 4), (32, 32, 8)),
    },
    TileKey(amd=False, rich=True, products="ieee"): {
        "forward": ((32, 32, 4), (32, 32, 4), (32, 32, 4), (16, 32, 4)),
        "query": ((16, 32, 4), (32, 32, 4), (32, 32, 8), (16, 16, 8)),
        "key": ((32, 32, 4), (16, 32, 4), (32, 32, 4), (32, 16, 8)),
    },
    TileKey(amd=True, rich=False, products="half_precision"): {
        "forward": ((128, 64, 4), (128, 64, 4), (128, 64, 4), (128, 64, 4), (128, 64, 4)),
        "query": ((128, 64, 4), (128, 64, 4), (128, 64, 4), (128, 64, 4), (64, 32, 4)),
        "key": ((32, 64, 4), (32, 64, 4), (32, 64, 4), (32, 64, 4), (32, 32, 4)),
    },
    TileKey(amd=True, rich=False, products="tf32"): {
        "forward": ((64, 32, 4), (64, 32, 4), (64, 32, 4), (64, 32, 4)),
        "query": ((64, 32, 4), (64, 32, 4), (64, 32, 4), (64, 32, 4)),
        "key": ((32, 64, 4), (32, 64, 4), (32, 64, 4), (32, 64, 4)),
    },
    TileKey(amd=True, rich=False, products="ieee"): {
        "forward": ((32, 32, 4), (32, 32, 4), (32, 32, 4), (32, 32, 4)),
        "query": ((32, 32, 4), (32, 32, 4), (32, 32, 4), (32, 32, 4)),
        "key": ((32, 32, 4), (32, 32, 4), (32, 32, 4), (32, 32, 4)),
    },
    TileKey(amd=True, rich=True, products="half_precision"): {
        "forward": ((64, 32, 4), (32, 32, 4), (32, 16, 4), (32, 16, 4), (32, 16, 4)),
        "query": ((128, 64, 4), (32, 16, 4), (32, 16, 4), (128, 64, 4), (32, 32, 4)),
        "key": ((16, 32, 4), (16, 32, 4), (16, 32, 4), (16, 32, 4), (16, 32, 4)),
    },
    TileKey(amd=True, rich=True, products="tf32"): {
        "forward": ((64, 32, 4), (32, 16, 4), (32, 32, 8), (32, 16, 4)),
        "query": ((32, 32, 4), (32, 16, 4), (32, 16, 4), (64, 32, 4)),
        "key": ((16, 32, 4), (16, 32, 4), (16, 32, 4), (16, 32, 4)),
    },
    TileKey(amd=True, rich=True, products="ieee"): {
        "forward": ((32, 32, 4), (16, 32, 4), (16, 32, 4), (16, 32, 4)),
        "query": ((16, 32, 4), (32, 32, 4), (16, 32, 4), (32, 32, 4)),
        "key": ((16, 32, 4), (16, 32, 4), (16, 32, 4), (16, 32, 4)),
    },
}


def tile(
    which: str,
    q: Tensor,
    angles: tuple[Tensor | None, Tensor | None],
    precision: str,
    options: dict,
) -> dict[str, Any]:
    """The blocks, warps and stages of a kernel: "forward", "query" or "key", the gradients of which it computes.

    Args:
        q, angles, options: as for the launchers. precision: of float32 products, "ieee" or "tf32".
    """
    block = max(triton.next_power_of_2(q.shape[3]), SIZES[0])
    amd = wave_size() == 64
    rich = angles[0] is not None or options["softcap"] > 0 or options["window"] > 0
    kind = precision if q.dtype == torch.float32 else "half_precision"
    m, n, warps = TILES[TileKey(amd, rich, kind)][which][SIZES.index(block)]
    steps = max(triton.next_power_of_2(q.shape[1]), SIZES[0])
    if steps < max(m, n) and kind == "half_precision" and not rich and not amd:  # others spill in small blocks, too
        # A short window is one small block: more programs fit on a multiprocessor, and none computes what is masked.
        m, n = min(m, steps), min(n, steps)
        numbers = max(m, n) * max(min(m, n), block) * (2 if which == "key" else 1)
        warps = min(warps, max(numbers // NUMBERS_OF_A_WARP, 1))
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return {
        "PRECISION": precision if kind != "half_precision" else "upcast" if interpreted else "ieee",
        "BLOCK_D": block,
        "BLOCK_M": m,
        "BLOCK_N": n,
        "num_warps": warps,
        "num_stages": 1 if amd or kind == "ieee" else 2,
    }
