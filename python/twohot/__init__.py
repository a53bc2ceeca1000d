"""twohot: multi-task meta-RL with Transformers, and its native parts alone.

Importing the package loads neither torch nor any environment: `twohot.losses`, `twohot.attention` and
`twohot.replay` stand alone, and `twohot.Agent` is resolved on first use.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from twohot import _moved

if TYPE_CHECKING:
    from twohot.inference.agent import Agent
    from twohot.losses import ValueBins
    from twohot.replay import Replay

__version__ = "0.1.0"
__all__ = ["Agent", "Replay", "ValueBins", "__version__"]

_HOMES = {"Agent": "twohot.inference.agent", "Replay": "twohot.replay", "ValueBins": "twohot.losses"}
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
