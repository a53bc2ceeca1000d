"""Causal attention by torch's FlexAttention."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from twohot.kernels.attention import reference
from twohot.kernels.attention.torch_attention import prepared


def flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    window: int | None = None,
    sinks: int = 0,
    softcap: float | None = None,
    scale: float | None = None,
    rotary: float | None = None,
) -> Tensor:
    """As `reference.causal_attention`, by FlexAttention; compiled on a GPU. A CPU has no gradient of it."""
    q, k, v, padding = prepared(q, k, v, lengths, rotary)

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return reference.capped(score, 1.0, softcap)

    blocks = _blocks(q.shape[1], math.inf if window is None else window, sinks, q.device.type)
    with warnings.catch_warnings():
        # On a CPU a compiler would take half a minute for what a comparison of numbers does not need.
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        out = (flex_attention if q.is_cpu else _compiled_flex())(
            *(x.transpose(1, 2) for x in (q, k, v)),
            score_mod=None if softcap is None else capped,
            block_mask=blocks,
            scale=scale,
            enable_gqa=q.shape[2] != k.shape[2],
        ).transpose(1, 2)
    return out if padding is None else out.masked_fill(padding, 0)


@lru_cache(maxsize=16)
def _blocks(length: int, window: float, sinks: int, device: str) -> BlockMask:
    def seen(_: Tensor, __: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return (s <= t) & ((s > t - window) | (s < sinks))

    return create_block_mask(seen, None, None, length, length, device=device)


@lru_cache(maxsize=1)
def _compiled_flex():
    return torch.compile(flex_attention)
