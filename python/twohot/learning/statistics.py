"""The statistics of an update, by the names that `twohot.runs.metrics` defines."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from twohot.agent import AgentNetworks, MixedNetworks
from twohot.kernels.torch_private import foreach_norm
from twohot.learning.objective import Losses
from twohot.losses import two_hot
from twohot.nets.actor import Actor
from twohot.nets.critic import CriticEnsemble
from twohot.nets.values import ClassValues
from twohot.replay import Batch
from twohot.rl.advantages import masked_mean

DORMANT = 0.025
"""A unit whose mean activation is at most this fraction of its layer's is dormant (Sokar et al. 2023)."""
EXTREMES = {"value/target_min": "least", "value/target_max": "largest"}
UNIT_STEPS = 256
"""Real steps of a batch, at most, whose activations are looked at."""


@torch.no_grad()
def statistics(losses: Losses, agent: AgentNetworks, batch: Batch, task_names: tuple[str, ...]) -> dict[str, Tensor]:
    """The metrics of one update that come from the losses.

    Scalars, but "value/bin_histogram" [N]. A task that the batch does not hold has no entry, nor has what the objective
    does not compute.
    """
    mask = batch.mask
    result = {
        "loss/total": losses.total.detach(),
        "loss/actor": losses.actor,
        "policy/entropy": masked_mean(losses.policy.entropy()[:, -1].unflatten(0, mask.shape), mask),
        **_dormant(losses, agent, batch),
        **{f"loss/{name}": loss for name, loss in losses.auxiliary.items()},
    }
    for name in ("imitation", "policy_gradient", "critic"):
        if getattr(losses, name) is not None:
            result[f"loss/{name}"] = getattr(losses, name)
    if losses.target is not None and losses.value is not None:
        result |= _values(losses.target[mask], losses.value, agent, mask)
    if losses.advantage is not None:
        result["advantage/mean"] = masked_mean(losses.advantage, mask)
    if losses.filter_weight is not None:
        result["filter/pass_rate"] = masked_mean((losses.filter_weight > 0).float(), mask)
        passed = (losses.filter_weight[..., -1] > 0).float()
        for index, name in enumerate(task_names):
            here = mask & (batch.task == index).unsqueeze(-1)
            if here.any():
                result[f"filter/pass_rate/{name}"] = masked_mean(passed, here)
    return result


def _values(target: Tensor, value: Tensor, agent: AgentNetworks, mask: Tensor) -> dict[str, Tensor]:
    result = {
        "value/mean": masked_mean(value.mean(0), mask),
        "value/ensemble_spread": masked_mean(value.std(0, correction=0), mask),
        "value/target_mean": target.mean(),
        "value/target_min": target.min(),
        "value/target_max": target.max(),
    }
    for index, discount in enumerate(agent.config.discounts):
        result[f"value/mean/discount_{discount:g}"] = masked_mean(value[..., index].mean(0), mask)
    if isinstance(agent.values, ClassValues):
        result["value/bin_histogram"] = two_hot(target.flatten(), agent.config.bins).mean(0)
    return result


def _dormant(losses: Losses, agent: AgentNetworks, batch: Batch) -> dict[str, Tensor]:
    real = batch.mask.flatten().nonzero().squeeze(-1)[:UNIT_STEPS]
    h, found = losses.h[real], {}
    if isinstance(agent.actor, Actor):
        found["actor"] = agent.actor.network.features(h)
    if losses.value is not None and isinstance(agent.critics, CriticEnsemble):
        action = batch.action.flatten(0, 1)[real].unsqueeze(1)
        found["critics"] = agent.critics.features(agent.critics.state_features(h), action)
    return {f"units/dormant_{name}": _dormant_fraction(x) for name, x in found.items()}


def _dormant_fraction(x: Tensor) -> Tensor:
    """Fraction of the units of activations [M, units] or [C, M, G, units] with next to no activation over steps."""
    size = x.abs().mean(tuple(range(1, x.dim() - 1)) if x.dim() > 2 else 0)
    return (size <= DORMANT * size.mean(-1, keepdim=True)).float().mean()


def mixed_statistics(found: Sequence[tuple[dict[str, Tensor], Tensor]]) -> dict[str, Tensor]:
    """The metrics of one update of which several parts have these `statistics`, and numbers of real steps.

    Means over the steps of those that have an entry; of the least and the largest target, the least and the largest.
    """
    result: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for metrics, _ in found for name in metrics):
        mine = [(metrics[name], steps) for metrics, steps in found if name in metrics]
        values, steps = torch.stack([value for value, _ in mine]), torch.stack([count for _, count in mine])
        if name in EXTREMES:
            result[name] = values.amin() if EXTREMES[name] == "least" else values.amax()
        else:
            share = (steps / steps.sum().clamp(min=1)).to(values.dtype)
            result[name] = (values * share.unflatten(0, (-1, *[1] * (values.dim() - 1)))).sum(0)
    return result


@torch.no_grad()
def update_norms(before: list[Tensor], agent: AgentNetworks | MixedNetworks) -> dict[str, Tensor]:
    """Norms of the gradients (clipped as they were) and of the change of an update, of all and by part of the agent.

    Args:
        before: copies of `agent.trainable_parameters()` from before the update; their gradients are still there.
    """
    parameters = agent.trainable_parameters()
    change = {id(new): new - old for new, old in zip(parameters, before, strict=True)}
    result = {"update/norm": _norm(list(change.values()))}
    members = agent.each().values() if isinstance(agent, MixedNetworks) else [agent]
    for name in ("timestep_encoder", "trajectory_encoder", "actor", "critics", "predictor"):
        parts: dict[nn.Module, None] = dict.fromkeys(getattr(member, name) for member in members)
        mine = [p for part in parts if part is not None for p in part.parameters() if p.requires_grad]
        if not mine and None in parts:
            continue
        result[f"update/norm/{name}"] = _norm([change[id(parameter)] for parameter in mine])
        result[f"gradient/norm/{name}"] = _norm([p.grad for p in mine if p.grad is not None])
    return result


def _norm(tensors: list[Tensor]) -> Tensor:
    if not tensors:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(foreach_norm(tensors)))
