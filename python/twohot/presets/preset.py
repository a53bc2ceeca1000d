"""What a preset is, and the agent of those for two cores."""

from __future__ import annotations

from dataclasses import dataclass

from twohot.config import AgentConfig, TrainConfig
from twohot.losses import ValueBins


@dataclass(frozen=True)
class Preset:
    """A configuration and one sentence about it."""

    summary: str
    config: TrainConfig


def small_agent(context: int, discount: float = 0.97, **settings) -> AgentConfig:
    """An agent that two cores update about twenty times a second on short windows."""
    sizes = {
        "width": 64,
        "layers": 2,
        "heads": 4,
        "feed_forward": 256,
        "dropout": 0.0,
        "encoder_hidden": 128,
        "head_hidden": 64,
        "critics": 2,
        "training_discounts": (0.7,),
        "bins": ValueBins.amago2(count=64),
    }
    return AgentConfig(context=context, discount=discount, **{**sizes, **settings})
