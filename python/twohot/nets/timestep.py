"""Timestep encoders: observation, previous action and previous reward of one step to one embedding."""

from __future__ import annotations

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from twohot.losses import symlog
from twohot.nets.actions import ActionLinear
from twohot.nets.linear import MLP
from twohot.spaces import OBSERVATION


class RunningNormalization(nn.Module):
    """(x - mean) / std of everything seen so far, clipped to +-10; the statistics are part of the checkpoint.

    Args:
        size: features, normalised one by one.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, x: Tensor, mask: Tensor) -> None:
        """Merge the rows of x [..., size] where mask [...] (bool) is True (Chan et al. 1979)."""
        rows = x[mask].to(torch.float64)
        if rows.shape[0] == 0:
            return
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        total = self.count + rows.shape[0]
        share = rows.shape[0] / total
        delta = mean - self.mean
        if self.count > 0:
            variance = self.variance * (1 - share) + variance * share + delta.square() * share * (1 - share)
        self.mean.copy_(self.mean + delta * share)
        self.variance.copy_(variance)
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] to [..., size]."""
        return ((x - self.mean) * torch.rsqrt(self.variance + 1e-4)).clamp(-10, 10)


class VectorEncoder(nn.Module):
    """Flat observations: normalised [observation, symlog(previous reward)] and the previous action through an MLP.

    The previous action enters the first layer through an `ActionLinear`; at a trial's first step, which has none, it
    contributes nothing. The previous reward is 0 there.

    Args:
        observation_space: its entry "observation" is a Box [O]. action_space: of the previous action.
        hidden, layers: of the MLP. width: E, the embedding.
    """

    def __init__(
        self, observation_space: spaces.Dict, action_space: Space, hidden: int, layers: int, width: int
    ) -> None:
        super().__init__()
        (size,) = observation_space[OBSERVATION].shape
        self.normalization = RunningNormalization(size + 1)
        self.previous_action = ActionLinear(action_space, hidden, (size + 1) ** -0.5)
        self.inputs = nn.Linear(size + 1, hidden)
        self.hidden = MLP(hidden, hidden, layers - 1, width)
        self.norm = nn.LayerNorm(width)

    @staticmethod
    def _features(observation: dict[str, Tensor], previous_reward: Tensor) -> Tensor:
        return torch.cat((observation[OBSERVATION], symlog(previous_reward).unsqueeze(-1)), dim=-1)

    def update_statistics(self, observation: dict[str, Tensor], previous_reward: Tensor, mask: Tensor) -> None:
        """Merge the steps where mask [...] (bool) is True into the running normalisation."""
        self.normalization.update(self._features(observation, previous_reward), mask)

    def forward(
        self, observation: dict[str, Tensor], previous_action: Tensor, previous_reward: Tensor, time: Tensor
    ) -> Tensor:
        """Observations [..., *shape], previous_action [..., *action], previous_reward and time [...] to [..., E]."""
        features = self.normalization(self._features(observation, previous_reward))
        before = self.previous_action(previous_action) * (time > 0).unsqueeze(-1)
        return self.norm(self.hidden(nn.functional.leaky_relu(self.inputs(features) + before)))
