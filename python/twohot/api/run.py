"""A run's directory as an object."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from twohot.config import TrainConfig
from twohot.config.files import load_config
from twohot.errors import NoRunError, TwohotError
from twohot.inference.agent import Agent
from twohot.info import read_start
from twohot.reports.report import write_report
from twohot.reports.results import TaskResult, read_run, results_table
from twohot.runs.metrics import FILE_NAME, Row, read_metrics

if TYPE_CHECKING:
    import pandas


class Run:
    """A run directory: what it was asked to do, what it logged, how good its agent is.

        run = twohot.Run("runs/mine")
        run.scores["RepeatFirstEasy"].agent_return

    Everything is read when it is asked for, so a run that still trains, in another process too, shows what is there.

    Args:
        path: the directory.

    Raises:
        NoRunError: there is no run in it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not (self.path / "config.json").is_file():
            raise NoRunError(
                f"{self.path}: no run here (expected {self.path / 'config.json'}); `twohot.train` makes one"
            )

    def __repr__(self) -> str:
        scores = ""
        with suppress(TwohotError):
            scores = "".join(f", {task} {result.agent_return:.4g}" for task, result in self.scores.items())
        return f"Run({str(self.path)!r}{scores})"

    @property
    def config(self) -> TrainConfig:
        """What the run was asked to do, as resolved at its start."""
        return load_config(self.path / "config.json")

    @property
    def start(self) -> dict[str, str]:
        """Where the run was started (`run.json`): versions, commits, command, machine, kernels, job, time."""
        return read_start(self.path)

    @property
    def rows(self) -> list[Row]:
        """What was logged, in order (`metrics.jsonl`)."""
        return read_metrics(self.path)

    @property
    def scores(self) -> dict[str, TaskResult]:
        """By task, its last evaluation against the uniformly random policy; empty before the first."""
        if not (self.path / FILE_NAME).exists():
            return {}
        return {result.task: result for result in results_table(self.path)}

    def to_frame(self) -> pandas.DataFrame:
        """Every number that was logged, one a row: kind, environment_steps, updates, seconds, metric, value.

        Histograms over value bins and their axes, which are lists, are left out. Without pandas: MissingExtraError.
        """
        return read_run(self.path).to_frame()

    def report(self, output: str | os.PathLike[str] | None = None) -> Path:
        """Write the report, one HTML file that needs nothing else, and return its path.

        Args:
            output: the file; by default `report.html` in the run directory.
        """
        return write_report(self.path, output)

    def agent(self, *, device: str = "cpu", seed: int = 0) -> Agent:
        """The agent of the newest checkpoint; see `twohot.Agent.from_checkpoint`."""
        return Agent.from_checkpoint(self.path, device=device, seed=seed)
