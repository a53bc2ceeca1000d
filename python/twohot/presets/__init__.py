"""Named configurations: `twohot train PRESET`. One file a benchmark; a twin called `-small` is for two cores."""

from twohot.presets import (
    atari,
    babyai,
    dark_key,
    frozen_lake,
    gymnasium,
    half_cheetah,
    maze_runner,
    metaworld,
    popgym,
    procgen,
    retro,
    tmaze,
)
from twohot.presets.preset import Preset

PRESETS: dict[str, Preset] = {
    **popgym.PRESETS,
    **metaworld.PRESETS,
    **procgen.PRESETS,
    **atari.PRESETS,
    **retro.PRESETS,
    **babyai.PRESETS,
    **frozen_lake.PRESETS,
    **dark_key.PRESETS,
    **tmaze.PRESETS,
    **half_cheetah.PRESETS,
    **maze_runner.PRESETS,
    **gymnasium.PRESETS,
}

__all__ = ["PRESETS", "Preset"]
