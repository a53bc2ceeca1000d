"""The two losses of the actor: imitation of approved actions, and the climb of the critics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from gymnasium import spaces
from torch import Tensor, nn

from twohot.agent import AgentNetworks
from twohot.config import ObjectiveConfig
from twohot.learning.targets import action_values
from twohot.nets.policies import Policy
from twohot.rl.advantages import (
    FILTERS,
    exponential_filter,
    filtered_behavior_cloning,
    leaky_ramp_filter,
    masked_mean,
)


def advantages(
    agent: AgentNetworks,
    state: Tensor,
    policy: Policy,
    action: Tensor,
    value: Tensor,
    mask: Tensor,
    config: ObjectiveConfig,
) -> Tensor:
    """A_t = mean_c Q_c(h_t, a_t) - mean_c E_{a ~ pi} Q_c(h_t, a), [M, G]; anything finite where mask [M] is False.

    Args:
        state: of the critics, for M steps. policy: [M, G]. action: [M, *action]. value: Q_c(h_t, a_t) [C, M, G].
    """
    known = (action, value) if agent.critics.softened is None else None  # a softened choice has a value of its own
    q, share = action_values(agent, agent.critics, state, policy, config.action_samples, mask, known)
    # The mean of differences, not the difference of means: rounding errors would pass the filter.
    difference = value.mean(0).unsqueeze(-1) - q.mean(0)
    return (difference * share).sum(-1)


def approval(advantage: Tensor, log_prob: Tensor, config: ObjectiveConfig) -> Tensor:
    """f(A), the weight of the actions taken, all [...]: 0 for one that is illegal, which no policy can imitate."""
    filter = FILTERS[config.filter]
    if filter is exponential_filter:
        filter = partial(exponential_filter, beta=config.filter_beta, maximum=config.filter_maximum)
    elif filter is leaky_ramp_filter:
        filter = partial(leaky_ramp_filter, add_binary=config.filter_adds_binary)
    return filter(advantage).masked_fill(log_prob.isneginf(), 0)


def imitated_log_prob(agent: AgentNetworks, policy: Policy, action: Tensor, config: ObjectiveConfig) -> Tensor:
    """log pi(a_t) [M, G] of actions [M, 1, *action]; of MultiBinary ones the mean over entries, if so configured."""
    log_prob, space = policy.log_prob(action), agent.action_space
    mean = config.multi_binary_log_prob == "mean" and isinstance(space, spaces.MultiBinary)
    return log_prob / space.n if mean else log_prob


def imitation(log_prob: Tensor, approved: Tensor, mask: Tensor) -> Tensor:
    """- mean f(A_t) log pi(a_t) of log_prob and weights [B, L, G] over the steps where mask [B, L] is True."""
    return filtered_behavior_cloning(log_prob, approved, lambda weight: weight, mask)


def policy_gradient(
    agent: AgentNetworks, state: Tensor, policy: Policy, mask: Tensor, config: ObjectiveConfig
) -> Tensor:
    """- mean PopArt(min_c Q_c(h_t, a)), a ~ pi, over the steps where mask [B, L] is True.

    With the order "mean_first", - mean PopArt(min_c E_{a ~ pi} Q_c(h_t, a)). Where actions can be enumerated, the
    expectation over pi is exact; else it is a mean over reparametrised samples (one-hot choices are straight-through).
    The gradient reaches the policy alone: neither the critics, nor h through them.

    Args:
        state: of the critics, for M = B x L steps. policy: [M, G].
    """
    critics, values, state = agent.critics, agent.values, state.detach()
    samples, mean_first = config.policy_gradient_samples, config.policy_gradient_order == "mean_first"
    if samples is None:
        samples = 0 if agent.enumerable else 1

    def least(worth: Tensor) -> Tensor:  # [C, M, G, ...], or [1, ...] where the mean comes first
        return worth if mean_first else worth.amin(0, keepdim=True)

    if samples == 0:
        with torch.no_grad():
            worth = least(values.normalized(critics, critics.all_features(state)))
        climbed = (policy.probabilities * worth).sum(-1).amin(0)
    else:
        with frozen(critics):
            features = (critics.features(state, policy.rsample()) for _ in range(samples))
            climbed = (sum(least(values.normalized(critics, each)) for each in features) / samples).amin(0)
    return -masked_mean(climbed.unflatten(0, mask.shape), mask)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within, what is computed has no gradient for the module's parameters."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
