"""What a preset is, and the agent of those for two cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twohot.config import AgentConfig, ObjectiveConfig, TrainConfig
from twohot.losses import ValueBins

FEW_REWARDS: dict[str, Any] = {
    "bins": ValueBins(-6.0, 6.0, 48, "linear"),
    "probability_floor": 1e-5,
    "probability_ceiling": 1.0,
}
"""Settings of an agent whose discounted returns are a few rewards of 1.

The readout takes the mean before it transforms back: under symlog a reward of 100 that comes one time in 30 reads as
0.17, where its mean is 3.3, so what may be found is worth next to nothing, and so is looking for it. Linear bins read
means. And a probability that is clipped has no gradient: a policy that settles early on one action, as critics that
know nothing yet make it, could not be talked out of it by imitation.
"""


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


def small_objective(**settings) -> ObjectiveConfig:
    """The objective of a small agent: values of all actions instead of samples, and targets that follow fast."""
    return ObjectiveConfig(action_samples=0, target_action_samples=0, target_rate=0.01, **settings)
