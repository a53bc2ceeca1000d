"""Values, advantages and log-probabilities of what was done in trajectories, by a trained agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, MultiBinary
from torch import Tensor

from twohot.agent import AgentNetworks
from twohot.errors import TwohotError
from twohot.exact import exact_array
from twohot.learning.targets import action_values
from twohot.nets.frozen import freeze
from twohot.spaces import ACTION_MASK, as_dict, shape_of

__all__ = ["TrajectoryError", "Values", "trajectory_values"]


class TrajectoryError(TwohotError, ValueError):
    """A trajectory that the agent cannot look at; the message says what was expected."""


ROWS = 4096
"""Steps whose values are computed at once."""


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
        TrajectoryError: when an array is missing, shorter than the actions or of another shape; for a NaN, a number
            that would have to be changed (as in `Agent.act`), or an action that the policy does not have.
        ValueError: when `samples` is below 1.
    """
    if samples < 1:
        raise ValueError(f"expected at least 1 sample, got {samples}")
    if isinstance(trajectories, Mapping | str):
        raise TrajectoryError(f"expected a list of trajectories, got one {type(trajectories).__name__}: [trajectory]")
    if not trajectories:
        return []
    trajectories = [_checked(networks, index, each) for index, each in enumerate(trajectories)]
    device = networks.discounts.device
    lengths = [len(each["action"]) for each in trajectories]

    def padded(arrays: list[Any]) -> Tensor:
        """[T, B, ...] of arrays [at least T of each, ...], with zeros after their ends."""
        block = np.zeros((max(lengths), len(arrays), *arrays[0].shape[1:]), arrays[0].dtype)
        for row, (array, length) in enumerate(zip(arrays, lengths, strict=True)):
            block[:length, row] = array
        return torch.from_numpy(block).to(device)

    names = networks.observation_space
    observation = {name: padded([each["observation"][name] for each in trajectories]) for name in names}
    action = padded([each["action"] for each in trajectories])
    reward = padded([each["reward"] for each in trajectories])
    policy = freeze(networks)
    state = policy.initial_state(len(trajectories))
    before = torch.zeros_like(action[0]), torch.zeros_like(reward[0])
    h = []
    for step in range(max(lengths)):
        seen = {name: array[step] for name, array in observation.items()}
        h.append(policy.encode_step(state, seen, *before))
        before = action[step], reward[step]
    h = torch.stack(h)

    results = []
    for row, length in enumerate(lengths):
        chunks = []
        for begin in range(0, length, ROWS):
            part = slice(begin, min(begin + ROWS, length)), row
            legal = observation[ACTION_MASK][part] if ACTION_MASK in observation else None
            chunks.append(_values(networks, h[part], action[part], legal, samples))
        columns = (torch.cat(column).float().cpu().numpy() for column in zip(*chunks, strict=True))
        results.append(Values(*columns))
    return results


def _checked(networks: AgentNetworks, index: int, trajectory: Mapping[str, Any]) -> dict[str, Any]:
    """The first T rows of everything that is needed of a trajectory, as the networks take it.

    Raises:
        TrajectoryError: as `trajectory_values`.
    """
    length = None
    if not isinstance(trajectory, Mapping):
        raise TrajectoryError(f"trajectory {index}: expected a dict of arrays, got a {type(trajectory).__name__}")

    def rows(name: str, value: Any, space: Space, dtype: Any) -> np.ndarray:
        try:
            array = exact_array(value, np.dtype(dtype))
        except ValueError as error:
            raise TrajectoryError(f"trajectory {index}: {name!r}: {error}") from error
        found = len(array) if array.ndim else 0
        if found < (length or 1):
            raise TrajectoryError(f"trajectory {index}: expected at least {length or 1} rows of {name!r}, got {found}")
        if array.shape[1:] != shape_of(space):
            raise TrajectoryError(
                f"trajectory {index}: expected {name!r} of shape {(found, *shape_of(space))}, got {array.shape}"
            )
        return array[:length]

    seen, space = networks.observation_space, networks.action_space
    try:
        given, action, reward = as_dict(trajectory["observation"]), trajectory["action"], trajectory["reward"]
        given = {name: given[name] for name in seen}
    except KeyError as error:
        raise TrajectoryError(f"trajectory {index}: expected {error.args[0]!r} in it") from error
    action = rows("action", action, space, np.float32 if isinstance(space, Box) else np.int64)
    length = len(action)
    choices = getattr(space, "nvec", getattr(space, "n", None)) if not isinstance(space, MultiBinary) else 2
    if choices is not None and ((action < 0) | (action >= choices)).any():
        raise TrajectoryError(f"trajectory {index}: expected actions of {space}, got {action.min()} to {action.max()}")
    observation = {name: rows(name, array, seen[name], seen[name].dtype) for name, array in given.items()}
    return {"observation": observation, "action": action, "reward": rows("reward", reward, Box(0, 1, ()), np.float32)}


def _values(
    networks: AgentNetworks, h: Tensor, action: Tensor, legal: Tensor | None, samples: int
) -> tuple[Tensor, ...]:
    """The columns of `Values`, of h [M, E] and action [M, *action]."""
    critics = networks.critics
    state = critics.state_features(h)
    q = networks.values.decode(critics, critics.features(state, critics.taken(action).unsqueeze(1)))
    policy = networks.actor(h, legal)
    everywhere = torch.ones(len(h), dtype=torch.bool, device=h.device)
    each, weight = action_values(networks, critics, state, policy, 0 if networks.enumerable else samples, everywhere)
    value = (each.mean(0) * weight).sum(-1)
    taken = q.mean(0)
    return taken, q.std(0, correction=0), value, taken - value, policy.log_prob(action.unsqueeze(1))
