"""Domains with every kind of observation and of action, and batches of them."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces

from twohot.agent import Member, MixedNetworks
from twohot.data.spaces import replay_schema
from twohot.replay import Batch, Replay
from twohot.spaces import as_dict_space

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
MEMBERS = {
    "box": Member(("box:a",), VECTOR, spaces.Box(-1, 1, (2,), np.float32)),
    "images": Member(
        ("images:a", "images:b"),
        spaces.Dict({"observation": spaces.Box(0, 255, (16, 17, 3), np.uint8), "context": VECTOR}),
        spaces.Discrete(5),
    ),
    "large.images": Member(
        ("large.images:a",), spaces.Box(0, 255, (20, 16, 3), np.uint8), spaces.MultiDiscrete([2, 3])
    ),
    "words": Member(
        ("words:a",),
        spaces.Dict({"grid": spaces.Box(0, 9, (5, 5, 2), np.uint8), "tokens": spaces.Box(0, 30, (4,), np.int16)}),
        spaces.MultiBinary(3),
    ),
    "values": Member(  # as an attribute of a ModuleDict is named
        ("values:a",),
        spaces.Dict({"observation": VECTOR, "action_mask": spaces.MultiBinary(4)}),
        spaces.Discrete(4),
    ),
}


def make_batch(member: Member, rows: int, steps: int, seed: int, dtype: torch.dtype = torch.float32) -> Batch:
    """Windows of random lengths, with numbers of `dtype`."""
    observation = as_dict_space(member.observation_space)
    random, action = np.random.default_rng(seed), member.action_space
    batch = Replay.create(replay_schema(observation, action), capacity_steps=1).batch(rows, steps, torch=True)
    action.seed(seed)
    for name, space in observation.items():
        space.seed(seed)
        shown = np.stack([space.sample() for _ in range(rows * (steps + 1))])
        if name == "action_mask":
            shown[:, 0] = 1
        value = torch.from_numpy(shown).unflatten(0, (rows, steps + 1))
        batch.observation[name] = value.to(dtype) if value.is_floating_point() else value
    taken = torch.from_numpy(np.stack([np.asarray(action.sample()) for _ in range(rows * steps)]))
    if "action_mask" in observation.spaces:
        taken = torch.zeros_like(taken)
    batch.action = taken.unflatten(0, (rows, steps)).to(dtype if taken.is_floating_point() else torch.int64)
    batch.previous_action = torch.zeros(rows, steps + 1, *batch.action.shape[2:], dtype=batch.action.dtype)
    batch.previous_action[:, 1:] = batch.action
    batch.reward = torch.from_numpy(random.standard_normal((rows, steps))).to(dtype)
    batch.previous_reward = torch.zeros(rows, steps + 1, dtype=dtype)
    batch.previous_reward[:, 1:] = batch.reward
    batch.time = torch.arange(steps + 1, dtype=torch.int32).expand(rows, -1).contiguous()
    lengths = torch.from_numpy(random.integers(1, steps + 1, (rows, 1)))
    batch.mask = torch.arange(steps) < lengths
    batch.terminated = torch.arange(steps) == lengths - 1
    return batch


def make_mixed(config, *names: str, dtype: torch.dtype = torch.float32, seed: int = 0, **options) -> MixedNetworks:
    """A mixed agent of these members, or of all."""
    torch.manual_seed(seed)
    return MixedNetworks(config, {name: MEMBERS[name] for name in names or MEMBERS}, **options).to(dtype)
