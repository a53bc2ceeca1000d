"""Our learner step in a process of its own: python -m bench.cases.learner_step WORKLOAD."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from gymnasium import spaces

from bench.harness.worker import LearnerWorkload, serve
from twohot.agent import AgentNetworks
from twohot.config import AgentConfig, ObjectiveConfig, OptimizerConfig
from twohot.data.spaces import replay_schema
from twohot.learning.learner import Learner
from twohot.replay import Batch, Replay
from twohot.spaces import as_dict_space


def learner_and_batch(workload: LearnerWorkload, device: str = "cpu") -> tuple[Learner, Batch]:
    """A learner with the settings of the official MultiTaskAgent on a device, and the batch of the workload."""
    observation = spaces.Box(-np.inf, np.inf, (32,), np.float32)
    if workload.kind == "images":
        observation = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action = spaces.Box(-1.0, 1.0, (4,), np.float32) if workload.kind == "continuous" else spaces.Discrete(6)
    *others, discount = workload.all_discounts
    config = AgentConfig(
        context=workload.length, critics=workload.critics, training_discounts=tuple(others), discount=discount
    )
    agent = AgentNetworks(config, observation, action).eval().to(device)
    objective = ObjectiveConfig(target_action_samples=1, critic_subset=min(2, workload.critics))
    learner = Learner(agent, objective, OptimizerConfig(precision=workload.precision))
    return learner, batch_of(workload, observation, action).to(device)


def batch_of(workload: LearnerWorkload, observation: spaces.Box, action: spaces.Space) -> Batch:
    """The batch of the workload in our layout."""
    arrays = workload.arrays()
    replay = Replay.create(replay_schema(as_dict_space(observation), action), capacity_steps=1)
    batch = replay.batch(workload.batch, workload.length, torch=True)
    batch.observation["observation"].copy_(torch.from_numpy(arrays["observation"]))
    for name in ("action", "reward", "terminated"):
        getattr(batch, name).copy_(torch.from_numpy(arrays[name]))
    for name in ("action", "reward"):
        getattr(batch, f"previous_{name}")[:, 1:].copy_(getattr(batch, name))
    batch.time.copy_(torch.arange(workload.length + 1))
    batch.mask.fill_(True)
    return batch


def build(workload: LearnerWorkload) -> Callable[[], float]:
    """One update of the learner on one batch."""
    learner, batch = learner_and_batch(workload)

    def step() -> float:
        losses, _ = learner.step(batch)
        return losses.total.item()

    return step


if __name__ == "__main__":
    serve(build, warm=3)
