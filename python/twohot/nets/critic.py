"""Critic heads: an ensemble that classifies the return of (h_t, discount, action) over value bins."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from twohot.losses import symlog


class TwoHotCritics(nn.Module):
    """C independent MLPs from (h, discount, action) to N logits, with a factored first layer.

    The first layer is linear, so W [h; g; a] = W_h h + W_g g + W_a a: the part of h is computed once per step,
    that of the discount once per discount, and that of a discrete action is a row look-up. A discount is read
    as symlog(1 / (1 - gamma)).

    Args:
        width: E. hidden: units of each hidden layer. layers: hidden layers, at least 1.
        critics: C. discounts: the G discounts. actions: A. bins: N.
    """

    def __init__(
        self, width: int, hidden: int, layers: int, critics: int, discounts: tuple[float, ...], actions: int, bins: int
    ) -> None:
        super().__init__()
        self.critics, self.hidden = critics, hidden
        horizons = symlog(1 / (1 - torch.tensor(discounts, dtype=torch.float64))).float()
        self.register_buffer("horizons", horizons.unsqueeze(-1), persistent=False)
        # State, discount and action begin with equal shares of the first layer's variance. As one concatenated input,
        # the single number and the one-hot would drown in the `width` entries of h.
        self.state = nn.Parameter(torch.empty(critics * hidden, width).uniform_(-1, 1) / math.sqrt(width))
        self.discount = nn.Parameter(torch.empty(critics, 1, hidden).uniform_(-1, 1) / horizons.square().mean().sqrt())
        self.action = nn.Parameter(torch.empty(actions, critics, hidden).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.zeros(critics, 1, hidden))
        bound = 1 / math.sqrt(hidden)
        sizes = [hidden] * layers + [bins]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.weights = nn.ParameterList(torch.empty(critics, a, b).uniform_(-bound, bound) for a, b in pairs)
        self.biases = nn.ParameterList(torch.empty(critics, 1, b).uniform_(-bound, bound) for _, b in pairs)

    def state_features(self, h: Tensor) -> Tensor:
        """h [M, E] to its share of the first layer, [C, M, 1, hidden] (a view of one matrix product)."""
        return functional.linear(h, self.state).unflatten(-1, (self.critics, 1, self.hidden)).transpose(0, 1)

    def logits(self, state: Tensor, action: Tensor) -> Tensor:
        """Logits of one action per step and discount.

        Args:
            state: [C, M, 1, hidden] from `state_features`.
            action: [M, G] or [M, 1] integers; the latter means the same action for all discounts.

        Returns:
            [C, M, G, N].
        """
        discount = self.horizons * self.discount + self.bias  # [C, G, hidden]
        x = state + discount.unsqueeze(1) + self.action[action].movedim(2, 0)
        return self._tail(x)

    def all_logits(self, state: Tensor) -> Tensor:
        """Logits of every action: [C, M, G, A, N] for `state` [C, M, 1, hidden]."""
        discount = self.horizons * self.discount + self.bias
        each = discount.unsqueeze(2) + self.action.movedim(1, 0).unsqueeze(1)  # [C, G, A, hidden]
        return self._tail(state.unsqueeze(3) + each.unsqueeze(1))

    def _tail(self, x: Tensor) -> Tensor:
        rows = x.shape[1:-1]
        x = x.reshape(self.critics, -1, self.hidden)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            # In place where autograd keeps nothing: a fresh tensor of this size costs more in page faults than in work.
            x = torch.bmm(functional.leaky_relu(x, inplace=True), weight).add_(bias)
        return x.unflatten(1, rows)
