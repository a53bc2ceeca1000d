"""Actor heads: h_t to a distribution over actions, for every discount at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from twohot.nets.linear import MLP


def sample_actions(log_pi: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One action from log pi [..., A], by inversion of the cumulative distribution; returns [...] int64.

    Numbers are drawn on the generator's device, so that a CPU generator gives the same actions on every device.
    """
    cumulative = log_pi.exp().cumsum(-1)
    device = log_pi.device if generator is None else generator.device
    drawn = torch.rand((*log_pi.shape[:-1], 1), dtype=log_pi.dtype, device=device, generator=generator)
    drawn = drawn.to(log_pi.device)
    return (drawn * cumulative[..., -1:] >= cumulative[..., :-1]).sum(-1)


class DiscreteActor(nn.Module):
    """An MLP from h [..., E] to log-probabilities [..., G, A], clipped to [floor, ceiling] and normalised again.

    Args:
        width: E. hidden, layers: of the MLP. discounts: G. actions: A.
        floor, ceiling: bounds of a probability before it is normalised again; floor keeps every action alive.
    """

    def __init__(
        self, width: int, hidden: int, layers: int, discounts: int, actions: int, floor: float, ceiling: float
    ) -> None:
        super().__init__()
        self.discounts, self.actions = discounts, actions
        self.floor, self.ceiling = floor, ceiling
        self.network = MLP(width, hidden, layers, discounts * actions)

    def _bounded(self, logits: Tensor) -> Tensor:
        probability = functional.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)).clamp(self.floor, self.ceiling)
        return (probability / probability.sum(-1, keepdim=True)).log()

    def forward(self, h: Tensor) -> Tensor:
        """h [..., E] to log pi [..., G, A]."""
        return self._bounded(self.network(h).unflatten(-1, (self.discounts, self.actions)))

    def acting(self, h: Tensor) -> Tensor:
        """h [..., E] to log pi [..., A] at the last discount, the one that acts."""
        *hidden, last = self.network
        for module in hidden:
            h = module(h)
        return self._bounded(functional.linear(h, last.weight[-self.actions :], last.bias[-self.actions :]))
