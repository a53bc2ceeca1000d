"""One agent: timestep encoder, trajectory encoder, actor, critics and their target heads; what it does with them."""

from __future__ import annotations

import copy

import torch
from gymnasium import Space
from torch import Tensor, nn

from twohot._moved import renamed_method
from twohot.agent.build import (
    make_actor,
    make_critics,
    make_predictor,
    make_timestep_encoder,
    make_trajectory_encoder,
)
from twohot.config import AgentConfig
from twohot.kernels.torch_private import foreach_lerp_
from twohot.nets.actions import enumerate_actions
from twohot.nets.interfaces import TrajectoryNetwork, with_losses
from twohot.nets.linear import SigmaLinear
from twohot.nets.values import make_values
from twohot.spaces import as_dict_space, check_action_mask, check_action_space


class Trained(nn.Module):
    """Networks that a `Learner` trains."""

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Everything that the optimiser moves: all but the target heads."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def iterate_spectral_norms(self) -> None:
        """One step of power iteration in every sigma-reparametrised layer."""
        for module in self.modules():
            if isinstance(module, SigmaLinear):
                module.iterate()


class AgentNetworks(Trained):
    """The AMAGO-2 agent: what is trained. `twohot.nets.frozen.freeze` gives the policy that acts.

    Args:
        config: sizes of the networks.
        observation_space: what it sees: a Box, or a Dict of Boxes. action_space: what it does.
        predicts: whether it learns what the next step brings (`objective.prediction_weight`); that does not act.
        shares_with: networks of the same configuration whose trajectory encoder and `values` are these networks' too.

    Raises:
        SpaceError: for a space that no network here takes.
        UnknownNetworkError: when the configuration names a network that is not registered.
    """

    discounts: Tensor

    def __init__(
        self,
        config: AgentConfig,
        observation_space: Space,
        action_space: Space,
        *,
        predicts: bool = False,
        shares_with: AgentNetworks | None = None,
    ) -> None:
        super().__init__()
        check_action_space(action_space)
        self.config = config
        self.observation_space, self.action_space = as_dict_space(observation_space), action_space
        check_action_mask(self.observation_space, action_space)
        self.enumerable = enumerate_actions(action_space) is not None
        self.timestep_encoder = make_timestep_encoder(config, self.observation_space, action_space)
        self.trajectory_encoder = shares_with.trajectory_encoder if shares_with else make_trajectory_encoder(config)
        self.actor = make_actor(config, action_space)
        self.values = (
            shares_with.values
            if shares_with
            else make_values(
                config.critic, len(config.discounts), config.bins, config.hl_gauss_sigma, config.popart_deviation
            )
        )
        self.critics = make_critics(config, action_space, self.values.outputs)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.predictor = make_predictor(config, self.observation_space, action_space) if predicts else None
        self.register_buffer("discounts", torch.tensor(config.discounts), persistent=False)

    trained_parameters = renamed_method("trained_parameters", "trainable_parameters")

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
            mask: [B, L] bool, True where there is something to see, which saves the time of the rest; None: everywhere.
        """
        return self.encode_with_losses(observation, previous_action, previous_reward, time, mask)[0]

    def encode_with_losses(
        self,
        observation: dict[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
        time: Tensor,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `encode`, and the losses that the two encoders add, each [B, L, ...], by "<encoder>/<loss>"."""
        given = observation, previous_action, previous_reward, time, mask
        return remember(self.trajectory_encoder, *self.embed(*given), time)

    def embed(
        self,
        observation: dict[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
        time: Tensor,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings of steps, which the trajectory encoder takes, and losses; arguments as `encode`."""
        embedded, found = with_losses(self.timestep_encoder, observation, previous_action, previous_reward, time, mask)
        return embedded, _named("timestep_encoder", found)

    def update_statistics(self, observation: dict[str, Tensor], previous_reward: Tensor, mask: Tensor) -> None:
        """Count the steps where mask [...] (bool) is True, before a gradient step."""
        self.timestep_encoder.update_statistics(observation, previous_reward, mask)
        if self.predictor is not None:
            self.predictor.update_statistics(observation, mask)

    @torch.no_grad()
    def update_targets(self, rate: float) -> None:
        """Move the target heads: target += rate (online - target)."""
        online: list[Tensor] = [*self.actor.parameters(), *self.critics.parameters()]
        target: list[Tensor] = [*self.target_actor.parameters(), *self.target_critics.parameters()]
        foreach_lerp_(target, online, rate)


def remember(
    trajectory_encoder: TrajectoryNetwork, embedded: Tensor, losses: dict[str, Tensor], time: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """h of embeddings, and these losses with those of the trajectory encoder."""
    h, found = with_losses(trajectory_encoder, embedded, time)
    return h, {**losses, **_named("trajectory_encoder", found)}


def _named(part: str, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{part}/{name}": loss for name, loss in losses.items()}
