"""Causal attention by torch's own fused kernels, for comparison and where ours do not run."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from twohot.kernels.attention import reference


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    window: int | None = None,
    sinks: int = 0,
    scale: float | None = None,
    rotary: float | None = None,
) -> Tensor:
    """As `reference.causal_attention` without softcap; a window takes a mask [L, L]."""
    q, k, v, padding = _prepared(q, k, v, lengths, rotary)
    mask = None if window is None else reference.visible(q.shape[1], window, sinks, q.device)
    out = functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=q.shape[2] != k.shape[2],
    ).transpose(1, 2)
    return out if padding is None else out.masked_fill(padding, 0)


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
    q, k, v, padding = _prepared(q, k, v, lengths, rotary)

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return reference.capped(score, softcap)

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


def _prepared(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, rotary: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """q, k, v with zeros behind `lengths`, queries and keys rotated; and where those zeros are [B, L, 1, 1]."""
    padding = None
    if lengths is not None:
        padding = (torch.arange(q.shape[1], device=q.device) >= lengths.unsqueeze(1))[:, :, None, None]
        q, k, v = (x.masked_fill(padding, 0) for x in (q, k, v))
    if rotary is not None:
        angles = reference.rotation(torch.arange(q.shape[1], device=q.device), q.shape[-1], rotary, q.dtype)
        q, k = (reference.rotate(x, *angles) for x in (q, k))
    return q, k, v, padding
