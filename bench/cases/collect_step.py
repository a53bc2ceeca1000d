"""Our collecting in a process of its own: python -m bench.cases.collect_step WORKLOAD."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from bench.harness.worker import CollectingWorkload, serve
from twohot.agent import AgentNetworks
from twohot.config import AgentConfig
from twohot.data.rollout import Rollout, seeded_generator
from twohot.data.spaces import replay_schema
from twohot.envs import make_vector, reset_seeds
from twohot.nets.frozen import freeze
from twohot.replay import Replay
from twohot.rl.exploration import Exploration, Schedule


def build(workload: CollectingWorkload) -> Callable[[], float]:
    """Collect so many steps with every actor, into a replay in memory."""
    torch.manual_seed(0)
    vector = make_vector("popgym", ("RepeatPreviousEasy",), environments=workload.actors)
    config = AgentConfig(width=128, feed_forward=512, context=workload.context)
    agent = AgentNetworks(config, vector.single_observation_space, vector.single_action_space).eval()
    replay = Replay.create(replay_schema(agent.observation_space, agent.action_space), capacity_steps=1_000_000)
    schedule = Schedule(start=1.0, end=0.05, over=1_000_000)
    explore = Exploration(workload.actors, vector.single_action_space, schedule, np.random.default_rng(0))
    own = {"generator": seeded_generator(0, 0), "writer": replay.writer(workload.actors), "exploration": explore}
    player = Rollout(vector, freeze(agent), **own)
    player.restart(reset_seeds(0, 0, workload.actors))

    def step() -> float:
        player.policy = freeze(agent)
        player.collect(workload.steps)
        return 0.0

    return step


if __name__ == "__main__":
    serve(build, warm=1, kind=CollectingWorkload)
