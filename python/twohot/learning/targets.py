"""Values of the actions that a policy would take, and of the states after a step."""

from __future__ import annotations

import torch
from torch import Tensor

from twohot.agent import AgentNetworks
from twohot.config import ObjectiveConfig
from twohot.nets.actions import action_number
from twohot.nets.policies import Categorical, Policy
from twohot.nets.values import CriticHeads
from twohot.replay import Batch
from twohot.rl.ensembles import subset_value
from twohot.rl.returns import td_targets


def action_values(
    agent: AgentNetworks,
    critics: CriticHeads,
    state: Tensor,
    policy: Policy,
    samples: int,
    counts: Tensor,
    known: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Values of actions of the policy, and their weights in the state's value.

    A choice is evaluated once however often it was sampled.

    Args:
        critics: the agent's, or its target ones. state: of these critics, for M steps. policy: [M, G].
        samples: K, or 0 for all actions.
        counts: [M] bool, valid steps; values elsewhere are unspecified but finite.
        known: actions [M, *action] whose values [C, M, G] are known already: they are taken as they are, since
            products of other shapes would be rounded otherwise.

    Returns:
        Q_c(h, a) [C, M, G, S] and the weights [M, G, S] (or a number): choices with their probabilities or with how
        often they were sampled (S = A), else K sampled actions with 1 / K each (S = K).
    """
    values = agent.values
    if isinstance(policy, Categorical):
        weight = policy.sample_weights(samples)
        wanted = (weight > 0) & counts[:, None, None]
        if known is None:
            return values.decode_choices(critics, state, wanted), weight
        choice = known[0].long()[:, None, None].expand(*weight.shape[:-1], 1)
        q = values.decode_choices(critics, state, wanted.scatter(-1, choice, False))
        return _with_known(q, choice, known[1]), weight
    if samples == 0:
        q, weight = values.decode(critics, critics.all_features(state)), policy.probabilities
        if known is None:
            return q, weight
        number = action_number(agent.action_space, known[0])
        return _with_known(q, number[:, None, None].expand(*weight.shape[:-1], 1), known[1]), weight
    q = []
    for _ in range(samples):
        action = policy.sample()
        q.append(values.decode_actions(critics, state, action, counts))
        if known is not None:
            same = (action == known[0].unsqueeze(1)).all(-1)  # [M, G]
            q[-1] = torch.where(same, known[1].to(q[-1].dtype), q[-1])
    return torch.stack(q, dim=-1), state.new_full((), 1 / samples, dtype=q[0].dtype)


def _with_known(q: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """Values [C, M, G, S] with those [C, M, G] that are known of the actions at index [M, G, 1]."""
    return q.scatter(-1, index.expand(len(q), *index.shape), value.unsqueeze(-1).to(q.dtype))


@torch.no_grad()
def targets(
    agent: AgentNetworks, batch: Batch, h_tp1: Tensor, legal_tp1: Tensor | None, config: ObjectiveConfig
) -> Tensor:
    """Targets [B, L, G] of the critics, by the target heads (Grigsby et al. 2024, section 3).

    y_t = m r_t + gamma (1 - terminated_t) R_c(E_{a' ~ target pi} target Q_c(h_{t+1}, a')), or its n-step form.

    Args:
        batch: of torch tensors. h_tp1: [B x L, E] after each step.
        legal_tp1: [B x L, actions], the actions that are legal there; None for all.
    """
    state = agent.target_critics.state_features(h_tp1)
    policy = agent.target_actor(h_tp1, legal_tp1)
    counts = (batch.mask & ~batch.terminated).flatten()
    q, weight = action_values(agent, agent.target_critics, state, policy, config.target_action_samples, counts)
    v_tp1 = subset_value((q * weight).sum(-1), config.critic_subset, config.reduction).unflatten(0, batch.mask.shape)
    return td_targets(
        config.reward_multiplier * batch.reward,
        agent.discounts,
        v_tp1,
        batch.terminated,
        truncated_t=batch.truncated,
        mask=batch.mask,
        n=config.n_step,
    )
