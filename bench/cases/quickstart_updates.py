"""Updates/s of the quickstart's learner, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from bench.harness.measure import Row, interleaved, percentiles
from twohot.agent import AgentNetworks
from twohot.data.spaces import replay_schema
from twohot.learning.learner import Learner
from twohot.presets import PRESETS
from twohot.replay import Batch, Replay


def learner_and_batch(threads: int) -> tuple[Learner, Batch]:
    """The quickstart's learner, and a batch of windows without padding."""
    config = PRESETS["quickstart"].config
    torch.set_num_threads(threads)
    size, actions, length = 17, 4, config.window + 20
    torch.manual_seed(0)
    agent = AgentNetworks(config.agent, Box(-np.inf, np.inf, (size,)), Discrete(actions)).eval()
    learner = Learner(agent, config.objective, config.optimizer)
    replay = Replay.create(replay_schema(agent.observation_space, agent.action_space), capacity_steps=100_000)
    stream = np.random.default_rng(0)
    for index in range(50):
        replay.add(
            {"observation": stream.standard_normal((length + 1, size), dtype=np.float32)},
            stream.integers(actions, size=length).astype(np.int32),
            stream.standard_normal(length, dtype=np.float32),
            np.arange(length) == length - 1,
            np.zeros(length, bool),
            index % 6,
        )
    out = replay.batch(config.batch_size, config.window, torch=True)
    return learner, replay.sample(config.batch_size, config.window, out=out)


def shape_of(learner: Learner) -> str:
    """Of the quickstart's updates."""
    config, agent = PRESETS["quickstart"].config, learner.agent.config
    return f"B {config.batch_size} L {config.window} G {len(agent.discounts)} C {agent.critics}"


def learner_updates_per_second() -> list[Row]:
    """Updates/s of the quickstart's learner on one batch, and of a large matrix product for scale."""
    learner, batch = learner_and_batch(PRESETS["quickstart"].config.threads)
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)

    def timed(work: Callable[[], object], repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        return repeats / (time.perf_counter() - start)

    figures = interleaved(
        {
            "update": lambda: timed(lambda: learner.step(batch), 5),
            "matrix product": lambda: 2 * 2048**3 * timed(lambda: left @ right, 3) / 1e9,
        },
        rounds=11,
    )
    return [
        Row("learner", "quickstart update", "train", *percentiles(figures["update"]), "updates/s", shape_of(learner)),
        Row("learner", "torch.mm 2048", "limit", *percentiles(figures["matrix product"]), "GFLOP/s", "float32"),
    ]
