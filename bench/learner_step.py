"""Our learner step in a process of its own: python learner_step.py WORK."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from gymnasium import spaces

from twohot.agent import AgentNetworks
from twohot.config import AgentConfig, ObjectiveConfig, OptimizerConfig
from twohot.data.spaces import replay_schema
from twohot.learning.learner import Learner
from twohot.replay import Replay
from twohot.spaces import as_dict_space
from work import Work, serve


def learner_and_batch(work: Work) -> tuple[Learner, object]:
    """A learner with the settings of the official MultiTaskAgent, and the batch of the work."""
    observation = spaces.Box(-np.inf, np.inf, (32,), np.float32)
    if work.kind == "images":
        observation = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action = spaces.Box(-1.0, 1.0, (4,), np.float32) if work.kind == "continuous" else spaces.Discrete(6)
    *others, discount = work.all_discounts
    config = AgentConfig(context=work.length, critics=work.critics, training_discounts=tuple(others), discount=discount)
    agent = AgentNetworks(config, observation, action).eval()
    objective = ObjectiveConfig(target_action_samples=1, critic_subset=min(2, work.critics))
    learner = Learner(agent, objective, OptimizerConfig(precision=work.precision))
    return learner, batch_of(work, observation, action)


def batch_of(work: Work, observation: spaces.Box, action: spaces.Space) -> object:
    """The batch of the work in our layout."""
    arrays = work.arrays()
    replay = Replay.create(replay_schema(as_dict_space(observation), action), capacity_steps=1)
    batch = replay.batch(work.batch, work.length, torch=True)
    batch.observation["observation"].copy_(torch.from_numpy(arrays["observation"]))
    for name in ("action", "reward", "terminated"):
        getattr(batch, name).copy_(torch.from_numpy(arrays[name]))
    for name in ("action", "reward"):
        getattr(batch, f"previous_{name}")[:, 1:].copy_(getattr(batch, name))
    batch.time.copy_(torch.arange(work.length + 1))
    batch.mask.fill_(True)
    return batch


def build(work: Work) -> Callable[[], float]:
    """One update of the learner on one batch."""
    learner, batch = learner_and_batch(work)

    def step() -> float:
        losses, _ = learner.step(batch)
        return losses.total.item()

    return step


if __name__ == "__main__":
    serve(build, warm=3)
