"""Named configurations: `twohot train PRESET`. One file a benchmark; a twin called `-small` is for two cores."""

from twohot.presets import atari, metaworld, popgym, procgen, retro
from twohot.presets.preset import Preset

PRESETS: dict[str, Preset] = {
    **popgym.PRESETS,
    **metaworld.PRESETS,
    **procgen.PRESETS,
    **atari.PRESETS,
    **retro.PRESETS,
}

__all__ = ["PRESETS", "Preset"]
