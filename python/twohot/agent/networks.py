"""One agent: timestep encoder, trajectory encoder, actor, critics and their target heads; what it does with them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import torch
from gymnasium import Space
from torch import Tensor, nn

from twohot.agent.build import make_actor, make_critics, make_timestep_encoder, make_trajectory_encoder
from twohot.config import AgentConfig
from twohot.nets.actions import every_action
from twohot.nets.linear import SigmaLinear
from twohot.nets.values import make_values
from twohot.spaces import ACTION_MASK, as_dict_space, check_action_mask, check_action_space


class Cache(Protocol):
    """What a trajectory encoder remembers."""

    def reset(self, mask: Tensor) -> None:
        """Forget the environments where mask [B] (bool) is True."""


@dataclass
class ActingState:
    """What a policy remembers of `B` environments: the cache, and each one's step in its trial."""

    cache: Cache
    time: Tensor
    """[B] int64, index in its trial of the step that comes next."""

    def reset(self, mask: Tensor) -> None:
        """Begin new trials where mask [B] (bool) is True."""
        self.cache.reset(mask)
        self.time.masked_fill_(mask, 0)


class AgentNetworks(nn.Module):
    """The AMAGO-2 agent.

    Args:
        config: sizes of the networks.
        observation_space: what it sees: a Box, or a Dict of Boxes. action_space: what it does.

    Raises:
        SpaceError: for a space that no network here takes.
        UnknownNetworkError: when the configuration names a network that is not registered.
    """

    def __init__(self, config: AgentConfig, observation_space: Space, action_space: Space) -> None:
        super().__init__()
        check_action_space(action_space)
        self.config = config
        self.observation_space, self.action_space = as_dict_space(observation_space), action_space
        check_action_mask(self.observation_space, action_space)
        self.enumerable = every_action(action_space) is not None
        self.timestep_encoder = make_timestep_encoder(config, self.observation_space, action_space)
        self.trajectory_encoder = make_trajectory_encoder(config)
        self.actor = make_actor(config, action_space)
        self.values = make_values(
            config.critic, len(config.discounts), config.bins, config.hl_gauss_sigma, config.popart_deviation
        )
        self.critics = make_critics(config, action_space, self.values.outputs)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.register_buffer("discounts", torch.tensor(config.discounts), persistent=False)

    def trained_parameters(self) -> list[nn.Parameter]:
        """Everything that the optimiser moves: all but the target heads."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def encode(
        self,
        observation: dict[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
        time: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """h [B, L, E] of windows.

        Args:
            observation: each [B, L, *shape]. previous_action: [B, L, *action]. previous_reward, time: [B, L].
            mask: [B, L] bool, True where there is something to see; None: everywhere. It may save time.
        """
        embedded = self.timestep_encoder(observation, previous_action, previous_reward, time, mask)
        return self.trajectory_encoder(embedded, time)

    def initial_state(self, environments: int) -> ActingState:
        """Memory for acting in `environments` (B) fresh trials."""
        cache = self.trajectory_encoder.initial_cache(environments)
        return ActingState(cache, torch.zeros(environments, dtype=torch.int64, device=self.discounts.device))

    @torch.no_grad()
    def remember(
        self,
        state: ActingState,
        observation: dict[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
    ) -> Tensor:
        """h [B, E] of the next step of each environment; moves `state` on. Arguments as `act`."""
        embedded = self.timestep_encoder(observation, previous_action, previous_reward, state.time)
        h = self.trajectory_encoder.step(embedded, state.time, state.cache)
        state.time += 1
        return h

    @torch.no_grad()
    def act(
        self,
        state: ActingState,
        observation: dict[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
        *,
        greedy: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """One action for each of B environments at the acting discount; moves `state` on by one step.

        Args:
            state: from `initial_state`; `state.reset(mask)` where a trial begins.
            observation: each [B, *shape]; "action_mask", where there is one, rules out actions.
            previous_action: [B, *action]. previous_reward: [B] float; zeros on a trial's first step.
            greedy: take the policy's mode instead of sampling. generator: random stream of the samples.

        Returns:
            [B, *action]; int64 for choices.
        """
        h = self.remember(state, observation, previous_action, previous_reward)
        policy = self.actor.acting(h, observation.get(ACTION_MASK))
        return policy.mode() if greedy else policy.sample(generator)

    @torch.no_grad()
    def update_targets(self, rate: float) -> None:
        """Move the target heads: target += rate (online - target)."""
        online = [*self.actor.parameters(), *self.critics.parameters()]
        target = [*self.target_actor.parameters(), *self.target_critics.parameters()]
        torch._foreach_lerp_(target, online, rate)

    def iterate_spectral_norms(self) -> None:
        """One step of power iteration in every sigma-reparametrised layer."""
        for module in self.modules():
            if isinstance(module, SigmaLinear):
                module.iterate()
