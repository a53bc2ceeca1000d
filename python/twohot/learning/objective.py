"""The losses of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from twohot.agent import AgentNetworks
from twohot.config import ConfigurationError, ObjectiveConfig
from twohot.learning.actor_losses import advantages, approval, imitated_log_prob, imitation, policy_gradient
from twohot.learning.targets import targets
from twohot.nets.policies import Policy
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
    approved: Tensor | None
    """[B, L, G] weight of the filter."""
    policy: Policy
    """[B x L, G] at each step."""
    h: Tensor
    """[B x L, E] of each step."""
    imitation: Tensor | None = None
    policy_gradient: Tensor | None = None


def compute_losses(agent: AgentNetworks, batch, config: ObjectiveConfig) -> Losses:
    """All losses that the configuration asks for (docs/method.md).

    Args:
        agent: its `training` flag decides on dropout. config: which losses, their weights and sample numbers.
        batch: a `twohot.replay.Batch` of torch tensors on the agent's device.

    Returns:
        `Losses`; `total` = actor + critic_weight x critic, each a mean over real steps only.
    """
    mask, shape = batch.mask, batch.mask.shape
    seen = functional.pad(mask, (1, 0)) | functional.pad(mask, (0, 1))  # before a real step, or after one
    h = agent.encode(batch.observation, batch.previous_action, batch.previous_reward, batch.time, seen)
    h_t, h_tp1 = h[:, :-1].flatten(0, 1), h[:, 1:].flatten(0, 1)
    legal_t = legal_tp1 = None
    if ACTION_MASK in batch.observation:
        legal = batch.observation[ACTION_MASK]
        legal_t, legal_tp1 = legal[:, :-1].flatten(0, 1), legal[:, 1:].flatten(0, 1)
    action = batch.action.flatten(0, 1).unsqueeze(1)  # [M, 1, *action]: all discounts share it
    imitation_weight, gradient_weight = config.actor_weights

    critic = target = value = advantage = approved = imitated = climbed = None
    if config.needs_critics:
        target = targets(agent, batch, h_tp1, legal_tp1, config)
        state = agent.critics.state_features(h_t)
        critic, value = agent.values.loss(agent.critics, state, batch.action, target, mask)

    policy, actor = agent.actor(h_t, legal_t), 0.0
    if imitation_weight:
        log_prob = imitated_log_prob(agent, policy, action, config)
        with torch.no_grad():
            advantage = torch.zeros_like(log_prob)
            if config.needs_critics:
                taken = batch.action.flatten(0, 1)
                advantage = advantages(agent, state, policy, taken, value.flatten(1, 2), mask.flatten(), config)
            approved = approval(advantage, log_prob, config).unflatten(0, shape)
            advantage = advantage.unflatten(0, shape) if config.needs_critics else None
        imitated = imitation(log_prob.unflatten(0, shape), approved, mask)
        actor = imitation_weight * imitated
    if gradient_weight:
        climbed = policy_gradient(agent, state, policy, mask, config)
        actor = actor + gradient_weight * climbed

    total = actor if critic is None else actor + config.critic_weight * critic
    alone = (None if loss is None else loss.detach() for loss in (imitated, climbed))
    critic = None if critic is None else critic.detach()
    return Losses(total, actor.detach(), critic, target, value, advantage, approved, policy, h_t.detach(), *alone)


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
