"""The losses of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from twohot.agent import AgentNetworks
from twohot.config import ConfigurationError, ObjectiveConfig
from twohot.learning.actor_losses import advantages, filter_weights, imitated_log_prob, imitation, policy_gradient
from twohot.learning.auxiliary import network_losses, prediction_losses
from twohot.learning.targets import targets
from twohot.nets.interfaces import with_losses
from twohot.nets.policies import Policy
from twohot.replay import Batch
from twohot.spaces import ACTION_MASK


@dataclass(frozen=True)
class Losses:
    """Losses of a batch, and what they were made of (all without gradient but the first).

    What the objective does not ask for is None.
    """

    total: Tensor
    actor: Tensor
    """The actor's two losses by their weights."""
    critic: Tensor | None
    target: Tensor | None
    """[B, L, G] temporal-difference targets, in units of the multiplied reward."""
    value: Tensor | None
    """[C, B, L, G] Q_c(h_t, a_t); 0 where no step is."""
    advantage: Tensor | None
    """[B, L, G]."""
    filter_weight: Tensor | None
    """[B, L, G] what the filter makes of the advantage."""
    policy: Policy
    """[B x L, G] at each step."""
    h: Tensor
    """[B x L, E] of each step."""
    imitation: Tensor | None = None
    policy_gradient: Tensor | None = None
    auxiliary: dict[str, Tensor] = field(default_factory=dict)
    """Further losses, before their weights, by "<part of the agent>/<loss>"."""


Encoded = tuple[Tensor, dict[str, Tensor]]
"""h [B, L + 1, E] of a batch, and the losses that the encoders add; see `AgentNetworks.encode_with_losses`."""


def compute_losses(
    agent: AgentNetworks, batch: Batch, config: ObjectiveConfig, encoded: Encoded | None = None
) -> Losses:
    """All losses that the configuration asks for (docs/method.md).

    Args:
        agent: its `training` flag decides on dropout. config: which losses, their weights and sample numbers.
        batch: of torch tensors on the agent's device.
        encoded: what the agent makes of the batch; None: it is computed here.

    Returns:
        `Losses`; `total` = actor + critic_weight x critic + weights x auxiliary ones, each a mean over real steps only.
    """
    mask, shape = batch.mask, batch.mask.shape
    h, found = agent.encode_with_losses(*encoder_inputs(batch)) if encoded is None else encoded
    h_t, h_tp1 = h[:, :-1].flatten(0, 1), h[:, 1:].flatten(0, 1)
    legal_t = legal_tp1 = None
    if ACTION_MASK in batch.observation:
        legal = batch.observation[ACTION_MASK]
        legal_t, legal_tp1 = legal[:, :-1].flatten(0, 1), legal[:, 1:].flatten(0, 1)
    action = batch.action.flatten(0, 1).unsqueeze(1)  # [M, 1, *action]: all discounts share it
    imitation_weight, gradient_weight = config.actor_weights

    state = critic = target = value = advantage = filter_weight = imitated = gradient = None
    if config.needs_critics:
        target = targets(agent, batch, h_tp1, legal_tp1, config)
        state = agent.critics.state_features(h_t)
        critic, value = agent.values.loss(agent.critics, state, batch.action, target, mask)

    (policy, of_actor), actor = with_losses(agent.actor, h_t, legal_t), None
    found |= {f"actor/{name}": loss.unflatten(0, shape) for name, loss in of_actor.items()}
    if imitation_weight:
        log_prob = imitated_log_prob(agent, policy, action, config)
        with torch.no_grad():
            if state is None or value is None:
                filter_weight = filter_weights(torch.zeros_like(log_prob), log_prob, config).unflatten(0, shape)
            else:
                taken = batch.action.flatten(0, 1)
                advantage = advantages(agent, state, policy, taken, value.flatten(1, 2), mask.flatten(), config)
                filter_weight = filter_weights(advantage, log_prob, config).unflatten(0, shape)
                advantage = advantage.unflatten(0, shape)
        imitated = imitation(log_prob.unflatten(0, shape), filter_weight, mask)
        actor = imitation_weight * imitated
    if gradient_weight and state is not None:
        gradient = policy_gradient(agent, state, policy, mask, config, legal_t is not None)
        actor = gradient_weight * gradient if actor is None else actor + gradient_weight * gradient
    assert actor is not None  # the configuration has a positive weight

    total = actor if critic is None else actor + config.critic_weight * critic
    auxiliary = {**network_losses(found, mask), **prediction_losses(agent, h_t, batch, config)}
    for name, loss in auxiliary.items():
        total = total + config.auxiliary_weight(name) * loss
    return Losses(
        total=total,
        actor=actor.detach(),
        critic=_detached(critic),
        target=target,
        value=value,
        advantage=advantage,
        filter_weight=filter_weight,
        policy=policy,
        h=h_t.detach(),
        imitation=_detached(imitated),
        policy_gradient=_detached(gradient),
        auxiliary={name: loss.detach() for name, loss in auxiliary.items()},
    )


def encoder_inputs(batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor, Tensor]:
    """The arguments of `AgentNetworks.encode`."""
    seen = functional.pad(batch.mask, (1, 0)) | functional.pad(batch.mask, (0, 1))  # before a real step, or after one
    return batch.observation, batch.previous_action, batch.previous_reward, batch.time, seen


def _detached(loss: Tensor | None) -> Tensor | None:
    return None if loss is None else loss.detach()


def check_objective(agent: AgentNetworks, config: ObjectiveConfig) -> None:
    """Raise ConfigurationError where exact expectations are asked for over actions that cannot be enumerated."""
    if agent.enumerable:
        return
    for name in ("action_samples", "target_action_samples", "policy_gradient_samples"):
        if getattr(config, name) == 0:
            raise ConfigurationError(
                f"objective.{name}: expected at least 1 for {agent.action_space}, whose actions cannot be "
                "enumerated, got 0"
            )
