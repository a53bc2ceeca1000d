"""Objectives: the losses of one batch, and the statistics that come with them.

The return-independent pair of AMAGO-2 (docs/method.md): the critic is a classifier over two-hot bins, the actor
imitates the stored actions whose advantage passes the filter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twohot.agent import Agent
from twohot.config import ObjectiveConfig
from twohot.losses import ValueBins, linear_bin_expectation, linear_two_hot_cross_entropy, two_hot
from twohot.nets.actor import sample_actions
from twohot.nets.critic import TwoHotCritics
from twohot.rl.advantages import binary_filter, filtered_behavior_cloning, masked_mean
from twohot.rl.ensembles import subset_value
from twohot.rl.returns import td_targets


@dataclass(frozen=True)
class Losses:
    """Losses of a batch, and what they were made of (all without gradient but the first three)."""

    total: Tensor
    actor: Tensor
    critic: Tensor
    target: Tensor
    """[B, L, G] temporal-difference targets, in units of the multiplied reward."""
    value: Tensor
    """[C, B, L, G] Q_c(h_t, a_t); 0 where no step is."""
    advantage: Tensor
    """[B, L, G]."""
    approved: Tensor
    """[B, L, G] weight of the filter."""
    log_pi: Tensor
    """[B, L, G, A]."""


def independent_losses(agent: Agent, batch, config: ObjectiveConfig) -> Losses:
    """Classification critic and filtered behaviour cloning (Grigsby et al. 2024, sections 3 and 4).

    Args:
        agent: its `training` flag decides on dropout. config: weights and sample numbers.
        batch: a `twohot.replay.Batch` of torch tensors on the agent's device.

    Returns:
        `Losses`; `total` = actor + critic_weight x critic, each a mean over real steps only.
    """
    bins, mask = agent.config.bins, batch.mask
    rows, steps = mask.shape
    h = agent.encode(batch.observation, batch.previous_action, batch.previous_reward, batch.time)
    h_t, h_tp1 = h[:, :-1].flatten(0, 1), h[:, 1:].flatten(0, 1)
    action = batch.action.long().flatten().unsqueeze(-1)

    with torch.no_grad():
        state = agent.target_critics.state_features(h_tp1)
        pi_tp1 = agent.target_actor(h_tp1)
        q, share = _action_values(agent.target_critics, state, pi_tp1, bins, config.target_action_samples)
        v_tp1 = subset_value((q * share).sum(-1), config.critic_subset, "mean").unflatten(0, (rows, steps))
        target = td_targets(config.reward_multiplier * batch.reward, agent.discounts, v_tp1, batch.terminated)

    state = agent.critics.state_features(h_t)
    features = agent.critics.features(state, action).unflatten(1, (rows, steps))
    critic, value = linear_two_hot_cross_entropy(
        features, *agent.critics.head, target, bins, mask=mask.unsqueeze(-1), return_readout=True
    )

    log_pi = agent.actor(h_t)
    with torch.no_grad():
        q, share = _action_values(agent.critics, state, log_pi, bins, config.action_samples)
        # The mean of differences, not the difference of means: rounding errors would pass the filter.
        difference = value.mean(0).flatten(0, 1).unsqueeze(-1) - q.mean(0)
        advantage = (difference * share).sum(-1).unflatten(0, (rows, steps))
        approved = binary_filter(advantage)
    log_pi = log_pi.unflatten(0, (rows, steps))
    taken = log_pi.gather(-1, batch.action.long()[..., None, None].expand(*log_pi.shape[:-1], 1)).squeeze(-1)
    actor = filtered_behavior_cloning(taken, advantage, binary_filter, mask)

    total = actor + config.critic_weight * critic
    return Losses(total, actor.detach(), critic.detach(), target, value, advantage, approved, log_pi.detach())


def _action_values(
    critics: TwoHotCritics, state: Tensor, log_pi: Tensor, bins: ValueBins, samples: int
) -> tuple[Tensor, Tensor]:
    """Values of actions of the policy, and their shares of the state's value.

    Args:
        state: of the critics, for M steps. log_pi: [M, G, A]. samples: K, or 0 for all actions.

    Returns:
        Q_c(h, a) [C, M, G, S] and the shares [M, G, S] (or a number): all actions with their probabilities (S = A), or
        K sampled ones with 1 / K each (S = K).
    """
    if samples == 0:
        return linear_bin_expectation(critics.all_features(state), *critics.head, bins), log_pi.exp()
    features = (critics.features(state, sample_actions(log_pi)) for _ in range(samples))
    q = [linear_bin_expectation(each, *critics.head, bins) for each in features]
    return torch.stack(q, dim=-1), log_pi.new_tensor(1 / samples)


@torch.no_grad()
def statistics(losses: Losses, agent: Agent, batch, task_names: tuple[str, ...]) -> dict[str, Tensor]:
    """The metrics of one update that come from the losses, by the names defined in `twohot.metrics`.

    Scalars, but "value/bin_histogram" [N]. A task that the batch does not hold has no entry.
    """
    mask = batch.mask
    pi = losses.log_pi[..., -1, :].exp()
    entropy = -(pi * losses.log_pi[..., -1, :]).sum(-1)
    real_target = losses.target[mask]
    result = {
        "loss/total": losses.total.detach(),
        "loss/actor": losses.actor,
        "loss/critic": losses.critic,
        "filter/pass_rate": masked_mean((losses.approved > 0).float(), mask),
        "advantage/mean": masked_mean(losses.advantage, mask),
        "value/mean": masked_mean(losses.value.mean(0), mask),
        "value/ensemble_spread": masked_mean(losses.value.std(0, correction=0), mask),
        "value/target_mean": real_target.mean(),
        "value/target_min": real_target.min(),
        "value/target_max": real_target.max(),
        "policy/entropy": masked_mean(entropy, mask),
        "value/bin_histogram": two_hot(real_target.flatten(), agent.config.bins).mean(0),
    }
    passed = (losses.approved[..., -1] > 0).float()
    for index, name in enumerate(task_names):
        here = mask & (batch.task == index).unsqueeze(-1)
        if here.any():
            result[f"filter/pass_rate/{name}"] = masked_mean(passed, here)
    return result
