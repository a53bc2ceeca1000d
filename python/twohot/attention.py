"""Causal attention for agents: whole windows in training, one step against a ring cache in rollouts.

Stand-alone: needs torch and nothing else of this package but its kernels. Shapes: `B` sequences or environments, `L`
steps, `H` heads, `K` key/value heads (a divisor of `H`; head i reads key/value head i // (H / K)), `D` head size.
`TWOHOT_ATTENTION=reference`, `native`, `triton`, `sdpa` or `flex` forces an implementation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twohot.kernels.attention import library, op, reference
from twohot.kernels.backend import choose_attention

__all__ = ["KVCache", "causal_attention", "decode_attention", "prefill_attention"]

HEAD_SIZES = (1, 256)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    window: int | None = None,
    sinks: int = 0,
    softcap: float | None = None,
    scale: float | None = None,
    *,
    rotary: float | None = None,
) -> Tensor:
    """softmax(cap(scale q k^T)) v, each step attending to itself and to what came before.

    cap(x) = softcap tanh(x / softcap). Under autocast q, k and v are first cast to its dtype.

    Args:
        q: [B, L, H, D] floating point, D up to 256; may be a view of packed projections.
        k, v: [B, L, K, D] of the same dtype and device.
        lengths: [B] integers, real steps of each sequence, 0..L. Later steps give zeros and get zero gradients,
            whatever they hold. None: all are real. On a GPU what exceeds L counts as L.
        window: each step sees so many steps, itself included. None: all that came before.
        sinks: the first steps of a sequence, which every later step sees beyond its window.
        softcap: bound of the scores. scale: of the scores, 1 / sqrt(D) by default.
        rotary: base of the rotation of q and k by their step in the window (10 000 in Su et al. 2021, arXiv
            2104.09864); D must be even. None: positions are part of the inputs.

    Returns:
        [B, L, H, D] in the dtype of `q`.

    Raises:
        ValueError: when a shape, dtype, device or option does not fit; the sentence says what was expected.
    """
    name = "causal_attention"
    _require_window(name, q, k, v)
    q, k, v = _autocast(q, k, v)
    _require_options(name, q.shape[-1], window, sinks, softcap, rotary)
    if lengths is not None:
        _require_lengths(name, lengths, q)
    implementation = choose_attention(q.device, q.dtype, q.shape[-1], softcap is not None).name
    if implementation == "sdpa":
        return library.sdpa(q, k, v, lengths, window, sinks, scale, rotary)
    if implementation == "flex":
        return library.flex(q, k, v, lengths, window, sinks, softcap, scale, rotary)
    if implementation != "reference":
        angles = (None, None)
        if rotary is not None:
            steps = torch.arange(q.shape[1], device=q.device)
            angles = reference.rotation(steps, q.shape[3], rotary, torch.float32)
        scale = q.shape[3] ** -0.5 if scale is None else scale
        return op.fused_attention(q, k, v, lengths, *angles, window or 0, sinks, softcap or 0.0, scale)[0]
    return reference.causal_attention(q, k, v, lengths, window, sinks, softcap, scale, rotary)


class KVCache:
    """Keys and values of the last steps of each environment, per layer, as a ring.

    Appending a step writes one row per environment and layer and moves nothing. `seen[b]` counts the steps since
    environment `b` was last reset. Once an episode is longer than `length`, the oldest row is overwritten (the first
    `sinks` rows never are), so the policy sees the last `length - sinks` steps and the first `sinks`: what
    `causal_attention` sees with window = length - sinks.

    Use: for each step, `decode_attention` once per layer, then `advance()`.

    Args:
        layers: number of attention layers.
        environments: B, environments stepped together, each at its own time.
        heads: K, key/value heads. head_size: D, up to 256. length: L, rows of the ring; at least 1.
        dtype: storage type of keys and values. device: where they live.
        sinks: rows that keep an episode's first steps; fewer than `length`.
        rotary: base of the rotation of queries and keys by their step in the episode, as in `causal_attention`.
    """

    def __init__(
        self,
        layers: int,
        environments: int,
        heads: int,
        head_size: int,
        length: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        sinks: int = 0,
        rotary: float | None = None,
    ) -> None:
        sizes = {"layers": layers, "environments": environments, "heads": heads, "length": length}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"KVCache: expected at least 1 {name}, got {value}")
        _require_head(type(self).__name__, head_size, dtype)
        _require_options(type(self).__name__, head_size, None, 0, None, rotary)
        if not 0 <= sinks < length:
            raise ValueError(f"KVCache: expected 0 <= sinks < length = {length}, got {sinks}")
        shape = (layers, environments, heads, length, head_size)
        self.length, self.sinks, self.rotary = length, sinks, rotary
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.seen = torch.zeros(environments, dtype=torch.int64, device=device)
        self._rotation: tuple[Tensor | None, Tensor | None] | None = None

    @property
    def environments(self) -> int:
        """B, the number of environments that the cache was made for."""
        return self.seen.shape[0]

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget the environments where `mask` [B] (bool) is True; all of them by default.

        Nothing of an episode reaches the next: rows that were not written since are never read.
        """
        self.seen.masked_fill_(torch.ones_like(self.seen, dtype=torch.bool) if mask is None else mask, 0)
        self._rotation = None

    def advance(self, steps: int | Tensor = 1) -> None:
        """End the step: every environment has seen one more; after a prefill, `lengths` [B] more."""
        self.seen += steps
        self._rotation = None

    def rotation(self) -> tuple[Tensor | None, Tensor | None]:
        """Cosine and sine [B, D / 2] (float32) of the step being decoded; computed once for all layers."""
        if self._rotation is None:
            size = self.keys.shape[-1]
            angles = None if self.rotary is None else (self.seen, size, self.rotary, torch.float32)
            self._rotation = (None, None) if angles is None else reference.rotation(*angles)
        return self._rotation

    def write(self, layer: int, k: Tensor, v: Tensor, lengths: Tensor) -> None:
        """Store the first `lengths` [B] steps of k, v [B, L, K, D] of fresh episodes; k is rotated already."""
        rows = torch.arange(min(self.length, k.shape[1]), device=k.device)
        last = lengths.unsqueeze(1) - 1
        step = torch.where(rows < self.sinks, rows, last - (last - rows) % (self.length - self.sinks))
        step = step.clamp(0, max(k.shape[1] - 1, 0))[:, :, None, None].expand(-1, -1, *k.shape[2:])
        for ring, x in ((self.keys, k), (self.values, v)):
            ring[layer, :, :, : len(rows)] = x.gather(1, step).transpose(1, 2).to(ring.dtype)


def decode_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache: KVCache,
    layer: int,
    *,
    softcap: float | None = None,
    scale: float | None = None,
) -> Tensor:
    """One new step of each environment: append its key and value to the cache, attend over what the cache holds.

    Builds no gradient.

    Args:
        q: [B, H, D] of the new step. k, v: [B, K, D].
        cache: made for the same B, K and D; its row for this step is overwritten.
        layer: which layer of the cache. softcap, scale: as in `causal_attention`.

    Returns:
        [B, H, D] in the dtype of `q`.

    Raises:
        ValueError: when the shapes, dtypes or devices do not fit the cache or each other.
    """
    layers, environments, heads, _, size = cache.keys.shape
    fits = k.shape == v.shape == (environments, heads, size) and q.dim() == 3
    if not fits or q.shape[0] != environments or q.shape[2] != size or q.shape[1] % heads or not 0 <= layer < layers:
        raise ValueError(
            f"decode_attention: expected q of shape [B, H, D] = ({environments}, a multiple of {heads}, {size}), "
            f"k, v of shape [B, K, D] = {(environments, heads, size)} and a layer below {layers}, as the cache was "
            f"made for, got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)} and {layer}; make a new cache when "
            "the policy or the number of environments changes"
        )
    _require_alike("decode_attention", q, k, v)
    if cache.keys.device != q.device:
        raise ValueError(f"decode_attention: expected q, k, v on {cache.keys.device}, as the cache is, got {q.device}")
    return op.decode_step(
        q.detach(),
        k.detach(),
        v.detach(),
        cache.keys[layer],
        cache.values[layer],
        cache.seen,
        cache.sinks,
        0.0 if softcap is None else softcap,
        size**-0.5 if scale is None else scale,
        *cache.rotation(),
    )


def prefill_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    cache: KVCache,
    layer: int,
    *,
    softcap: float | None = None,
    scale: float | None = None,
) -> Tensor:
    """The first steps of fresh episodes at once: attend over the window as the cached steps would, fill the cache.

    Use: once per layer, then `cache.advance(lengths)`.

    Args:
        q: [B, L, H, D]. k, v: [B, L, K, D]. lengths: [B] integers, real steps of each episode, 0..L.
        cache: made for the same B, K and D, and just reset. layer: which layer of the cache.

    Returns:
        [B, L, H, D] in the dtype of `q`; zeros from `lengths` on.

    Raises:
        ValueError: as `causal_attention`; when k, v do not fit the cache, or an environment has seen steps.
    """
    layers, environments, heads, _, size = cache.keys.shape
    if (k.shape[0], *k.shape[2:]) != (environments, heads, size) or not 0 <= layer < layers:
        raise ValueError(
            f"prefill_attention: expected k, v of shape [B, L, K, D] = ({environments}, L, {heads}, {size}) and a "
            f"layer below {layers}, as the cache was made for, got {tuple(k.shape)} and {layer}"
        )
    if cache.seen.any():
        raise ValueError("prefill_attention: expected a cache that was just reset, got one that has seen steps")
    window = {"window": cache.length - cache.sinks, "sinks": cache.sinks, "rotary": cache.rotary}
    out = causal_attention(q, k, v, lengths, softcap=softcap, scale=scale, **window)
    if cache.rotary is not None:
        k = reference.rotate(
            k, *reference.rotation(torch.arange(k.shape[1], device=k.device), size, cache.rotary, k.dtype)
        )
    cache.write(layer, k.detach(), v.detach(), lengths)
    return out


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast to autocast's dtype where it is on, as torch does before attention."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


def _require_window(name: str, q: Tensor, k: Tensor, v: Tensor) -> None:
    fits = q.dim() == k.dim() == 4 and k.shape == v.shape and q.shape[:2] == k.shape[:2] and q.shape[3] == k.shape[3]
    if not fits or (q.shape[2] % k.shape[2] if k.shape[2] else q.shape[2]):
        raise ValueError(
            f"{name}: expected q [B, L, H, D] and k, v of one shape [B, L, K, D] with K a divisor of H, "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    _require_head(name, q.shape[3], q.dtype)
    if not torch.is_autocast_enabled(q.device.type):
        _require_alike(name, q, k, v)


def _require_head(name: str, size: int, dtype: torch.dtype) -> None:
    if not HEAD_SIZES[0] <= size <= HEAD_SIZES[1]:
        raise ValueError(f"{name}: expected a head size of {HEAD_SIZES[0]} to {HEAD_SIZES[1]}, got {size}")
    if dtype not in DTYPES:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, DTYPES))}, got {dtype}")


def _require_alike(name: str, q: Tensor, k: Tensor, v: Tensor) -> None:
    if not q.dtype == k.dtype == v.dtype or not q.device == k.device == v.device:
        got = ", ".join(f"{x.dtype} on {x.device}" for x in (q, k, v))
        raise ValueError(f"{name}: expected q, k, v of one dtype on one device, got {got}")


def _require_options(
    name: str, size: int, window: int | None, sinks: int, softcap: float | None, rotary: float | None
) -> None:
    if window is not None and window < 1:
        raise ValueError(f"{name}: expected a window of at least 1 step, got {window}")
    if sinks < 0:
        raise ValueError(f"{name}: expected sinks >= 0, got {sinks}")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"{name}: expected softcap > 0, got {softcap}")
    if rotary is not None and (size % 2 or not rotary > 0):
        raise ValueError(f"{name}: expected rotary > 0 and an even head size, got {rotary} and {size}")


def _require_lengths(name: str, lengths: Tensor, q: Tensor) -> None:
    if lengths.shape != q.shape[:1] or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(
            f"{name}: expected integer lengths of shape [B] = {tuple(q.shape[:1])}, "
            f"got {lengths.dtype} of shape {tuple(lengths.shape)}"
        )
    if lengths.device != q.device:
        raise ValueError(f"{name}: expected lengths on {q.device}, as q is, got {lengths.device}")
    # A GPU would have to be waited for, and a trace has no numbers.
    if q.device.type != "cpu" or torch.compiler.is_compiling() or not lengths.numel():
        return
    least, most = (int(x) for x in lengths.aminmax())
    if least < 0 or most > q.shape[1]:
        raise ValueError(f"{name}: expected lengths of 0 to L = {q.shape[1]}, got {least if least < 0 else most}")
