"""Plain PyTorch truth of causal attention: runs in any floating dtype on any device, float64 included.

Shapes: `B` sequences or environments, `L` steps, `H` query heads, `K` key/value heads (a divisor of H; query head i
reads key head i // (H / K)), `D` head size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotation(positions: Tensor, size: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine [..., D / 2] of position x base^(-2 i / D) (Su et al. 2021, arXiv 2104.09864).

    Angles are float64, so that a position of a million turns by the right angle.
    """
    fractions = torch.arange(0, size, 2, dtype=torch.float64, device=positions.device) / size
    angles = positions.unsqueeze(-1).double() * torch.exp(-math.log(base) * fractions)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """[..., H, D] with pairs (x_i, x_{i + D/2}) turned by the angles [..., D / 2] of their step."""
    first, second = x.chunk(2, dim=-1)
    cosine, sine = cosine.unsqueeze(-2), sine.unsqueeze(-2)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def visible(length: int, window: int | None, sinks: int, device: torch.device | str = "cpu") -> Tensor:
    """[L, L] bool: whether step t (row) sees step s: s <= t, and s > t - window or s < sinks."""
    t = torch.arange(length, device=device).unsqueeze(1)
    s = torch.arange(length, device=device)
    seen = s <= t
    return seen if window is None else seen & ((s > t - window) | (s < sinks))


def causal_attention(
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
    """`twohot.attention.causal_attention`, which says what the arguments are, in plain PyTorch."""
    length, size = q.shape[1], q.shape[-1]
    padding = None
    if lengths is not None:
        padding = (torch.arange(length, device=q.device) >= lengths.unsqueeze(1))[:, :, None, None]
        q, k, v = (x.masked_fill(padding, 0) for x in (q, k, v))
    if rotary is not None:
        angles = rotation(torch.arange(length, device=q.device), size, rotary, q.dtype)
        q, k = rotate(q, *angles), rotate(k, *angles)
    groups = q.shape[2] // max(k.shape[2], 1)
    k, v = (x.repeat_interleave(groups, dim=2) for x in (k, v))
    scores = capped(torch.einsum("blhd,bmhd->bhlm", q, k), size**-0.5 if scale is None else scale, softcap)
    weights = scores.masked_fill(~visible(length, window, sinks, q.device), -math.inf).softmax(-1)
    out = torch.einsum("bhlm,bmhd->blhd", weights.to(v.dtype), v)
    return out if padding is None else out.masked_fill(padding, 0)


def capped(products: Tensor, scale: float, softcap: float | None) -> Tensor:
    """softcap tanh(scale products / softcap), without one scale products; in float32 at least, as in kernels."""
    scores = products.to(torch.promote_types(products.dtype, torch.float32)) * scale
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def ring_slot(position: Tensor, rows: int, sinks: int) -> Tensor:
    """Where the step at `position` goes in a ring of `rows` whose first `sinks` are kept."""
    return torch.where(position < rows, position, sinks + (position - sinks) % (rows - sinks))


def decode_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    counts: Tensor,
    softcap: float | None = None,
    scale: float | None = None,
) -> Tensor:
    """q [B, H, D] over the first `counts` [B] rows, 1..L, of each environment's ring; the others may hold NaN.

    Keys and values [B, K, L, D] carry their positions, so the order of the rows does not matter. Returns [B, H, D].
    """
    empty = (torch.arange(keys.shape[2], device=q.device) >= counts.unsqueeze(-1)).unsqueeze(1)
    grouped = q.unflatten(1, (keys.shape[1], -1))
    keys, values = (x.masked_fill(empty.unsqueeze(-1), 0) for x in (keys, values))
    scores = capped(grouped @ keys.mT, q.shape[-1] ** -0.5 if scale is None else scale, softcap)
    weights = scores.masked_fill(empty.unsqueeze(1), -math.inf).softmax(-1)
    return (weights.to(values.dtype) @ values).flatten(1, 2)
