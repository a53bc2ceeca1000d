"""What `twohot train` is told: the options of a new run, and those of one that goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from twohot.config import TrainConfig


@dataclass(frozen=True)
class TrainOptions:
    """Train an agent from a preset; every setting of the preset can be changed."""

    settings: Annotated[TrainConfig, tyro.conf.arg(name="")]
    config: Path | None = None
    """A file whose settings change the preset's, and which options change: TOML, JSON, or a run's own config.json."""
    run: Path | None = None
    """Directory of the run; by default the first free of runs/PRESET-1, runs/PRESET-2, ..."""
    continue_: Annotated[bool, tyro.conf.arg(name="continue")] = False
    """Continue the run where --run holds one already, so that one line starts a job and, requeued, resumes it."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Another run, whose weights this one begins with where they fit; it says what begins anew."""
    writers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    """Where metrics are written beside metrics.jsonl."""


@dataclass(frozen=True)
class ResumeOptions:
    """Continue a run from its newest checkpoint, with the configuration that it was started with."""

    resume: Path
    """Directory of the run."""
    epochs: int | None = None
    """A new total of epochs, to train longer."""
    checkpoint_minutes: float | None = None
    """Minutes from one checkpoint to an unplanned one, in the place of the configuration's."""
    actors: int | None = None
    """Processes that collect, in the place of the configuration's."""
    ray_address: Annotated[str | None, tyro.conf.arg(name="ray.address")] = None
    """Cluster to join, in the place of the configuration's."""
    writers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    """Where metrics are written beside metrics.jsonl."""
