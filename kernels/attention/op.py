"""Attention registered with torch.library: one step of environments against their rings.

Shapes: `B` sequences or environments, `L` steps, `H` query heads, `K` key/value heads, `D` head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twohot.kernels.attention import reference
from twohot.kernels.backend import choose_decode, native, plain_eager

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


@torch.library.custom_op("twohot::decode_attention", mutates_args=("keys", "values"))
def decode_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    seen: Tensor,
    sinks: int,
    softcap: float,
    scale: float,
    cosine: Tensor | None,
    sine: Tensor | None,
) -> Tensor:
    """Write k and v to their rows of the rings, and attend over the rows in use.

    Args:
        q: [B, H, D]. k, v: [B, K, D].
        keys, values: [B, K, L, D], contiguous: step s is in row s while s < L, then in row
            sinks + (s - sinks) % (L - sinks).
        seen: [B] int64, steps before this one. softcap: 0 for none.
        cosine, sine: [B, D / 2] float32 of the rotation of q and k, or None.

    Returns:
        [B, H, D] in the dtype of `q`, without a gradient.
    """
    choice = choose_decode(q.device, q.dtype, keys.dtype, q.shape[-1])
    if choice.name == "native":
        return _decode_natively(q, k, v, keys, values, seen, sinks, softcap, scale, cosine, sine)
    if cosine is not None:
        q, k = (reference.rotate(x, cosine.to(x.dtype), sine.to(x.dtype)) for x in (q, k))
    rows, slot = torch.arange(q.shape[0], device=q.device), reference.ring_slot(seen, keys.shape[2], sinks)
    keys[rows, :, slot] = k.to(keys.dtype)
    values[rows, :, slot] = v.to(values.dtype)
    counts = (seen + 1).clamp(max=keys.shape[2])
    return reference.decode_attention(q, keys.to(q.dtype), values.to(q.dtype), counts, softcap or None, scale)


@decode_attention.register_fake
def _(q, k, v, keys, values, seen, sinks, softcap, scale, cosine, sine):
    return torch.empty_like(q, memory_format=torch.contiguous_format)


def _decode_natively(q, k, v, keys, values, seen, sinks, softcap, scale, cosine, sine) -> Tensor:
    q, k, v = (_contiguous_heads(x) for x in (q, k, v))
    out = torch.empty(q.shape, dtype=q.dtype)
    environments, heads, rows, size = keys.shape
    native.decode_attention(
        keys.data_ptr(),
        values.data_ptr(),
        _NAMES[keys.dtype],
        environments,
        heads,
        rows,
        size,
        sinks=sinks,
        query=q.data_ptr(),
        key=k.data_ptr(),
        value=v.data_ptr(),
        dtype=_NAMES[q.dtype],
        query_stride=q.stride(0),
        key_stride=k.stride(0),
        value_stride=v.stride(0),
        groups=q.shape[1] // heads,
        seen=seen.data_ptr(),
        cosine=0 if cosine is None else cosine.data_ptr(),
        sine=0 if sine is None else sine.data_ptr(),
        scale=scale,
        softcap=softcap,
        output=out.data_ptr(),
        threads=torch.get_num_threads(),
    )
    return out


def _contiguous_heads(x: Tensor) -> Tensor:
    """[B, H, D] whose heads and places follow each other in memory, copied where they do not."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


def decode_step(q: Tensor, *arguments) -> Tensor:
    """`decode_attention`, past the dispatcher where nothing traces."""
    return (decode_attention._init_fn if plain_eager(q) else decode_attention)(q, *arguments)
