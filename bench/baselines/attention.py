"""What the official AMAGO code does for attention and for a step of its Transformer, in our own lines.

Caches are [B, L, H, D], rolled by copying once they are full; scores are computed over the whole cache with a mask that
is built for each call; spectral norms are estimated from the weights in each call.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from twohot.nets.transformer import Transformer


class RollingCache:
    """Keys and values [B, L, H, D] of one layer, the newest step last once it is full."""

    def __init__(self, environments: int, length: int, heads: int, size: int, dtype: torch.dtype) -> None:
        self.keys = torch.zeros(environments, length, heads, size, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self.cache_position = torch.zeros(environments, dtype=torch.int64)

    def append(self, k: Tensor, v: Tensor) -> None:
        """Write k, v [B, H, D] after the last step; full rows move on by one first."""
        length = self.keys.shape[1]
        full = self.cache_position >= length
        for cache in (self.keys, self.values):
            moved = cache.roll(-1, dims=1)
            cache.copy_(torch.where(full[:, None, None, None], moved, cache))
        slot = self.cache_position.clamp(max=length - 1)
        rows = torch.arange(len(slot))
        self.keys[rows, slot], self.values[rows, slot] = k, v
        self.cache_position += 1


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D) + mask) v for q [B, T, H, D], k, v [B, L, H, D], mask [B, T, L]; no fused kernel."""
    scores = torch.einsum("bthd,blhd->bhtl", q, k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~mask.unsqueeze(1), -math.inf).softmax(-1)
    return torch.einsum("bhtl,blhd->bthd", weights, v)


def step_attention(q: Tensor, k: Tensor, v: Tensor, cache: RollingCache) -> Tensor:
    """[B, H, D] of one new step."""
    cache.append(k, v)
    mask = torch.arange(cache.keys.shape[1]) < cache.cache_position.unsqueeze(1)
    return attention(q.unsqueeze(1), cache.keys, cache.values, mask.unsqueeze(1)).squeeze(1)


@torch.no_grad()
def transformer_step(module: Transformer, x: Tensor, time: Tensor, caches: list[RollingCache]) -> Tensor:
    """As `Transformer.step`, h [B, E], with the weights of `module`."""

    def linear(layer, x: Tensor) -> Tensor:
        u = functional.normalize(layer.weight @ layer.v, dim=0)
        v = functional.normalize(layer.weight.T @ u, dim=0)
        sigma = torch.dot(u, layer.weight @ v)
        return functional.linear(x, layer.gain / sigma * layer.weight, layer.bias)

    x = x + module.positions(time)
    for layer, cache in zip(module.layers, caches, strict=True):
        q, k, v = linear(layer.qkv, layer.norm_attention(x)).unflatten(-1, (3, layer.heads, -1)).unbind(1)
        attended = (step_attention(q, k, v, cache) * layer.head_scale).flatten(1)
        x = x + layer.norm_attended(linear(layer.out, attended))
        hidden = functional.leaky_relu(linear(layer.up, layer.norm_feed_forward(x)))
        x = x + linear(layer.down, layer.norm_hidden(hidden))
    return module.norm(x)
