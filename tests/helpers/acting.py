"""Spaces of agents that act, and what such an agent sees."""

import dataclasses

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from small import AGENT
from twohot.spaces import ACTION_MASK

CONFIG = dataclasses.replace(AGENT, width=32, layers=2, context=8)
VECTORS = Dict({"b": Box(-9, 9, (2, 3), np.float32), "a": Box(0, 9, (4,), np.int32), "c": Box(0, 1, (1,))})
IMAGE, GRID, TOKENS = Box(0, 255, (36, 36, 3), np.uint8), Box(0, 9, (5, 5, 2), np.uint8), Box(0, 99, (6,), np.int32)
MASKED = {ACTION_MASK: MultiBinary(5)}
ACTIONS = {
    "choice": Discrete(5),
    "choices": MultiDiscrete([2, 3]),
    "buttons": MultiBinary(5),
    "numbers": Box(-1, 1, (3,)),
}


def windows(agent, rows, steps, seed=0):
    """Observation, previous action, previous reward and time, each [rows, steps, ...]; masks allow the first action."""
    random = np.random.default_rng(seed)
    seen = {}
    for name, space in agent.observation_space.items():
        high = 2 if isinstance(space, MultiBinary) else 9
        seen[name] = torch.from_numpy(random.integers(0, high, (rows, steps, *space.shape)).astype(space.dtype))
    if ACTION_MASK in seen:
        seen[ACTION_MASK][..., 0] = 1
    agent.action_space.seed(seed)
    action = np.array([agent.action_space.sample() for _ in range(rows * steps)])
    action = torch.from_numpy(action.reshape(rows, steps, *agent.action_space.shape))
    reward = torch.from_numpy(random.normal(0, 30, (rows, steps)).astype(np.float32))
    return seen, action, reward, torch.arange(steps).expand(rows, steps)
