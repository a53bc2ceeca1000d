"""twohot: multi-task meta-RL with Transformers, and its native parts alone.

Importing the package loads neither torch nor any environment: `twohot.losses`, `twohot.attention` and
`twohot.replay` stand alone, and `twohot.train`, `Run` and `Agent` are resolved on first use.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from twohot import _moved

if TYPE_CHECKING:
    from twohot.api.run import Run
    from twohot.api.train import train
    from twohot.inference.agent import Agent
    from twohot.losses import ValueBins
    from twohot.replay import Replay
    from twohot.training.callbacks import EpochEnd

__version__ = "0.1.0"
__all__ = ["Agent", "EpochEnd", "Replay", "Run", "ValueBins", "__version__", "train"]

_HOMES = {
    "Agent": "twohot.inference.agent",
    "EpochEnd": "twohot.training.callbacks",
    "Replay": "twohot.replay",
    "Run": "twohot.api.run",
    "ValueBins": "twohot.losses",
    "train": "twohot.api.train",
}
_PARTS = ("agent", "attention", "config", "data", "envs", "losses", "nets", "presets", "replay", "rl")

_moved.install()


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(_import_module(_HOMES[name]), name)
    if name in _PARTS:
        return _import_module(f"twohot.{name}")
    raise AttributeError(f"module 'twohot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_PARTS})
