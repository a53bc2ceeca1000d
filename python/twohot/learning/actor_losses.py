"""The two losses of the actor: filtered imitation of stored actions, and the reparametrised policy gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial, reduce
from operator import add

import torch
from gymnasium import spaces
from torch import Tensor, nn

from twohot.agent import AgentNetworks
from twohot.config import ObjectiveConfig
from twohot.learning.targets import action_values
from twohot.nets.policies import Categorical, Policy
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
    """A_t = mean_c Q_c(h_t, a_t) - mean_c E_{a ~ pi} Q_c(h_t, a), [M, G]; finite where mask [M] is False.

    Args:
        state: of the critics, for M steps. policy: [M, G]. action: [M, *action]. value: Q_c(h_t, a_t) [C, M, G].
    """
    known = (action, value) if agent.critics.softened is None else None  # a softened choice has another value
    q, weight = action_values(agent, agent.critics, state, policy, config.action_samples, mask, known)
    # The mean of differences, not the difference of means: rounding errors would pass the filter.
    difference = value.mean(0).unsqueeze(-1) - q.mean(0)
    return (difference * weight).sum(-1)


def filter_weights(advantage: Tensor, log_prob: Tensor, config: ObjectiveConfig) -> Tensor:
    """f(A), the weights of the actions taken, all [...]: 0 for one that is illegal, which no policy can imitate."""
    weigh = FILTERS[config.filter]
    if weigh is exponential_filter:
        weigh = partial(exponential_filter, beta=config.filter_beta, maximum=config.filter_maximum)
    elif weigh is leaky_ramp_filter:
        weigh = partial(leaky_ramp_filter, add_binary=config.filter_adds_binary)
    return weigh(advantage).masked_fill(log_prob.isneginf(), 0)


def imitated_log_prob(agent: AgentNetworks, policy: Policy, action: Tensor, config: ObjectiveConfig) -> Tensor:
    """log pi(a_t) [M, G] of actions [M, 1, *action]; of MultiBinary ones the mean over entries, if so configured."""
    log_prob, space = policy.log_prob(action), agent.action_space
    if config.multi_binary_log_prob == "mean" and isinstance(space, spaces.MultiBinary):
        return log_prob / math.prod(space.shape)
    return log_prob


def imitation(log_prob: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """- mean f(A_t) log pi(a_t) of log_prob and weights [B, L, G] over the steps where mask [B, L] is True."""
    return filtered_behavior_cloning(log_prob, weight, lambda given: given, mask)


def policy_gradient(
    agent: AgentNetworks,
    state: Tensor,
    policy: Policy,
    mask: Tensor,
    config: ObjectiveConfig,
    masked: bool = False,
) -> Tensor:
    """- mean PopArt(min_c Q_c(h_t, a)), a ~ pi, over the steps where mask [B, L] is True.

    With the order "mean_first", - mean PopArt(min_c E_{a ~ pi} Q_c(h_t, a)). Where actions can be enumerated, the
    expectation over pi is exact; else it is a mean over reparametrised samples (one-hot choices are straight-through).
    The gradient reaches the policy alone: neither the critics, nor h through them.

    Args:
        state: of the critics, for M = B x L steps. policy: [M, G].
        masked: whether many actions are impossible, whose values then take no time.
    """
    critics, values, state = agent.critics, agent.values, state.detach()
    samples, mean_first = config.policy_gradient_samples, config.policy_gradient_order == "mean_first"
    if samples is None:
        samples = 0 if agent.enumerable else 1

    def minimum(q: Tensor) -> Tensor:  # [C, M, G, ...], or [1, ...] where the mean comes first
        return q if mean_first else q.amin(0, keepdim=True)

    if samples == 0:
        with torch.no_grad():
            if not (masked and isinstance(policy, Categorical)):
                q = minimum(values.normalized(critics, critics.all_features(state)))
            else:
                wanted = (policy.probabilities > 0) & mask.flatten()[:, None, None]
                q = minimum(values.normalized_choices(critics, state, wanted))
        value = (policy.probabilities * q).sum(-1).amin(0)
    else:
        with frozen(critics):
            features = (critics.features(state, policy.rsample()) for _ in range(samples))
            q = reduce(add, (minimum(values.normalized(critics, each)) for each in features))
            value = (q / samples).amin(0)
    return -masked_mean(value.unflatten(0, mask.shape), mask)


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
