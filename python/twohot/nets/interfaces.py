"""What the three networks of an agent that are chosen by name have to do (docs/own_networks.md).

A network need not derive from these: it is called by these methods. Each may also have `forward_with_losses`, which
takes what `forward` takes and returns a pair: what `forward` returns, and losses of its own, {name: one for each step,
[B, L, ...]}, which the learner adds to the agent's. Shapes: `B` sequences or environments, `L` steps, `E` width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from twohot.nets.policies import Policy

__all__ = ["ActorNetwork", "Cache", "Given", "TimestepNetwork", "TrajectoryNetwork"]


def with_losses(network: nn.Module, *arguments: Any) -> tuple[Any, dict[str, Tensor]]:
    """What a network makes of its arguments, and the losses that it adds, if it is one that does."""
    method = getattr(network, "forward_with_losses", None)
    return (network(*arguments), {}) if method is None else method(*arguments)


class Given(NamedTuple):
    """What a policy acts on, as environments and their callers have it: arrays of B rows."""

    observation: dict[str, np.ndarray]
    previous_action: np.ndarray
    previous_reward: np.ndarray

    def tensors(self, device: torch.device | None = None) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """As `FrozenPolicy.act` takes them."""
        on_cpu = device is None or device.type == "cpu"
        to = torch.from_numpy if on_cpu else lambda array: torch.from_numpy(array).to(device)
        return {name: to(x) for name, x in self.observation.items()}, to(self.previous_action), to(self.previous_reward)


class Cache(Protocol):
    """What a trajectory encoder remembers."""

    def reset(self, mask: Tensor) -> None:
        """Forget the environments where mask [B] (bool) is True."""


class TimestepNetwork(nn.Module):
    """From what is seen at a step to an embedding."""

    def forward(
        self,
        observation: dict[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
        time: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Embeddings [..., E] of steps, which are real where mask [...] (bool) is True."""
        raise NotImplementedError

    def update_statistics(self, observation: dict[str, Tensor], previous_reward: Tensor, mask: Tensor) -> None:
        """Count the steps where mask [...] (bool) is True; called before each gradient step."""
        raise NotImplementedError


class TrajectoryNetwork(nn.Module):
    """From embeddings of the steps so far to h.

    One that acts at random has `sample(time, cache, generator)` too: it is called before `step` where actions are
    sampled, and draws from the generator what that step needs.
    """

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, L, E], time [B, L] to h [B, L, E], causally."""
        raise NotImplementedError

    def initial_cache(self, environments: int) -> Cache:
        """What is remembered of `environments` (B) trials before their first step."""
        raise NotImplementedError

    def step(self, x: Tensor, time: Tensor, cache: Any) -> Tensor:
        """x [B, E], time [B] of the next step to h [B, E], without gradient; `cache` is what `initial_cache` gave."""
        raise NotImplementedError


class ActorNetwork(nn.Module):
    """From h to a policy."""

    def forward(self, h: Tensor, action_mask: Tensor | None = None) -> Policy:
        """h [..., E] to a policy [..., G], one for each discount."""
        raise NotImplementedError

    def acting(self, h: Tensor, action_mask: Tensor | None = None) -> Policy:
        """h [..., E] to the policy [...] at the last discount, the one that acts."""
        raise NotImplementedError
