"""Named configurations: `twohot train PRESET`. One file a benchmark; a twin called `-small` is for two cores."""

from twohot.presets import popgym
from twohot.presets.preset import Preset

PRESETS: dict[str, Preset] = {**popgym.PRESETS}

__all__ = ["PRESETS", "Preset"]
