"""Agents of every kind of memory, action and observation that can be exported."""

import dataclasses

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from small import AGENT
from small_spaces import flat
from twohot.agent import AgentNetworks

SPACES = Dict({"image": Box(0, 255, (36, 36, 3), np.uint8), "action_mask": MultiBinary(4)})
OFFICIAL = {
    "input_projection": True,
    "normalization": "moving_average",
    "critic": "scalar",
    "critic_actions": "outputs",
    "soften_stored_actions": True,
}
CASES = {
    "transformer": ({"context": 6, "layers": 2}, flat(3), Discrete(4)),
    "rotary": ({"context": 6, "positions": "rotary"}, flat(3), Box(-1, 1, (2,))),
    "official": ({"context": 6, **OFFICIAL, "density_clip": 0.99}, flat(3), Box(-1, 1, (2,))),
    "learned": ({"context": 6, "positions": "learned"}, flat(3), MultiDiscrete([2, 3])),
    "gru": ({"memory": "gru", "layers": 2}, flat(3), MultiBinary(3)),
    "set": ({"memory": "set", "layers": 2, "latent_steps": 4}, flat(3), Box(-1, 1, (2,))),
    "feedforward": ({"memory": "feedforward", "images": "nature"}, SPACES, Discrete(4)),
}


def make(changes, observation, action):
    torch.manual_seed(0)
    agent = AgentNetworks(dataclasses.replace(AGENT, **changes), observation, action).eval()
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    agent.iterate_spectral_norms()
    return agent
