"""Attention registered with torch.library: whole windows, and one step of environments against their rings.

Shapes: `B` sequences or environments, `L` steps, `H` query heads, `K` key/value heads, `D` head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from twohot.kernels.addresses import address, optional_address, refuse
from twohot.kernels.attention import reference
from twohot.kernels.autograd import differentiable, differentiated_once
from twohot.kernels.backend import choose_attention, choose_decode, is_eager_tensor, native
from twohot.kernels.dtypes import DTYPE_NAMES
from twohot.kernels.threads import native_threads
from twohot.kernels.torch_private import operation_body


@torch.library.custom_op("twohot::decode_attention", mutates_args=("keys", "values"))
def decode_attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    cache_position: Tensor,
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
        cache_position: [B] int64, steps before this one. softcap: 0 for none.
        cosine, sine: [B, D / 2] float32 of the rotation of q and k, or None.

    Returns:
        [B, H, D] in the dtype of `q`, without a gradient.

    Raises:
        TypeError, ValueError: for tensors that are not what is said here, and for a negative cache position (not
            checked on a GPU, where it counts as 0).
    """
    name = choose_decode(q.device, q.dtype, keys.dtype, q.shape[-1]).name
    if name == "native":
        return _decode_natively(q, k, v, keys, values, cache_position, sinks, softcap, scale, cosine, sine)
    if name == "triton":
        from twohot.kernels.attention.decode_kernel import launch_decode

        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k, v))
        options = {"sinks": sinks, "softcap": softcap, "scale": scale}
        launch_decode(q, k, v, keys, values, cache_position, (cosine, sine), out=out, **options)
        return out
    if cache_position.is_cpu and (cache_position < 0).any():
        raise ValueError(
            f"cache_position: expected at least 0 steps of each environment, got {cache_position.tolist()}"
        )
    if cosine is not None and sine is not None:
        q, k = (reference.rotate(x, cosine.to(x.dtype), sine.to(x.dtype)) for x in (q, k))
    keys, values = keys.detach(), values.detach()
    rows, slot = torch.arange(q.shape[0], device=q.device), reference.ring_slot(cache_position, keys.shape[2], sinks)
    keys[rows, :, slot] = k.to(keys.dtype)
    values[rows, :, slot] = v.to(values.dtype)
    counts = (cache_position + 1).clamp(max=keys.shape[2])
    return reference.decode_attention(q, keys.to(q.dtype), values.to(q.dtype), counts, softcap or None, scale)


@decode_attention_op.register_fake
def _(q, k, v, keys, values, cache_position, sinks, softcap, scale, cosine, sine):
    return torch.empty_like(q, memory_format=torch.contiguous_format)


def _decode_natively(q, k, v, keys, values, cache_position, sinks, softcap, scale, cosine, sine) -> Tensor:
    _require_angles(cosine, sine)
    if keys.dim() != 4 or q.dim() != 3 or not keys.shape[1] or q.shape[1] % keys.shape[1]:
        refuse(keys, "keys", f"a tensor [B, K, L, D] with K a divisor of H, for queries {list(q.shape)}")
    environments, heads, rows, size = keys.shape
    dtype, cache_dtype, new = q.dtype, keys.dtype, (environments, heads, size)
    # Only the last two dimensions, [H, D], have to be contiguous in memory.
    q, k, v = (x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous() for x in (q, k, v))
    out = torch.empty(q.shape, dtype=dtype, device="cpu")
    native.decode_attention(
        address(keys, "keys", cache_dtype, environments, heads, rows, size),
        address(values, "values", cache_dtype, environments, heads, rows, size),
        DTYPE_NAMES[cache_dtype],
        environments,
        heads,
        rows,
        size,
        sinks=sinks,
        query=address(q, "q", dtype, environments, q.shape[1], size, strided=True),
        key=address(k, "k", dtype, *new, strided=True),
        value=address(v, "v", dtype, *new, strided=True),
        dtype=DTYPE_NAMES[dtype],
        query_stride=q.stride(0),
        key_stride=k.stride(0),
        value_stride=v.stride(0),
        groups=q.shape[1] // heads,
        cache_position=address(cache_position, "cache_position", torch.int64, environments),
        cosine=optional_address(cosine, "cosine", torch.float32, environments, size // 2),
        sine=optional_address(sine, "sine", torch.float32, environments, size // 2),
        scale=scale,
        softcap=softcap,
        output=out.data_ptr(),
        threads=native_threads(),
    )
    return out


_decode_body = operation_body(decode_attention_op)


def decode_attention(q: Tensor, *arguments: Any) -> Tensor:
    """`decode_attention_op`, past the dispatcher where nothing traces."""
    return (_decode_body if is_eager_tensor(q) else decode_attention_op)(q, *arguments)


@torch.library.custom_op("twohot::causal_attention", mutates_args=())
def causal_attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    cosine: Tensor | None,
    sine: Tensor | None,
    window: int,
    sinks: int,
    softcap: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attention over whole windows by the fused code that fits.

    Args:
        q: [B, L, H, D]. k, v: [B, L, K, D]. lengths: [B] integers or None.
        cosine, sine: [L, D / 2] float32 of the rotation of q and k, or None. window, softcap: 0 for none.

    Returns:
        [B, L, H, D], with gradients for q, k, v; float32 [B, H, L] base-2 logarithms of the softmax's denominators.
    """
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    lse = q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
    q, k, v = (_contiguous_vectors(x) for x in (q, k, v))
    options = {"window": window, "sinks": sinks, "softcap": softcap, "scale": scale}
    if _fused(q, softcap) == "native":
        _native_forward(q, k, v, lengths, cosine, sine, out, lse, **options)
        return out, lse
    from twohot.kernels.attention.kernel import launch_forward

    launch_forward(q, k, v, lengths, (cosine, sine), out=out, lse=lse, precision=_precision(), **options)
    return out, lse


@causal_attention_op.register_fake
def _(q, k, v, lengths, cosine, sine, window, sinks, softcap, scale):
    lse = q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
    return torch.empty_like(q, memory_format=torch.contiguous_format), lse


@torch.library.custom_op("twohot::causal_attention_backward", mutates_args=())
def causal_attention_backward_op(
    grad_output: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    lengths: Tensor | None,
    cosine: Tensor | None,
    sine: Tensor | None,
    window: int,
    sinks: int,
    softcap: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v for a gradient `grad_output` [B, L, H, D] of `causal_attention_op`."""
    gradients = dq, dk, dv = _like_inputs(q, k, v)
    q, k, v, grad_output = (_contiguous_vectors(x) for x in (q, k, v, grad_output))
    options = {"window": window, "sinks": sinks, "softcap": softcap, "scale": scale}
    if _fused(q, softcap) == "native":
        _native_backward(q, k, v, lengths, cosine, sine, out, lse, grad_output, gradients, **options)
        return gradients
    from twohot.kernels.attention.kernel import launch_key_gradient, launch_query_gradient

    inputs = q, k, v, lengths, (cosine, sine)
    options |= {"grad_output": grad_output, "lse": lse, "delta": torch.empty_like(lse), "precision": _precision()}
    launch_query_gradient(*inputs, out=out, dq=dq, **options)
    launch_key_gradient(*inputs, dk=dk, dv=dv, **options)
    return gradients


@causal_attention_backward_op.register_fake
def _(grad_output, q, k, v, *_):
    return _like_inputs(q, k, v)


def _like_inputs(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    return dq, dk, dv


def _native_window(q, k, v, lengths, cosine, sine, out, lse, **options) -> native.AttentionWindow:
    """What native code reads and writes; `lengths` must live as long."""
    _require_angles(cosine, sine)
    if k.dim() != 4 or q.dim() != 4 or q.shape[2] % max(k.shape[2], 1):
        refuse(k, "k", f"a tensor [B, L, K, D] with K a divisor of H, for queries {list(q.shape)}")
    batch, steps, heads, size = k.shape
    queries = (batch, steps, q.shape[2], size)
    return native.AttentionWindow(
        _strided(q, "q", q.dtype, *queries),
        _strided(k, "k", q.dtype, *k.shape),
        _strided(v, "v", q.dtype, *k.shape),
        DTYPE_NAMES[q.dtype],
        batch,
        steps,
        max(heads, 1),
        size,
        groups=q.shape[2] // max(heads, 1) or 1,
        lengths=optional_address(lengths, "lengths", torch.int64, batch),
        cosine=optional_address(cosine, "cosine", torch.float32, steps, size // 2),
        sine=optional_address(sine, "sine", torch.float32, steps, size // 2),
        output=_strided(out, "out", q.dtype, *queries),
        lse=address(lse, "lse", torch.float32, batch, q.shape[2], steps),
        **options,
    )


def _strided(x: Tensor, what: str, dtype: torch.dtype, *shape: int) -> tuple[int, int, int, int]:
    at = address(x, what, dtype, *shape, strided=True)
    batch, step, head, _ = x.stride()
    return at, batch, step, head


def _native_lengths(lengths: Tensor | None) -> Tensor | None:
    return None if lengths is None else lengths.to(torch.int64).contiguous()


def _native_forward(q, k, v, lengths, cosine, sine, out, lse, **options) -> None:
    if out.numel():
        lengths = _native_lengths(lengths)
        window = _native_window(q, k, v, lengths, cosine, sine, out, lse, **options)
        native.causal_attention(window, native_threads())


def _native_backward(q, k, v, lengths, cosine, sine, out, lse, grad_output, gradients, **options) -> None:
    if out.numel():
        lengths = _native_lengths(lengths)
        window = _native_window(q, k, v, lengths, cosine, sine, out, lse, **options)
        dq, dk, dv = gradients
        native.causal_attention_backward(
            window,
            _strided(grad_output, "grad_output", q.dtype, *q.shape),
            _strided(dq, "dq", q.dtype, *q.shape),
            _strided(dk, "dk", q.dtype, *k.shape),
            _strided(dv, "dv", q.dtype, *k.shape),
            native_threads(),
        )


def _require_angles(cosine: Tensor | None, sine: Tensor | None) -> None:
    if (cosine is None) != (sine is None):
        raise ValueError("expected cosine and sine of a rotation, or neither, got one of them")


def _fused(q: Tensor, softcap: float) -> str:
    """Whether "native" or "triton" code runs. Raises ValueError where neither takes these queries."""
    choice = choose_attention(q.device, q.dtype, q.shape[-1], softcap > 0)
    if choice.name not in ("native", "triton"):
        raise ValueError(f"twohot::causal_attention: no fused code takes {q.dtype} {list(q.shape)} ({choice.reason})")
    return choice.name


def _contiguous_vectors(x: Tensor) -> Tensor:
    """A tensor whose last dimension follows itself in memory, copied where it does not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _precision() -> str:
    """Of float32 products on a GPU: what torch's own matrix products use."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def fill_gradients(grad_output, q, k, v, out, lse, options, *, out_gradients) -> None:
    """The native `causal_attention_backward_op` without lengths, into `out_gradients`: views shaped as q, k and v.

    Args:
        options: what follows `lengths` among its arguments.
    """
    cosine, sine, window, sinks, softcap, scale = options
    named = {"window": window, "sinks": sinks, "softcap": softcap, "scale": scale}
    _native_backward(q, k, v, None, cosine, sine, out, lse, grad_output, out_gradients, **named)


causal_attention_backward = differentiated_once(causal_attention_backward_op)


def _save_attention(ctx, inputs, output) -> None:
    *tensors, ctx.window, ctx.sinks, ctx.softcap, ctx.scale = inputs
    q, k, v, *others = tensors
    ctx.save_for_backward(q, k, v, *output, *others)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _attention_backward(ctx, grad_output, lse):
    if grad_output is None:
        return (None,) * 10
    options = ctx.window, ctx.sinks, ctx.softcap, ctx.scale
    return *causal_attention_backward(grad_output, *ctx.saved_tensors, *options), *[None] * 7


causal_attention = differentiable(causal_attention_op, _save_attention, _attention_backward, inputs=3)
