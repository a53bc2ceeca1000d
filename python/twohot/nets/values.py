"""What the outputs of a critic mean: classes of a return, or a normalised return.

Both kinds offer the same methods, so that an objective does not ask which it has. `features` are the input of the
critics' last layer, `critics.head`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from twohot.bins import ValueBins
from twohot.losses import linear_bin_expectation, linear_hl_gauss_cross_entropy, linear_two_hot_cross_entropy
from twohot.rl.advantages import masked_mean
from twohot.rl.popart import PopArt


class ClassValues(nn.Module):
    """N classes of the return: two-hot labels, or HL-Gauss ones; the loss does not depend on the return's scale.

    PopArt's statistics are those of the targets too; an actor that climbs the values divides by them.

    Args:
        discounts: G. bins: the support. sigma: of HL-Gauss labels, in bin widths; None for two-hot ones.
    """

    def __init__(self, discounts: int, bins: ValueBins, sigma: float | None = None) -> None:
        super().__init__()
        self.bins, self.sigma = bins, sigma
        self.popart = PopArt(discounts)

    @property
    def outputs(self) -> int:
        """Outputs of a critic: N."""
        return self.bins.count

    def read(self, critics: nn.Module, features: Tensor) -> Tensor:
        """Values [C, M, G, ...], in units of the multiplied return, of features [C, M, G, ..., hidden]."""
        return linear_bin_expectation(features, *critics.head, self.bins)

    def normalized(self, critics: nn.Module, features: Tensor) -> Tensor:
        """As `read`, less PopArt's mean and by its deviation."""
        return self.popart.normalize(self.read(critics, features).movedim(2, -1)).movedim(-1, 2)

    def loss(self, critics: nn.Module, features: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of features [C, B, L, G, hidden] against target [B, L, G], and the values that they have.

        Args:
            mask: [B, L] bool, True where a step is real.

        Returns:
            A scalar, the mean over real steps, discounts and critics; and [C, B, L, G] without gradient, 0 where no
            step is.
        """
        options = {"mask": mask.unsqueeze(-1), "return_readout": True}
        if self.sigma is None:
            return linear_two_hot_cross_entropy(features, *critics.head, target, self.bins, **options)
        return linear_hl_gauss_cross_entropy(features, *critics.head, target, self.bins, self.sigma, **options)

    def update(self, target: Tensor, mask: Tensor) -> None:
        """Count targets [B, L, G] of the steps where mask [B, L] is True."""
        self.popart.update(target, mask)


class ScalarValues(nn.Module):
    """One number: the return less PopArt's mean, by its deviation; trained on its squared error.

    A factor and an offset for each discount stand behind the critics' last layer, which all discounts share: they take
    up the moves of the statistics, and are the same for the critics and their targets.

    Args:
        discounts: G.
    """

    outputs = 1

    def __init__(self, discounts: int) -> None:
        super().__init__()
        self.popart = PopArt(discounts)
        self.register_buffer("factor", torch.ones(discounts))
        self.register_buffer("offset", torch.zeros(discounts))

    def _outputs(self, critics: nn.Module, features: Tensor) -> Tensor:
        weight, bias = critics.head
        x = torch.bmm(features.flatten(1, -2), weight.mT).add_(bias.unsqueeze(1))
        return x.squeeze(-1).unflatten(1, features.shape[1:-1])

    def normalized(self, critics: nn.Module, features: Tensor) -> Tensor:
        """As `ClassValues.normalized`."""
        x = self._outputs(critics, features).movedim(2, -1)
        return (self.factor * x + self.offset).movedim(-1, 2)

    def read(self, critics: nn.Module, features: Tensor) -> Tensor:
        """As `ClassValues.read`."""
        return self.popart.denormalize(self.normalized(critics, features).movedim(2, -1)).movedim(-1, 2)

    def loss(self, critics: nn.Module, features: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """As `ClassValues.loss`."""
        x = self.factor * self._outputs(critics, features) + self.offset
        loss = masked_mean((x - self.popart.normalize(target)).square().mean(0), mask)
        return loss, self.popart.denormalize(x.detach()).masked_fill(~mask.unsqueeze(-1), 0)

    def update(self, target: Tensor, mask: Tensor) -> None:
        """As `ClassValues.update`; the values that are read do not change."""
        self.popart.update(target, mask, [(self.factor, self.offset)])


def make_values(kind: str, discounts: int, bins: ValueBins, sigma: float) -> ClassValues | ScalarValues:
    """Values of a kind, as the configuration names it: "two_hot", "hl_gauss" or "scalar"."""
    if kind == "scalar":
        return ScalarValues(discounts)
    return ClassValues(discounts, bins, sigma if kind == "hl_gauss" else None)
