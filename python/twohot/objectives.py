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
from twohot.losses import two_hot
from twohot.nets.actor import sample_actions
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
    action, real = batch.action.long().flatten(), mask.flatten()

    with torch.no_grad():
        state = agent.target_critics.state_features(h_tp1)
        share = _shares(agent.target_actor(h_tp1), config.target_action_samples)
        wanted = (share > 0) & (real & ~batch.terminated.flatten())[:, None, None]
        q = agent.target_critics.choice_values(state, wanted, bins)
        v_tp1 = subset_value((q * share).sum(-1), config.critic_subset, "mean").unflatten(0, (rows, steps))
        target = td_targets(config.reward_multiplier * batch.reward, agent.discounts, v_tp1, batch.terminated)

    state = agent.critics.state_features(h_t)
    critic, value = agent.critics.cross_entropy(state, action, target.flatten(0, 1), bins, real)

    log_pi = agent.actor(h_t)
    with torch.no_grad():
        share = _shares(log_pi, config.action_samples)
        taken = action[:, None, None].expand(*share.shape[:-1], 1)
        wanted = ((share > 0) & real[:, None, None]).scatter(-1, taken, False)  # the loss has read that one's value
        of_taken = value.mean(0).unsqueeze(-1)
        q = agent.critics.choice_values(state, wanted, bins).mean(0).scatter(-1, taken, of_taken)
        # The mean of differences, not the difference of means: rounding errors would pass the filter.
        advantage = ((of_taken - q) * share).sum(-1).unflatten(0, (rows, steps))
        approved = binary_filter(advantage)
    value = value.unflatten(1, (rows, steps))
    log_pi = log_pi.unflatten(0, (rows, steps))
    taken = log_pi.gather(-1, batch.action.long()[..., None, None].expand(*log_pi.shape[:-1], 1)).squeeze(-1)
    actor = filtered_behavior_cloning(taken, advantage, binary_filter, mask)

    total = actor + config.critic_weight * critic
    return Losses(total, actor.detach(), critic.detach(), target, value, advantage, approved, log_pi.detach())


def _shares(log_pi: Tensor, samples: int) -> Tensor:
    """Shares [M, G, A] of actions in the value of a state, for log pi [M, G, A].

    Their probabilities where `samples` is 0; else how often each was among so many sampled ones. Each distinct action
    is then evaluated once however often it was sampled.
    """
    if samples == 0:
        return log_pi.exp()
    drawn = torch.stack([sample_actions(log_pi) for _ in range(samples)], -1)
    share = torch.zeros_like(log_pi)
    return share.scatter_add_(-1, drawn, torch.full_like(drawn, 1 / samples, dtype=share.dtype))


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
