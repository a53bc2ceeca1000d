"""Causal attention for agents: whole windows in training, one step against a ring cache in rollouts.

Stand-alone: needs torch and nothing else of this package but its kernels. Shapes: `B` sequences or environments, `L`
steps, `H` heads, `K` key/value heads (a divisor of `H`; head i reads key/value head i // (H / K)), `D` head size.
`TWOHOT_ATTENTION=reference`, `native`, `triton` or `sdpa` forces an implementation.
"""

from __future__ import annotations

import twohot.kernels.needs_torch  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split

from numbers import Integral, Real
from typing import cast

import torch
from torch import Tensor

from twohot._moved import renamed_property
from twohot.kernels.attention import op, reference, torch_attention
from twohot.kernels.backend import autocast_dtype, choose_attention, is_eager_tensor
from twohot.kernels.torch_private import write_count

__all__ = ["KVCache", "causal_attention", "decode_attention", "prefill_attention"]

HEAD_SIZES = (1, 256)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
MIN_POSITIVE = torch.finfo(torch.float32).tiny
"""Of a positive option: what is less could be 0 in float32, which means that there is none."""
MAX_STEPS = 2**30
"""More than any window has."""


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
        window: how many steps each step sees, itself included. None: all that came before.
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
    _require_options(name, q.shape[-1], window, sinks, softcap, scale, rotary)
    softcap, scale, rotary = _as_float(softcap), _as_float(scale), _as_float(rotary)
    window, sinks = None if window is None else min(window, MAX_STEPS), min(sinks, MAX_STEPS)
    if lengths is not None:
        _require_lengths(name, lengths, q)
    implementation = choose_attention(q.device, q.dtype, q.shape[-1], softcap is not None).name
    if implementation == "sdpa":
        return torch_attention.sdpa(q, k, v, lengths, window, sinks, scale, rotary)
    if implementation != "reference":
        angles = (None, None)
        if rotary is not None:
            steps = torch.arange(q.shape[1], device=q.device)
            angles = reference.rotation(steps, q.shape[3], rotary, torch.float32)
        scale = q.shape[3] ** -0.5 if scale is None else scale
        return op.causal_attention(q, k, v, lengths, *angles, window or 0, sinks, softcap or 0.0, scale)[0]
    return reference.causal_attention(q, k, v, lengths, window, sinks, softcap, scale, rotary)


class KVCache:
    """Keys and values of the last steps of each environment, per layer, as a ring.

    Appending a step writes one row per environment and layer and moves nothing. `cache_position[b]` counts the
    steps since environment `b` was last reset. Once an episode is longer than `length`, the oldest row is overwritten
    (the first `sinks` rows never are), so the policy sees the last `length - sinks` steps and the first `sinks`: what
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
            if not _is_integer(value) or not 1 <= value <= MAX_STEPS:
                raise ValueError(f"KVCache: expected at least 1 {name}, and at most {MAX_STEPS}, got {value!r}")
        _require_head("KVCache", head_size, dtype)
        _require_options("KVCache", head_size, None, 0, None, None, rotary)
        if not _is_integer(sinks) or not 0 <= sinks < length:
            raise ValueError(f"KVCache: expected 0 <= sinks < length = {length}, got {sinks!r}")
        shape = (layers, environments, heads, length, head_size)
        self.length, self.sinks, self.rotary = length, sinks, _as_float(rotary)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.cache_position = torch.zeros(environments, dtype=torch.int64, device=device)
        self._rotation: tuple[Tensor, int, tuple[Tensor, Tensor]] | None = None

    def __repr__(self) -> str:
        layers, environments, heads, length, size = self.keys.shape
        return (
            f"KVCache(layers={layers}, environments={environments}, heads={heads}, head_size={size}, length={length}, "
            f"dtype={self.keys.dtype}, device={str(self.keys.device)!r}, sinks={self.sinks}, rotary={self.rotary})"
        )

    @property
    def environments(self) -> int:
        """B, the number of environments that the cache was made for."""
        return self.cache_position.shape[0]

    seen = renamed_property("seen", "cache_position")

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget the environments where `mask` [B] (bool) is True; all of them by default.

        Nothing of an episode reaches the next: rows that were not written since are never read.

        Raises:
            ValueError: for a mask of another shape, dtype or device.
        """
        if mask is None:
            self.cache_position.zero_()
            return
        _require_tensors("KVCache.reset", mask=mask)
        position = self.cache_position
        if mask.shape != position.shape or mask.dtype != torch.bool or mask.device != position.device:
            raise ValueError(
                f"KVCache.reset: expected a bool mask of shape {tuple(position.shape)} on {position.device}, "
                f"got {mask.dtype} of shape {tuple(mask.shape)} on {mask.device}"
            )
        position.masked_fill_(mask, 0)

    def advance(self, steps: int | Tensor = 1) -> None:
        """End the step: every environment has seen one more; after a prefill, `lengths` [B] more.

        Raises:
            ValueError: for steps below 0, which is not asked of a GPU, and for a tensor of another shape, dtype or
                device.
        """
        if isinstance(steps, Tensor):
            _require_steps(
                "KVCache.advance", "steps", steps, len(self.cache_position), self.cache_position.device, "", MAX_STEPS
            )
        elif not _is_integer(steps) or not 0 <= steps <= MAX_STEPS:
            raise ValueError(
                f"KVCache.advance: expected 0 to {MAX_STEPS} steps, or a tensor of them, got {steps!r}; a cache "
                "cannot take steps back, only forget environments (reset)"
            )
        self.cache_position += steps

    def rotation(self) -> tuple[Tensor | None, Tensor | None]:
        """Cosine and sine [B, D / 2] (float32) of the step being decoded; computed once for all layers."""
        if self.rotary is None:
            return None, None
        # `cache_position` is public: a write to it changes its version. Tensors of inference mode have none.
        traced = torch.compiler.is_compiling() or self.cache_position.is_inference()
        version = -1 if traced else write_count(self.cache_position)
        kept = self._rotation
        if traced or kept is None or kept[0] is not self.cache_position or kept[1] != version:
            angles = reference.rotation(self.cache_position, self.keys.shape[-1], self.rotary, torch.float32)
            if traced:
                return angles
            self._rotation = kept = (self.cache_position, version, angles)
        return kept[2]

    def write(self, layer: int, k: Tensor, v: Tensor, lengths: Tensor) -> None:
        """Store the first `lengths` [B] steps of k, v [B, L, K, D] of fresh episodes; k is rotated already.

        Builds no gradient.

        Raises:
            ValueError: when a shape, dtype or device does not fit the cache, or a length is none of 0 to L.
        """
        name = "KVCache.write"
        _require_layer(name, self, layer)
        _require_tensors(name, k=k, v=v)
        for x in (k, v):
            _require_cache_device(name, self, x)
        _require_cache_steps(name, self, k, v)
        _require_lengths(name, lengths, k)
        k, v, lengths = k.detach(), v.detach(), lengths.to(torch.int64)
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
    name = "decode_attention"
    if not type(q) is type(k) is type(v) is Tensor:
        _require_tensors(name, q=q, k=k, v=v)
    if type(layer) is not int:
        _require_layer(name, cache, layer)
    layers, environments, heads, _, size = cache.keys.shape
    fits = k.shape == v.shape == (environments, heads, size) and q.dim() == 3
    if not fits or q.shape[0] != environments or q.shape[2] != size or q.shape[1] % heads or not 0 <= layer < layers:
        raise ValueError(
            f"decode_attention: expected q of shape [B, H, D] = ({environments}, a multiple of {heads}, {size}), "
            f"k, v of shape [B, K, D] = {(environments, heads, size)} and a layer below {layers}, as the cache was "
            f"made for, got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)} and {layer}; make a new cache when "
            "the policy or the number of environments changes"
        )
    if q.dtype not in DTYPES or not (q.layout is k.layout is v.layout is torch.strided):
        _require_tensors(name, q=q, k=k, v=v)
        _require_head(name, size, q.dtype)
    _require_alike(name, q, k, v)
    if cache.keys.device != q.device:
        _require_cache_device(name, cache, q)
    if softcap is not None or scale is not None:
        _require_options(name, size, None, 0, softcap, scale, None)
        softcap, scale = _as_float(softcap), _as_float(scale)
    return op.decode_attention(
        q.detach(),
        k.detach(),
        v.detach(),
        cache.keys[layer],
        cache.values[layer],
        cache.cache_position,
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
    name = "prefill_attention"
    _require_window(name, q, k, v)
    _require_tensors(name, lengths=lengths)
    _require_layer(name, cache, layer)
    _require_cache_device(name, cache, q)
    _require_cache_steps(name, cache, k, v)
    if not cache.cache_position.is_meta and cache.cache_position.any():
        raise ValueError(f"{name}: expected a cache that was just reset, got one that has seen steps")
    window = cache.length - cache.sinks
    out = causal_attention(q, k, v, lengths, window, cache.sinks, softcap, scale, rotary=cache.rotary)
    if cache.rotary is not None:
        k = reference.rotate(
            k, *reference.rotation(torch.arange(k.shape[1], device=k.device), k.shape[3], cache.rotary, k.dtype)
        )
    cache.write(layer, k, v, lengths)
    return out


def _require_layer(name: str, cache: KVCache, layer: object) -> None:
    if not _is_integer(layer) or not 0 <= cast("int", layer) < len(cache.keys):
        raise ValueError(f"{name}: expected a layer of 0 to {len(cache.keys) - 1}, got {layer!r}")


def _require_cache_steps(name: str, cache: KVCache, k: Tensor, v: Tensor) -> None:
    _, environments, heads, _, size = cache.keys.shape
    if k.dim() != 4 or k.shape != v.shape or (k.shape[0], *k.shape[2:]) != (environments, heads, size):
        raise ValueError(
            f"{name}: expected k, v of shape [B, L, K, D] = ({environments}, L, {heads}, {size}), as the cache was "
            f"made for, got {tuple(k.shape)} and {tuple(v.shape)}"
        )


def _require_cache_device(name: str, cache: KVCache, q: Tensor) -> None:
    if cache.keys.device != q.device:
        raise ValueError(f"{name}: expected q, k, v on {cache.keys.device}, as the cache is, got {q.device}")


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast to autocast's dtype where it is on, as torch does before attention."""
    dtype = autocast_dtype(tensors[0].device)
    if dtype is None:
        return tensors
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


def _require_window(name: str, q: Tensor, k: Tensor, v: Tensor) -> None:
    _require_tensors(name, q=q, k=k, v=v)
    fits = q.dim() == k.dim() == 4 and k.shape == v.shape and q.shape[:2] == k.shape[:2] and q.shape[3] == k.shape[3]
    if not fits or (q.shape[2] % k.shape[2] if k.shape[2] else q.shape[2]):
        raise ValueError(
            f"{name}: expected q [B, L, H, D] and k, v of one shape [B, L, K, D] with K a divisor of H, "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    _require_head(name, q.shape[3], q.dtype)
    _require_alike(name, q, k, v, autocast=autocast_dtype(q.device) is not None)


def _require_tensors(name: str, **given: object) -> None:
    for other, tensor in given.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a tensor as {other}, got {type(tensor).__name__}")
        if tensor.layout is not torch.strided:
            raise ValueError(f"{name}: expected a dense tensor as {other}, got {tensor.layout}")


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, Integral, torch.SymInt)) and not isinstance(value, bool)


def _require_head(name: str, size: int, dtype: torch.dtype) -> None:
    if not _is_integer(size) or not HEAD_SIZES[0] <= size <= HEAD_SIZES[1]:
        raise ValueError(f"{name}: expected a head size of {HEAD_SIZES[0]} to {HEAD_SIZES[1]}, got {size!r}")
    if dtype not in DTYPES:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, DTYPES))}, got {dtype}")


def _require_alike(name: str, q: Tensor, k: Tensor, v: Tensor, autocast: bool = False) -> None:
    """That q, k, v are of one dtype, which autocast would see to, on one device."""
    if not (autocast or q.dtype == k.dtype == v.dtype) or not q.device == k.device == v.device:
        got = ", ".join(f"{x.dtype} on {x.device}" for x in (q, k, v))
        raise ValueError(f"{name}: expected q, k, v of one dtype on one device, got {got}")


def _require_options(
    name: str,
    size: int,
    window: int | None,
    sinks: int,
    softcap: float | None,
    scale: float | None,
    rotary: float | None,
) -> None:
    if window is not None and (not _is_integer(window) or window < 1):
        raise ValueError(f"{name}: expected a window of at least 1 step, got {window!r}")
    if not _is_integer(sinks) or sinks < 0:
        raise ValueError(f"{name}: expected sinks >= 0, got {sinks!r}")
    if softcap is not None and not (_is_number(softcap) and softcap >= MIN_POSITIVE):
        raise ValueError(f"{name}: expected softcap > 0, got {softcap!r}")
    if scale is not None and not _is_number(scale):
        raise ValueError(f"{name}: expected a number that float32 holds as scale, got {scale!r}")
    if rotary is not None and (size % 2 or not (_is_number(rotary) and rotary >= MIN_POSITIVE)):
        raise ValueError(f"{name}: expected rotary > 0 and an even head size, got {rotary!r} and {size}")


def _as_float(value: float | None) -> float | None:
    """A number of any kind as those that native code takes."""
    return value if value is None or isinstance(value, (float, torch.SymFloat)) else float(value)


def _is_number(value: object) -> bool:
    """Whether it is a real number that is finite in float32."""
    if isinstance(value, bool) or not isinstance(value, (Real, torch.SymFloat)):
        return False
    return abs(cast("float", value)) <= torch.finfo(torch.float32).max


def _require_lengths(name: str, lengths: Tensor, q: Tensor) -> None:
    _require_tensors(name, lengths=lengths)
    _require_steps(name, "lengths", lengths, q.shape[0], q.device, "L = ", q.shape[1])


def _require_steps(
    name: str, what: str, steps: Tensor, batch: int, device: torch.device, bound: str, maximum: int
) -> None:
    """That there is a number of steps, 0 to `maximum`, for each of a batch, on its device."""
    if steps.shape != (batch,) or steps.dtype not in INTEGERS:
        raise ValueError(
            f"{name}: expected integer {what} of shape [B] = ({batch},), got {steps.dtype} of shape "
            f"{tuple(steps.shape)}"
        )
    if steps.device != device:
        owner = "q" if what == "lengths" else "the cache"
        raise ValueError(f"{name}: expected {what} on {device}, as {owner} is, got {steps.device}")
    # A GPU would have to be waited for, and a trace has no numbers.
    if steps.device.type != "cpu" or torch.compiler.is_compiling() or not steps.numel() or not is_eager_tensor(steps):
        return
    found = [int(x) for x in steps.aminmax()]
    if found[0] < 0 or found[1] > maximum:
        raise ValueError(
            f"{name}: expected {what} of 0 to {bound}{maximum}, got {found[0] if found[0] < 0 else found[1]}"
        )
