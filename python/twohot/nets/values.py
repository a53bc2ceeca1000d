"""What the outputs of a critic mean: classes of a return, or a normalised return.

Both kinds offer the same methods, so that an objective does not ask which it has. `state` is the part of the
state in the critics' first layer, for M steps [C, M, 1, hidden], and `features` are the input of their last layer,
`critics.head`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from twohot.losses import linear_bin_expectation
from twohot.losses.bins import ValueBins
from twohot.nets.critic import CriticEnsemble, nonzero_indices
from twohot.nets.output_critic import OutputCritics
from twohot.rl.popart import PopArt

CriticHeads = CriticEnsemble | OutputCritics


class _Values(nn.Module, ABC):
    """Values of actions, from those of R (step, discount, action)."""

    popart: PopArt

    def decode_actions(self, critics: CriticHeads, state: Tensor, action: Tensor, counts: Tensor) -> Tensor:
        """Values [C, M, G] of actions [M, G, *action], without gradient, of steps where `counts` [M] is True.

        Those of other steps are 0, or computed as well.
        """
        wanted = counts.unsqueeze(-1).expand(action.shape[:2])
        step, discount = nonzero_indices(wanted)
        value = self._values(critics, state, step, discount, action[step, discount])
        q = value.new_zeros(critics.critics, *wanted.shape)
        q[:, step, discount] = value
        return q

    def decode_choices(self, critics: CriticHeads, state: Tensor, wanted: Tensor) -> Tensor:
        """Values [C, M, G, A] of the choices that are `wanted` [M, G, A] (bool), without gradient.

        Those of others are 0, or computed as well.
        """
        step, discount, action = nonzero_indices(wanted)
        value = self._values(critics, state, step, discount, action)
        q = value.new_zeros(critics.critics, *wanted.shape)
        q[:, step, discount, action] = value
        return q

    def normalized_choices(self, critics: CriticHeads, state: Tensor, wanted: Tensor) -> Tensor:
        """As `decode_choices`, less PopArt's mean and by its deviation."""
        q = self.decode_choices(critics, state, wanted)
        return self.popart.normalize(q.movedim(2, -1)).movedim(-1, 2)

    @abstractmethod
    def _values(self, critics: CriticHeads, state: Tensor, step: Tensor, discount: Tensor, action: Tensor) -> Tensor:
        """[C, R] in units of the multiplied return, without gradient; arguments as `CriticEnsemble.values`."""


class ClassValues(_Values):
    """N classes of the return: two-hot labels, or HL-Gauss ones; the loss does not depend on the return's scale.

    PopArt's statistics are those of the targets too; an actor that maximises the values divides by them.

    Args:
        popart: with G discounts. bins: the support. sigma: of HL-Gauss labels, in bin widths; None for two-hot ones.
    """

    def __init__(self, popart: PopArt, bins: ValueBins, sigma: float | None = None) -> None:
        super().__init__()
        self.bins, self.sigma = bins, sigma
        self.popart = popart

    @property
    def outputs(self) -> int:
        """Outputs of a critic: N."""
        return self.bins.count

    def decode(self, critics: CriticHeads, features: Tensor) -> Tensor:
        """Values [C, M, G, ...], in units of the multiplied return, of features [C, M, G, ..., hidden]."""
        weight, bias = critics.head
        return linear_bin_expectation(features, weight, bias, self.bins)

    def _values(self, critics: CriticHeads, state: Tensor, step: Tensor, discount: Tensor, action: Tensor) -> Tensor:
        return _with_actions(critics).values(state, step, discount, action, self.bins)

    def normalized(self, critics: CriticHeads, features: Tensor) -> Tensor:
        """As `decode`, less PopArt's mean and by its deviation."""
        return self.popart.normalize(self.decode(critics, features).movedim(2, -1)).movedim(-1, 2)

    def loss(
        self, critics: CriticHeads, state: Tensor, action: Tensor, target: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of what was done against its target, and the value by each critic.

        Args:
            state: for M = B x L steps. action: [B, L, *action]. target: [B, L, G].
            mask: [B, L] bool, True where a step is real.

        Returns:
            A scalar, the mean over real steps, discounts and critics; and [C, B, L, G] without gradient, 0 where no
            step is.
        """
        action, target = action.flatten(0, 1), target.flatten(0, 1)
        loss, value = _with_actions(critics).cross_entropy(state, action, target, self.bins, mask.flatten(), self.sigma)
        return loss, value.unflatten(1, mask.shape)

    def update(self, target: Tensor, mask: Tensor) -> None:
        """Count targets [B, L, G] of the steps where mask [B, L] is True: those of a loss that was finite."""
        self.popart.update(target, mask, check=False)


def _with_actions(critics: CriticHeads) -> CriticEnsemble:
    """Critics that see an action, and so can have an output for each class."""
    if isinstance(critics, OutputCritics):
        raise TypeError("expected critics with the action as an input, got ones with an output for each action")
    return critics


class ScalarValues(_Values):
    """One number: the return less PopArt's mean, by its deviation; trained on its squared error.

    A factor and an offset for each discount stand after the critics' last layer, which all discounts share: they take
    up the moves of the statistics, and are the same for the critics and their targets.

    Args:
        popart: with G discounts.
    """

    outputs = 1
    factor: Tensor
    offset: Tensor

    def __init__(self, popart: PopArt) -> None:
        super().__init__()
        self.popart = popart
        self.register_buffer("factor", torch.ones(len(popart.mean)))
        self.register_buffer("offset", torch.zeros(len(popart.mean)))

    def normalized(self, critics: CriticHeads, features: Tensor) -> Tensor:
        """As `ClassValues.normalized`."""
        weight, bias = critics.head
        x = torch.bmm(features.flatten(1, -2), weight.mT).add_(bias.unsqueeze(1))
        x = x.squeeze(-1).unflatten(1, features.shape[1:-1]).movedim(2, -1)
        return (self.factor * x + self.offset).movedim(-1, 2)

    def decode(self, critics: CriticHeads, features: Tensor) -> Tensor:
        """As `ClassValues.decode`."""
        return self.popart.denormalize(self.normalized(critics, features).movedim(2, -1)).movedim(-1, 2)

    def _values(self, critics: CriticHeads, state: Tensor, step: Tensor, discount: Tensor, action: Tensor) -> Tensor:
        x = critics.outputs(state, step, discount, action)
        x = self.factor[discount] * x + self.offset[discount]
        return (self.popart.deviation[discount] * x + self.popart.mean[discount]).to(x.dtype)

    def loss(
        self, critics: CriticHeads, state: Tensor, action: Tensor, target: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `ClassValues.loss`."""
        action, target = action.flatten(0, 1), self.popart.normalize(target).flatten(0, 1)
        loss, x = critics.squared_error(state, action, target, self.factor, self.offset, mask.flatten())
        return loss, self.popart.denormalize(x.unflatten(1, mask.shape)).masked_fill(~mask.unsqueeze(-1), 0)

    def update(self, target: Tensor, mask: Tensor) -> None:
        """As `ClassValues.update`; no value changes."""
        self.popart.update(target, mask, [(self.factor, self.offset)], check=False)


def make_values(
    kind: str, discounts: int, bins: ValueBins, sigma: float, deviation: tuple[float, float]
) -> ClassValues | ScalarValues:
    """Values of a kind, as the configuration names it: "two_hot", "hl_gauss" or "scalar".

    Args:
        discounts: G. bins, sigma: of classes. deviation: the minimum and maximum that PopArt divides by.
    """
    popart = PopArt(discounts, minimum_deviation=deviation[0], maximum_deviation=deviation[1])
    if kind == "scalar":
        return ScalarValues(popart)
    return ClassValues(popart, bins, sigma if kind == "hl_gauss" else None)
