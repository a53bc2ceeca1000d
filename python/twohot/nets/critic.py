"""Critic heads: an ensemble that classifies the return of (h_t, discount, action) over value bins."""

from __future__ import annotations

import math

import torch
from gymnasium import Space
from torch import Tensor, nn
from torch.nn import functional

from twohot.losses import symlog
from twohot.nets.actions import ActionLinear


class TwoHotCritics(nn.Module):
    """C independent MLPs from (h, discount, action) to N logits, with a factored first layer.

    The first layer is linear, so W [h; g; a] = W_h h + W_g g + W_a a: the part of h is computed once per step,
    that of the discount once per discount, and that of a discrete action is a row look-up (`ActionLinear`). A discount
    is read as symlog(1 / (1 - gamma)).

    Args:
        width: E. hidden: units of each hidden layer. layers: hidden layers, at least 1.
        critics: C. discounts: the G discounts. action_space: of the actions. bins: N.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        layers: int,
        critics: int,
        discounts: tuple[float, ...],
        action_space: Space,
        bins: int,
    ) -> None:
        super().__init__()
        self.critics, self.hidden = critics, hidden
        horizons = symlog(1 / (1 - torch.tensor(discounts, dtype=torch.float64))).float()
        self.register_buffer("horizons", horizons.unsqueeze(-1), persistent=False)
        # State, discount and action begin with equal shares of the first layer's variance. As one concatenated input,
        # the single number and the one-hot would drown in the `width` entries of h.
        self.state = nn.Parameter(torch.empty(critics * hidden, width).uniform_(-1, 1) / math.sqrt(width))
        self.discount = nn.Parameter(torch.empty(critics, 1, hidden).uniform_(-1, 1) / horizons.square().mean().sqrt())
        self.action = ActionLinear(action_space, critics * hidden, 1.0)
        self.bias = nn.Parameter(torch.zeros(critics, 1, hidden))
        bound = 1 / math.sqrt(hidden)
        sizes = [hidden] * layers + [bins]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.weights = nn.ParameterList(torch.empty(critics, a, b).uniform_(-bound, bound) for a, b in pairs)
        self.biases = nn.ParameterList(torch.empty(critics, 1, b).uniform_(-bound, bound) for _, b in pairs)

    def state_features(self, h: Tensor) -> Tensor:
        """h [M, E] to its share of the first layer, [C, M, 1, hidden] (a view of one matrix product)."""
        return functional.linear(h, self.state).unflatten(-1, (self.critics, 1, self.hidden)).transpose(0, 1)

    def features(self, state: Tensor, action: Tensor) -> Tensor:
        """Input of the last layer for one action per step and discount.

        Args:
            state: [C, M, 1, hidden] from `state_features`.
            action: [M, G, *action] or [M, 1, *action]; the latter means the same action for all discounts.

        Returns:
            [C, M, G, hidden]. The last layer is `head`, which the fused losses take beside it.
        """
        discount = self.horizons * self.discount + self.bias  # [C, G, hidden]
        action = self.action(action).unflatten(-1, (self.critics, self.hidden)).movedim(-2, 0)
        return self._hidden(state + discount.unsqueeze(1) + action)

    def all_features(self, state: Tensor) -> Tensor:
        """Input of the last layer for all A actions: [C, M, G, A, hidden] for `state` [C, M, 1, hidden]."""
        discount = self.horizons * self.discount + self.bias
        actions = self.action.table.unflatten(-1, (self.critics, self.hidden)).movedim(1, 0)  # [C, A, hidden]
        each = discount.unsqueeze(2) + actions.unsqueeze(1)  # [C, G, A, hidden]
        return self._hidden(state.unsqueeze(3) + each.unsqueeze(1))

    @property
    def head(self) -> tuple[Tensor, Tensor]:
        """Weight [C, N, hidden] and bias [C, N] of the last layer."""
        return self.weights[-1].transpose(1, 2), self.biases[-1].squeeze(1)

    def logits(self, state: Tensor, action: Tensor) -> Tensor:
        """[C, M, G, N] logits of one action per step and discount; arguments as `features`."""
        return self._head(self.features(state, action))

    def all_logits(self, state: Tensor) -> Tensor:
        """Logits of every action: [C, M, G, A, N] for `state` [C, M, 1, hidden]."""
        return self._head(self.all_features(state))

    def _hidden(self, x: Tensor) -> Tensor:
        rows = x.shape[1:-1]
        x = x.reshape(self.critics, -1, self.hidden)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            # In place where autograd keeps nothing: a fresh tensor of this size costs more in page faults than in work.
            x = torch.bmm(functional.leaky_relu(x, inplace=True), weight).add_(bias)
        return functional.leaky_relu(x, inplace=True).unflatten(1, rows)

    def _head(self, x: Tensor) -> Tensor:
        return torch.bmm(x.flatten(1, -2), self.weights[-1]).add_(self.biases[-1]).unflatten(1, x.shape[1:-1])
