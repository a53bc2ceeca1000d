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
    continue_: Annotated[bool, tyro.conf.arg(name="continue")] = False
    """Continue the run where --run holds one already, so that one line starts a job and, requeued, resumes it."""


@dataclass(frozen=True)
class ResumeOptions:
    """Continue a run from its newest checkpoint, with the configuration that it was started with."""

    resume: Path
    """Directory of the run."""
    epochs: int | None = None
    """A new total of epochs, to train longer."""
    checkpoint_minutes: float | None = None
    """Minutes from one checkpoint to an unplanned one, in the place of the configuration's."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Play trained agents without exploration noise; prints raw returns per task and per attempt, with intervals.

    Several runs of one configuration, with different seeds, are taken together: the intervals are then over seeds.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Directories of the runs; each gets its own evaluation.json."""
    trials: int = 32
    """Trials of each task."""
    seed: int = 1
    """Seed of environments and sampled actions."""
    greedy: bool = False
    """Take the most probable action instead of sampling one from the policy."""
    splits: tuple[Literal["train", "test"], ...] = ()
    """Levels, seeds or goals to play, instead of the run's own evaluate.splits."""
    json: Path | None = None
    """File for the results of all runs together, as JSON."""
    video: bool = False
    """Also write an animated GIF of one trial of each task to the directory videos of each run."""
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
    """List the environment suites: what is installed, and the command that installs the rest. Or check an environment.

    `twohot envs --check my_file:MyEnv-v0` plays one of gymnasium's, here in my_file.py of the working directory.
    """

    suite: tyro.conf.Positional[str] = ""
    """A suite whose tasks to list."""
    check: tuple[str, ...] | None = None
    """Play an environment for some hundred steps and say what is wrong with it: `module:Id-v0` or an id of gymnasium,
    or a suite and a task of it. The exit code is 1 where anything is wrong."""


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


@dataclass(frozen=True)
class ReplayInfoOptions:
    """What a replay directory holds: its schema, and lengths and returns by task. Works while others write to it."""

    directory: tyro.conf.Positional[Path]
    """A replay's directory; that of a run with `--replay.storage disk` is RUN/replay."""
    plot: Path | None = None
    """Also draw lengths and returns by task into this file, in the format of its suffix."""


@dataclass(frozen=True)
class ReplayVerifyOptions:
    """Read every trajectory and compare it with its checksum; the exit code is 1 where anything is damaged."""

    directory: tyro.conf.Positional[Path]
    """A replay's directory."""


@dataclass(frozen=True)
class ReplayRepairOptions:
    """Make the index of a replay anew from all that is intact; files without any go to its folder `damaged`."""

    directory: tyro.conf.Positional[Path]
    """A replay's directory, to which nobody writes at the moment."""


@dataclass(frozen=True)
class ReplayImportOptions:
    """Add trajectories from files to a replay, which is made where there is none; nothing that is read executes.

    All are read and checked before the first is added: where one is damaged, nothing is added.
    """

    format: tyro.conf.Positional[Literal["amago", "minari", "npz"]]
    """amago: the .npz files of a buffer of the official code. minari: a dataset's name. npz: see docs/replay.md."""
    source: tyro.conf.Positional[str]
    """A file, a folder, or the name of a Minari dataset."""
    directory: tyro.conf.Positional[Path]
    """The replay's directory."""
    fields: tuple[str, ...] = ()
    """Observations to keep; all where none is named."""
    discrete: bool = False
    """amago: actions are one-hot rows; store their index."""
    capacity_steps: int | None = None
    """Of a replay that is made: its most steps; without it nothing ever leaves."""
    protect: bool = False
    """The trajectories never leave, though they count towards the capacity."""


@dataclass(frozen=True)
class ReplayExportOptions:
    """Write all trajectories of a replay, oldest first."""

    format: tyro.conf.Positional[Literal["npz", "minari"]]
    """What to write."""
    directory: tyro.conf.Positional[Path]
    """The replay's directory."""
    target: tyro.conf.Positional[str]
    """npz: a file that ends with .npz, or a new folder, for one file a trajectory. minari: a new dataset's name."""


def parse(kind: type, command: str, arguments: list[str], default=None):
    """An instance of `kind` from the command line; prints help, or what cannot be understood, and exits."""
    return tyro.cli(kind, prog=f"twohot {command}", args=arguments, default=default, description=kind.__doc__)
