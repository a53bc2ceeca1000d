"""The causal Transformer over a trial: h_t from everything up to step t.

Pre-norm, with NormFormer's extra norms (Shleifer et al. 2021, arXiv 2110.09456), learned head scaling,
sigma-reparametrised linear layers, leaky ReLU, and positions of the step's index in the trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from twohot.attention import KVCache, causal_attention, decode_attention, prefill_attention
from twohot.kernels.activation import LEAKY_RELU_SLOPE
from twohot.kernels.transformer_layer import op as fused
from twohot.nets.interfaces import TrajectoryNetwork
from twohot.nets.linear import SigmaLinear
from twohot.nets.positions import make_positions


class TransformerLayer(nn.Module):
    """x + norm(attention(norm x)), then x + W2 norm(leaky_relu(W1 norm x))."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, rotary: float | None = None) -> None:
        super().__init__()
        self.heads, self.rotary = heads, rotary
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = SigmaLinear(width, 3 * width, bias=False)
        self.head_scale = nn.Parameter(torch.ones(heads, 1))
        self.out = SigmaLinear(width, width)
        self.norm_attended = nn.LayerNorm(width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.up = SigmaLinear(width, feed_forward)
        self.norm_hidden = nn.LayerNorm(feed_forward)
        self.down = SigmaLinear(feed_forward, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, L, E] to [B, L, E]."""
        dtype = fused.products_dtype(x, self.heads, self.up.weight.shape[0])
        if dtype is not None and self.norm_attention.weight.dtype == torch.float32:
            dropout = self.dropout.p if self.training else 0.0
            settings = fused.Settings(self.heads, self.rotary, self.norm_attention.eps, LEAKY_RELU_SLOPE, dropout)
            return fused.run(x, dtype, settings, self.folded())
        return self.block(x, partial(causal_attention, rotary=self.rotary))

    def prefill(self, x: Tensor, lengths: Tensor, cache: KVCache, layer: int) -> Tensor:
        """As `forward`, over the first `lengths` [B] steps of fresh episodes, which go into the cache."""
        return self.block(x, lambda q, k, v: prefill_attention(q, k, v, lengths, cache, layer))

    def block(self, x: Tensor, attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """x [B, L, E] to [B, L, E], with attention(q, k, v) from and to [B, L, H, D]."""
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        attended = (attention(q, k, v) * self.head_scale).flatten(2)
        x = x + self.norm_attended(self.out(attended))
        hidden = self.norm_hidden(functional.leaky_relu(self.up(self.norm_feed_forward(x)), inplace=True))
        return x + self.dropout(self.down(hidden))

    def folded(self) -> fused.Layer:
        """The weights as one layer needs them: gains over spectral norms, and scales of heads, multiplied in."""
        scales = self.head_scale.repeat_interleave(self.out.weight.shape[1] // self.heads, 0).flatten()
        return fused.Layer(
            *_of_norm(self.norm_attention),
            self.qkv.effective_weight(),
            self.out.effective_weight() * scales,
            _bias(self.out),
            *_of_norm(self.norm_attended),
            *_of_norm(self.norm_feed_forward),
            self.up.effective_weight(),
            _bias(self.up),
            *_of_norm(self.norm_hidden),
            self.down.effective_weight(),
            _bias(self.down),
        )

    def step(self, x: Tensor, cache: KVCache, layer: int) -> Tensor:
        """x [B, E], one step of each environment, to [B, E]; appends to the cache, builds no gradient."""
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1)).unbind(1)
        attended = (decode_attention(q, k, v, cache, layer) * self.head_scale).flatten(1)
        x = x + self.norm_attended(self.out(attended))
        hidden = self.norm_hidden(functional.leaky_relu(self.up(self.norm_feed_forward(x))))
        return x + self.down(hidden)


def _of_norm(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    return norm.weight, norm.bias


def _bias(layer: SigmaLinear) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def require_time(x: Tensor, time: Tensor) -> None:
    """Raise ValueError where there is not a time for each step of x [..., E]."""
    if time.shape != x.shape[:-1] or time.device != x.device:
        raise ValueError(
            f"Transformer: expected a time for each step of x {list(x.shape)} on {x.device}, got {list(time.shape)} on "
            f"{time.device}"
        )


class Transformer(TrajectoryNetwork):
    """A causal Transformer over [B, L, E] sequences, and its cached step.

    Args:
        width: E; must be even and divisible by `heads`. layers, heads: their numbers.
        feed_forward: hidden units of the feed-forward part. dropout: on the input and after the feed-forward part.
        context: L, the steps that the cached form looks back on.
        positions: a kind of `make_positions`. learned_positions: times that have a row each if they are learned;
            0 means the context.
        recompute: run each layer again in the backward pass, instead of keeping what it needs there.
        input_projection: whether a linear layer comes first.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        feed_forward: int,
        dropout: float,
        context: int,
        *,
        positions: Literal["fixed", "learned", "rotary"] = "fixed",
        learned_positions: int = 0,
        recompute: bool = False,
        input_projection: bool = False,
    ) -> None:
        super().__init__()
        self.width, self.heads, self.feed_forward, self.context = width, heads, feed_forward, context
        self.recompute = recompute
        self.inputs = nn.Linear(width, width) if input_projection else None
        self.positions = make_positions(positions, width, learned_positions or context)
        self.dropout = nn.Dropout(dropout)
        rotary = self.positions.rotary
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads, feed_forward, dropout, rotary) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    @property
    def blocks(self) -> Iterable[TransformerLayer]:
        """`layers`, in order; a ModuleList does not tell of which type they are."""
        return cast("Iterable[TransformerLayer]", self.layers)

    def mapped(self, x: Tensor) -> Tensor:
        """x [..., E] after the input projection, where there is one, in the dtype of the weights."""
        # Autocast would leave the residual stream in bfloat16.
        return (x if self.inputs is None else self.inputs(x)).to(self.norm.weight.dtype)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, L, E] embeddings, time [B, L] index of each step in its trial; returns h [B, L, E]."""
        require_time(x, time)
        x = self.mapped(x) + self.positions(time)
        drops = self.training and self.dropout.p > 0 and fused.drops_out(x)
        x = fused.dropout(x, self.dropout.p) if drops else self.dropout(x)
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.recompute else layer(x)
        return self.norm(x)

    def initial_cache(self, environments: int) -> KVCache:
        """An empty cache for `environments` (B) in the dtype and on the device of the weights."""
        like = self.norm.weight
        return KVCache(
            len(self.layers),
            environments,
            self.heads,
            self.width // self.heads,
            self.context,
            dtype=like.dtype,
            device=like.device,
            rotary=self.positions.rotary,
        )

    @torch.no_grad()
    def prefill(self, x: Tensor, time: Tensor, lengths: Tensor, cache: KVCache) -> Tensor:
        """x [B, L, E], time [B, L]: the first `lengths` [B] steps of fresh episodes at once; returns h [B, L, E].

        Leaves the cache as `step` would after each of these steps; h is meaningless from `lengths` on.
        """
        require_time(x, time)
        x = self.dropout(self.mapped(x) + self.positions(time))
        for index, layer in enumerate(self.blocks):
            x = layer.prefill(x, lengths, cache, index)
        cache.advance(lengths)
        return self.norm(x)

    @torch.no_grad()
    def step(self, x: Tensor, time: Tensor, cache: KVCache) -> Tensor:
        """x [B, E], time [B]: one step of each environment; returns h [B, E] and moves the cache on by one step.

        While an episode fits in `context`, equals the last row of `forward` over the whole episode (without dropout).
        """
        require_time(x, time)
        x = self.mapped(x) + self.positions(time)
        for index, layer in enumerate(self.blocks):
            x = layer.step(x, cache, index)
        cache.advance()
        return self.norm(x)
