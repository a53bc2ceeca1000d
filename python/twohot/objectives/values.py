"""Values of the actions that a policy would take, and of the states behind a step."""

from __future__ import annotations

import torch
from torch import Tensor

from twohot.agent import Agent
from twohot.config import ObjectiveConfig
from twohot.nets.critic import TwoHotCritics
from twohot.nets.policies import Policy
from twohot.rl.ensembles import subset_value
from twohot.rl.returns import td_targets


def action_values(
    agent: Agent, critics: TwoHotCritics, state: Tensor, policy: Policy, samples: int
) -> tuple[Tensor, Tensor]:
    """Values of actions of the policy, and their shares of the state's value.

    Args:
        critics: the agent's, or its target ones. state: of these critics, for M steps. policy: [M, G].
        samples: K, or 0 for all actions.

    Returns:
        Q_c(h, a) [C, M, G, S] and the shares [M, G, S] (or a number): all actions with their probabilities (S = A), or
        K sampled ones with 1 / K each (S = K).
    """
    if samples == 0:
        return agent.values.read(critics, critics.all_features(state)), policy.probabilities
    features = (critics.features(state, policy.sample()) for _ in range(samples))
    q = [agent.values.read(critics, each) for each in features]
    return torch.stack(q, dim=-1), state.new_tensor(1 / samples)


@torch.no_grad()
def targets(agent: Agent, batch, h_tp1: Tensor, legal_tp1: Tensor | None, config: ObjectiveConfig) -> Tensor:
    """Targets [B, L, G] of the critics, by the target heads (Grigsby et al. 2024, section 3).

    y_t = m r_t + gamma (1 - terminated_t) R_c(E_{a' ~ target pi} target Q_c(h_{t+1}, a')), or its n-step form.

    Args:
        batch: a `twohot.replay.Batch` of torch tensors. h_tp1: [B x L, E] behind each step.
        legal_tp1: [B x L, actions], the actions that are legal there; None for all.
    """
    state = agent.target_critics.state_features(h_tp1)
    policy = agent.target_actor(h_tp1, legal_tp1)
    q, share = action_values(agent, agent.target_critics, state, policy, config.target_action_samples)
    v_tp1 = subset_value((q * share).sum(-1), config.critic_subset, config.reduction).unflatten(0, batch.mask.shape)
    return td_targets(
        config.reward_multiplier * batch.reward,
        agent.discounts,
        v_tp1,
        batch.terminated,
        truncated_t=batch.truncated,
        mask=batch.mask,
        n=config.n_step,
    )
