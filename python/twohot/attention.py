"""Causal attention for agents: whole windows in training, one step against a ring cache in rollouts.

Stand-alone: needs torch and nothing else of this package. Shapes: `B` sequences or environments, `L` steps,
`H` heads, `D` head size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from twohot.kernels.attention import reference

__all__ = ["KVCache", "causal_attention", "decode_attention"]


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, each step attending to itself and to what came before.

    Args:
        q, k, v: [B, L, H, D], equal shapes, floating point. Padding belongs at the tail, where no real step sees it.

    Returns:
        [B, L, H, D] in the dtype of `q`.

    Raises:
        ValueError: when the three shapes differ or are not four-dimensional.
    """
    if q.dim() != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(
            "causal_attention: expected q, k, v of one shape [B, L, H, D], "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


class KVCache:
    """Keys and values of the last `length` steps of each environment, per layer, as a ring.

    Appending a step writes one row per environment and layer and moves nothing. `seen[b]` counts the steps
    since environment `b` was last reset; the step being decoded goes to row `seen % length`. Once an episode
    is longer than `length`, the oldest row is overwritten, so the policy sees the last `length` steps.

    Use: for each step, `decode_attention` once per layer, then `advance()`.

    Args:
        layers: number of attention layers.
        environments: B, environments stepped together, each at its own time.
        heads: H. head_size: D. length: L, rows of the ring; at least 1.
        dtype: storage type of keys and values. device: where they live.
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
    ) -> None:
        for name, value in (("layers", layers), ("environments", environments), ("length", length)):
            if value < 1:
                raise ValueError(f"KVCache: expected at least 1 {name}, got {value}")
        shape = (layers, environments, heads, length, head_size)
        self.length = length
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.seen = torch.zeros(environments, dtype=torch.int64, device=device)
        self._rows = torch.arange(environments, device=device)
        self._longest = 0

    @property
    def environments(self) -> int:
        """B, the number of environments that the cache was made for."""
        return self.seen.shape[0]

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget the environments where `mask` [B] (bool) is True; all of them by default.

        Clears their values, so that nothing of an episode, not even a NaN times a weight of zero, reaches the next.
        """
        rows = self._rows if mask is None else mask.nonzero().squeeze(-1)
        self.seen[rows] = 0
        self.values[:, rows] = 0
        self._longest = int(self.seen.max())

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store k, v [B, H, D] of the step being decoded in row `seen % length` of each environment."""
        slot = self.seen % self.length
        self.keys[layer, self._rows, :, slot] = k.to(self.keys.dtype)
        self.values[layer, self._rows, :, slot] = v.to(self.values.dtype)

    def window(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """(keys, values, counts) with the step being decoded included, cut to the rows in use; views, no copies."""
        rows = min(self._longest + 1, self.length)
        counts = (self.seen + 1).clamp(max=self.length)
        return self.keys[layer, :, :, :rows], self.values[layer, :, :, :rows], counts

    def advance(self) -> None:
        """End the step: every environment has seen one more."""
        self.seen += 1
        self._longest += 1


def decode_attention(q: Tensor, k: Tensor, v: Tensor, cache: KVCache, layer: int) -> Tensor:
    """One new step of each environment: append its key and value to the cache, attend over what the cache holds.

    Args:
        q, k, v: [B, H, D] of the new step.
        cache: made for the same B, H and D; its row for this step is overwritten.
        layer: which layer of the cache.

    Returns:
        [B, H, D] in the dtype of `q`.

    Raises:
        ValueError: when the shapes do not fit the cache.
    """
    _, environments, heads, _, head_size = cache.keys.shape
    expected = (environments, heads, head_size)
    if any(tuple(x.shape) != expected for x in (q, k, v)):
        raise ValueError(
            f"decode_attention: expected q, k, v of shape [B, H, D] = {expected} as the cache was made for, "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    cache.write(layer, k, v)
    keys, values, counts = cache.window(layer)
    return reference.decode_attention(q, keys.to(q.dtype), values.to(q.dtype), counts)
