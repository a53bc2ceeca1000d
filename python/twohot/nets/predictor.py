"""What the next step will bring, from memory and the action: an auxiliary task, which nothing acts on."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn
from torch.nn import functional

from twohot.nets.actions import ActionLinear
from twohot.nets.linear import MLP
from twohot.nets.normalization import RunningNormalization
from twohot.nets.timestep import kinds_of
from twohot.spaces import shape_of


class Predictor(nn.Module):
    """An MLP from h_t and a_t to the vectors in o_{t+1}, normalised, and to logits of classes of r_t.

    The next step alone of what VariBAD's decoder tells of a trial (Zintgraf et al. 2020, arXiv 1910.08348). Images,
    grids and tokens are not predicted.

    Args:
        observation_space: what is seen; vectors are taken in the order of their names. action_space: of the action.
        width: E. hidden, layers: of the MLP. bins: N, classes of the reward. excluded_keys: of the observation.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: Space,
        width: int,
        hidden: int,
        layers: int,
        bins: int,
        *,
        excluded_keys: Collection[str] = ("action_mask",),
    ) -> None:
        super().__init__()
        kinds = kinds_of(observation_space, excluded_keys)
        self.vectors = [name for name, kind in kinds.items() if kind == "vector"]
        self.size = sum(math.prod(shape_of(observation_space[name])) for name in self.vectors)
        self.normalization = RunningNormalization(self.size)
        self.state = nn.Linear(width, hidden)
        self.action = ActionLinear(action_space, hidden, width**-0.5)
        self.network = MLP(hidden, hidden, layers - 1, self.size + bins)

    def forward(self, h: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """h [..., E], action [..., *action] to predicted `targets` [..., size] and logits of the reward [..., N]."""
        hidden = functional.leaky_relu(self.state(h) + self.action(action), inplace=True)
        observation, reward = self.network(hidden).tensor_split((self.size,), dim=-1)
        return observation, reward

    def features(self, observation: dict[str, Tensor]) -> Tensor:
        """The vectors of an observation, side by side, [B, L, size] float32."""
        like = self.normalization.mean
        parts = [observation[name].flatten(2).to(like.dtype) for name in self.vectors]
        if not parts:
            return like.new_zeros(*next(iter(observation.values())).shape[:2], 0)
        return torch.cat(parts, dim=-1)

    def targets(self, observation: dict[str, Tensor]) -> Tensor:
        """The vectors, normalised by running statistics, [B, L, size]."""
        return self.normalization(self.features(observation))

    def update_statistics(self, observation: dict[str, Tensor], mask: Tensor) -> None:
        """Merge the steps where mask [B, L] (bool) is True into the running normalisation."""
        if self.size:
            self.normalization.update(self.features(observation), mask)
