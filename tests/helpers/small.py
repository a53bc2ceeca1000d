"""A configuration that trains in a second or two, and helpers to run it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from twohot.config import (
    AgentConfig,
    CollectConfig,
    EnvironmentConfig,
    EvaluateConfig,
    ObjectiveConfig,
    ReplayConfig,
    TrainConfig,
)
from twohot.losses import ValueBins
from twohot.training.progress import Progress

AGENT = AgentConfig(
    width=16,
    layers=1,
    heads=2,
    feed_forward=32,
    context=60,
    encoder_hidden=16,
    encoder_layers=1,
    head_hidden=16,
    head_layers=1,
    critics=2,
    training_discounts=(0.5,),
    discount=0.9,
    bins=ValueBins.amago2(count=16),
)

CONFIG = TrainConfig(
    epochs=4,
    updates_per_epoch=3,
    batch_size=4,
    window=16,
    checkpoint_every=2,
    device="cpu",
    threads=1,
    environment=EnvironmentConfig(
        tasks=("RepeatFirstEasy", "PositionOnlyCartPoleEasy"), reward_multipliers=(10.0, 0.1)
    ),
    agent=AGENT,
    objective=ObjectiveConfig(target_rate=0.1),
    collect=CollectConfig(environments=3, steps_per_epoch=60, epsilon_steps=500, workers="in-process"),
    replay=ReplayConfig(capacity_steps=1000, threads=1),
    evaluate=EvaluateConfig(every=2, trials=2, final_trials=3),
)


def quiet() -> Progress:
    """Progress that nobody sees."""
    return Progress(Console(file=io.StringIO()))


def with_epochs(epochs: int) -> TrainConfig:
    """`CONFIG` for another number of epochs."""
    return replace(CONFIG, epochs=epochs)


def agent_bytes(run: Path) -> bytes:
    """The weights of a run's newest checkpoint."""
    return sorted((run / "checkpoints").glob("epoch-*"))[-1].joinpath("agent.safetensors").read_bytes()
