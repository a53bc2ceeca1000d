"""Trajectory encoders beside the Transformer: a GRU, a feed-forward network without memory, and nothing at all.

Each has `forward` over windows, `initial_cache`, and `step`, whose row equals that of `forward`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from twohot.kernels.backend import without_autocast
from twohot.nets.interfaces import TrajectoryNetwork
from twohot.nets.linear import SigmaLinear


class GRUCache:
    """States of a GRU for `B` environments."""

    def __init__(self, state: Tensor) -> None:
        self.state = state
        """[layers, B, E]."""

    def reset(self, mask: Tensor) -> None:
        """Forget the environments where mask [B] (bool) is True."""
        self.state = self.state.masked_fill(mask[:, None], 0)


class GRUMemory(TrajectoryNetwork):
    """norm(W gru(x) + b).

    Args:
        width: E, of inputs, states and outputs. layers: of the GRU. dropout: between its layers, in training.
    """

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def _run(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        # A state that thousands of small changes make would lose them in bfloat16.
        with without_autocast(x.device):
            states, last = self.gru(x.to(self.out.weight.dtype), state)
        return self.norm(self.out(states)), last

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, L, E] embeddings of consecutive steps, which begin without memory; returns h [B, L, E]."""
        return self._run(x, None)[0]

    def initial_cache(self, environments: int) -> GRUCache:
        """States of zero for `environments` (B) in the dtype and on the device of the weights."""
        weight = self.out.weight
        return GRUCache(weight.new_zeros(self.gru.num_layers, environments, weight.shape[0]))

    @torch.no_grad()
    def step(self, x: Tensor, time: Tensor, cache: GRUCache) -> Tensor:
        """x [B, E], time [B]: one step of each environment; returns h [B, E] and moves the cache on by one step."""
        h, cache.state = self._run(x.unsqueeze(1), cache.state)
        return h.squeeze(1)


class NoCache:
    """What a trajectory encoder without memory remembers."""

    def reset(self, mask: Tensor) -> None:
        """There is nothing to forget."""


class FeedForwardLayer(nn.Module):
    """x + W2 norm(leaky_relu(W1 norm x)): the Transformer's layer without its attention."""

    def __init__(self, width: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = SigmaLinear(width, feed_forward)
        self.norm_hidden = nn.LayerNorm(feed_forward)
        self.down = SigmaLinear(feed_forward, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., E] to [..., E]."""
        hidden = self.norm_hidden(functional.leaky_relu(self.up(self.norm(x))))
        return x + self.dropout(self.down(hidden))


class FeedForwardMemory(TrajectoryNetwork):
    """Layers over each step by itself: what the Transformer is without memory and positions.

    Args:
        width: E. layers: their number. feed_forward: hidden units. dropout: on the input and in each layer.
    """

    def __init__(self, width: int, layers: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(*(FeedForwardLayer(width, feed_forward, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [..., E] to h [..., E]; the time is not read."""
        return self.norm(self.layers(self.dropout(x)))

    def initial_cache(self, environments: int) -> NoCache:
        """Nothing."""
        return NoCache()

    @torch.no_grad()
    def step(self, x: Tensor, time: Tensor, cache: NoCache) -> Tensor:
        """x [B, E] to h [B, E]."""
        return self(x, time)


class IdentityMemory(TrajectoryNetwork):
    """h = x: the policy sees one step at a time."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [..., E], as it is."""
        return x

    def initial_cache(self, environments: int) -> NoCache:
        """Nothing."""
        return NoCache()

    def step(self, x: Tensor, time: Tensor, cache: NoCache) -> Tensor:
        """x [B, E], as it is."""
        return x
