"""Collecting with an agent that lives on a GPU: frozen lakes, stepped together, stored in a replay."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from bench.harness.gpu_timing import Case, Work
from twohot.agent import AgentNetworks
from twohot.config import AgentConfig
from twohot.data.rollout import Rollout, seeded_generator
from twohot.data.spaces import replay_schema
from twohot.envs import make_vector, reset_seeds
from twohot.nets.frozen import freeze
from twohot.replay import Replay
from twohot.rl.exploration import Exploration, Schedule

STEPS = 50
"""Of each environment in one work."""


def collecting(environments: int, act_on: str) -> Work:
    """Collect some steps in every environment, into a replay in memory."""
    torch.manual_seed(0)
    vector = make_vector("frozen_lake", ("5x5",), environments=environments)
    config = AgentConfig(width=128, feed_forward=512, context=128)
    agent = AgentNetworks(config, vector.single_observation_space, vector.single_action_space).eval().to(act_on)
    replay = Replay.create(replay_schema(agent.observation_space, agent.action_space), capacity_steps=1_000_000)
    explore = Exploration(
        environments, vector.single_action_space, Schedule(1.0, 0.05, 1_000_000), np.random.default_rng(0)
    )
    own = {"generator": seeded_generator(0, 0), "writer": replay.writer(environments), "exploration": explore}
    player = Rollout(vector, freeze(agent), device=act_on, **own)
    player.restart(reset_seeds(0, 0, environments))
    return partial(player.collect, STEPS)


def works(environments: int, device: str) -> dict[str, Work | str]:
    """Acting on the GPU, and on the CPU beside it."""
    found: dict[str, Work | str] = {"twohot": collecting(environments, device), "twohot, acting on the CPU": "no GPU"}
    if device != "cpu":
        found["twohot, acting on the CPU"] = collecting(environments, "cpu")
    return found


def cases(tiny: bool) -> list[Case]:
    """64 and 1024 environments."""
    found = []
    for environments in (3,) if tiny else (64, 1024):
        shape = f"{environments} environments, {STEPS} steps, width 128 x 3"
        own = {"of_the_gpu": False, "amount": environments * STEPS * 1e3, "rate_unit": "steps/s", "seconds": 15}
        found.append(Case("collecting", shape, partial(works, environments), **own))
    return found
