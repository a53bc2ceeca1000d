"""The options of each command, as dataclasses for tyro."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from twohot.config import TrainConfig


@dataclass(frozen=True)
class TrainOptions:
    """Train an agent from a preset; every setting of the preset can be changed."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    run: Path | None = None
    """Directory of the run; by default the first free of runs/PRESET-1, runs/PRESET-2, ..."""


@dataclass(frozen=True)
class ResumeOptions:
    """Continue a run from its newest checkpoint, with the configuration that it was started with."""

    resume: Path
    """Directory of the run."""
    epochs: int | None = None
    """A new total of epochs, to train longer."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Play a trained agent without exploration noise; prints mean raw returns per task and per attempt."""

    run: tyro.conf.Positional[Path]
    """Directory of the run."""
    trials: int = 32
    """Trials of each task."""
    seed: int = 1
    """Seed of environments and sampled actions."""
    greedy: bool = False
    """Take the most probable action instead of sampling one from the policy."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes cuda where there is one, else cpu."""


@dataclass(frozen=True)
class ReportOptions:
    """Write a run's results as one self-contained HTML page; works while the run is still training."""

    run: tyro.conf.Positional[Path]
    """Directory of the run."""
    output: Path | None = None
    """File to write; by default report.html in the run directory."""


@dataclass(frozen=True)
class EnvsOptions:
    """List the environment suites: what is installed, and the command that installs the rest."""

    suite: tyro.conf.Positional[str] = ""
    """A suite whose tasks to list."""


@dataclass(frozen=True)
class InfoOptions:
    """Versions, devices, and which native code runs."""

    attention: bool = False
    """Say which implementation of attention runs for the shapes below, and why, instead."""
    head_size: int = 32
    """D, places of a head."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Of queries, keys, values and cache."""
    device: str = "cpu"
    """Where they are: cpu or cuda."""


def parse(kind: type, command: str, arguments: list[str], default=None):
    """An instance of `kind` from the command line; prints help, or what cannot be understood, and exits."""
    return tyro.cli(kind, prog=f"twohot {command}", args=arguments, default=default, description=kind.__doc__)
