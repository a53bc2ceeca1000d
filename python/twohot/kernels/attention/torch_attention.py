"""Causal attention by torch's own fused kernel, where ours do not run."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

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
    q, k, v, padding = prepared(q, k, v, lengths, rotary)
    if scale is not None and scale <= 0:  # torch hides scores before it scales them: -inf would become inf or NaN
        q, scale = (-q, -scale) if scale < 0 else (q * 0, 1.0)
    mask = None if window is None else reference.visible(q.shape[1], window, sinks, q.device)
    out = functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=q.shape[2] != k.shape[2],
    ).transpose(1, 2)
    return out if padding is None else out.masked_fill(padding, 0)


def prepared(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, rotary: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """q, k, v with zeros after `lengths`, queries and keys rotated; and where those zeros are [B, L, 1, 1]."""
    padding = None
    if lengths is not None:
        padding = (torch.arange(q.shape[1], device=q.device) >= lengths.unsqueeze(1))[:, :, None, None]
        q, k, v = (x.masked_fill(padding, 0) for x in (q, k, v))
    if rotary is not None:
        angles = reference.rotation(torch.arange(q.shape[1], device=q.device), q.shape[-1], rotary, q.dtype)
        q, k = (reference.rotate(x, *angles) for x in (q, k))
    return q, k, v, padding
