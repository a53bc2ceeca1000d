"""twohot: multi-task meta-RL with Transformers, and its native parts alone.

Importing the package loads neither torch nor any environment: `twohot.losses`, `twohot.attention` and
`twohot.replay` stand alone, and `twohot.Agent` is resolved on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twohot.acting import Agent
    from twohot.losses import ValueBins
    from twohot.replay import Replay

__version__ = "0.1.0"
__all__ = ["Agent", "Replay", "ValueBins", "__version__"]

_HOMES = {"Agent": "twohot.acting", "Replay": "twohot.replay", "ValueBins": "twohot.losses"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'twohot' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
