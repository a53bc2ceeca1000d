"""What a trained agent thinks of trajectories: values, advantages and probabilities of what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twohot.agent import AgentNetworks
from twohot.objectives.values import action_values
from twohot.spaces import ACTION_MASK, as_dict

ROWS = 4096
"""Steps whose values are read at once."""


@dataclass(frozen=True)
class Values:
    """Of one trajectory of T steps, for each of G discounts; numpy, float32, in units of the multiplied reward."""

    action: np.ndarray
    """[T, G] value of the action that was taken, the mean over the critics."""
    spread: np.ndarray
    """[T, G] standard deviation of that over the critics."""
    state: np.ndarray
    """[T, G] value of the policy's own actions there."""
    advantage: np.ndarray
    """[T, G] `action` less `state`."""
    log_prob: np.ndarray
    """[T, G] log-probability (or density) of the action that was taken."""


@torch.no_grad()
def trajectory_values(
    networks: AgentNetworks, trajectories: Sequence[Mapping[str, Any]], *, samples: int = 16
) -> list[Values]:
    """Values at each step, by what the policy remembers there when it acts: the last `context` steps.

    Args:
        networks: in eval mode. trajectories: as `Replay.get` returns them: "observation" (a dict of arrays, or one
            array) with T or T + 1 rows, "action" [T, *action] and "reward" [T].
        samples: actions drawn for the value of a state, from torch's global stream, where they cannot be enumerated.

    Returns:
        `Values` for each trajectory.

    Raises:
        ValueError: when an array is shorter than the actions.
    """
    if not trajectories:
        return []
    device = networks.discounts.device
    lengths = [len(each["action"]) for each in trajectories]
    for index, (each, length) in enumerate(zip(trajectories, lengths, strict=True)):
        for name, array in (("reward", each["reward"]), *as_dict(each["observation"]).items()):
            if len(array) < length:
                raise ValueError(f"trajectory {index}: expected at least {length} rows of {name!r}, got {len(array)}")

    def padded(arrays: list[Any]) -> Tensor:
        """[T, B, ...] of arrays [at least T of each, ...], with zeros behind their ends."""
        first = np.asarray(arrays[0])
        block = np.zeros((max(lengths), len(arrays), *first.shape[1:]), first.dtype)
        for row, (array, length) in enumerate(zip(arrays, lengths, strict=True)):
            block[:length, row] = np.asarray(array)[:length]
        return torch.from_numpy(block).to(device)

    names = as_dict(trajectories[0]["observation"])
    observation = {name: padded([as_dict(each["observation"])[name] for each in trajectories]) for name in names}
    action = padded([each["action"] for each in trajectories])
    reward = padded([np.asarray(each["reward"], np.float32) for each in trajectories])
    state = networks.initial_state(len(trajectories))
    before = torch.zeros_like(action[0]), torch.zeros_like(reward[0])
    h = []
    for step in range(max(lengths)):
        seen = {name: array[step] for name, array in observation.items()}
        h.append(networks.remember(state, seen, *before))
        before = action[step], reward[step]
    h = torch.stack(h)

    results = []
    for row, length in enumerate(lengths):
        pieces = []
        for begin in range(0, length, ROWS):
            part = slice(begin, min(begin + ROWS, length)), row
            legal = observation[ACTION_MASK][part] if ACTION_MASK in observation else None
            pieces.append(_values(networks, h[part], action[part], legal, samples))
        columns = (torch.cat(column).float().cpu().numpy() for column in zip(*pieces, strict=True))
        results.append(Values(*columns))
    return results


def _values(
    networks: AgentNetworks, h: Tensor, action: Tensor, legal: Tensor | None, samples: int
) -> tuple[Tensor, ...]:
    """The columns of `Values`, of h [M, E] and action [M, *action]."""
    critics = networks.critics
    state = critics.state_features(h)
    q = networks.values.read(critics, critics.features(state, critics.taken(action).unsqueeze(1)))
    policy = networks.actor(h, legal)
    everywhere = torch.ones(len(h), dtype=torch.bool, device=h.device)
    each, share = action_values(networks, critics, state, policy, 0 if networks.enumerable else samples, everywhere)
    value = (each.mean(0) * share).sum(-1)
    taken = q.mean(0)
    return taken, q.std(0, correction=0), value, taken - value, policy.log_prob(action.unsqueeze(1))
