"""Critic heads that never see an action: one output for each choice and discount."""

from __future__ import annotations

import math

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from twohot.nets.actions import soften
from twohot.nets.critic import nonzero_indices


class OutputCritics(nn.Module):
    """C independent MLPs from h to an output for each of G discounts and A choices (Grigsby et al. 2023, AMAGO).

    Has the methods of `CriticEnsemble` that scalar values call. `state_features` are all
    outputs of a state, [C, M, G, A]; the features of an action are its one output, which `head` passes on.

    Args:
        width: E. hidden: units of each hidden layer. layers: hidden layers, at least 1.
        critics: C. discounts: G. action_space: of A choices.
        softened: floor and ceiling of choices that were taken, as in `CriticEnsemble`.
    """

    others: Tensor

    def __init__(
        self,
        width: int,
        hidden: int,
        layers: int,
        critics: int,
        discounts: int,
        action_space: spaces.Discrete,
        *,
        softened: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.critics, self.discounts, self.softened = critics, discounts, softened
        choices = int(action_space.n)
        self.register_buffer("others", torch.full((choices,), choices - 1.0), persistent=False)
        sizes = [width, *[hidden] * layers, discounts * choices]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
            bound = 1 / math.sqrt(inputs)
            self.weights.append(torch.empty(critics, inputs, outputs).uniform_(-bound, bound))
            self.biases.append(torch.empty(critics, 1, outputs).uniform_(-bound, bound))

    @property
    def head(self) -> tuple[Tensor, Tensor]:
        """Weight [C, 1, 1] and bias [C, 1] that pass on the features of an action."""
        return self.biases[-1].new_ones(self.critics, 1, 1), self.biases[-1].new_zeros(self.critics, 1)

    def taken(self, action: Tensor) -> Tensor:
        """Actions [...] that were taken, as they are, or softened: [..., A]."""
        return action if self.softened is None else soften(action.long().unsqueeze(-1), self.others, *self.softened)

    def state_features(self, h: Tensor) -> Tensor:
        """h [M, E] to all outputs [C, M, G, A], in float32 at least."""
        x = h.expand(self.critics, *h.shape)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.bmm(functional.leaky_relu(x) if index else x, weight) + bias
        return x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (self.discounts, -1))

    def features(self, state: Tensor, action: Tensor) -> Tensor:
        """[C, M, G, 1] for action [M, G] or [M, 1], or for such vectors [..., A], by which outputs are weighted."""
        if action.is_floating_point():
            return (state * action).sum(-1, keepdim=True)
        choice = action.long().expand(state.shape[1:3]).unsqueeze(-1)
        return state.gather(-1, choice.expand(self.critics, *choice.shape))

    def all_features(self, state: Tensor) -> Tensor:
        """[C, M, G, A, 1] of all actions."""
        return state.unsqueeze(-1)

    def squared_error(
        self, state: Tensor, action: Tensor, target: Tensor, factor: Tensor, offset: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `CriticEnsemble.squared_error`."""
        (step,) = nonzero_indices(mask)
        counted = mask[step].unsqueeze(-1)
        x = self.features(state[:, step], self.taken(action)[step].unsqueeze(1)).squeeze(-1)
        value = factor.to(x.dtype) * x + offset.to(x.dtype)  # [C, R, G]
        error = (value - target[step].to(x.dtype)).square().masked_fill(~counted, 0)
        loss = error.sum() / (counted.sum() * self.critics * self.discounts).clamp(min=1)
        found = value.new_zeros(self.critics, len(mask), self.discounts)
        found[:, step] = value.detach()
        return loss, found

    @torch.no_grad()
    def outputs(self, state: Tensor, step: Tensor, discount: Tensor, action: Tensor) -> Tensor:
        """As `CriticEnsemble.outputs`, for choices [R]."""
        return state[:, step, discount, action.long()]
