"""What a preset is."""

from __future__ import annotations

from dataclasses import dataclass

from twohot.config import TrainConfig


@dataclass(frozen=True)
class Preset:
    """A configuration and one sentence about it."""

    summary: str
    config: TrainConfig
