"""What a person sees while a run trains: live bars on a terminal and in a notebook, a line for each evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from twohot.config import TrainConfig
from twohot.envs import split_name
from twohot.runs.metrics import Kind
from twohot.text import printable

__all__ = ["Progress"]


class Progress:
    """Shows steps/s, updates/s, losses and returns of a run; a context manager around it.

    Args:
        console: where to; when it is no terminal and no notebook, plain lines are printed.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        # Without ipywidgets rich shows no bar in a notebook, but a warning.
        is_live = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
        self._bar = RichProgress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=console.quiet or not is_live,
        )

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def start(self, config: TrainConfig, epoch: int, updates: int = 0, unplanned: bool = False) -> None:
        """Announce a run that begins, or continues.

        Args:
            config: of the run. epoch: how many are finished. updates: those done in the next one.
            unplanned: whether it has gone on from an unplanned checkpoint, now or earlier.
        """
        tasks = config.environment.tasks
        what = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
        begin = f"continued after epoch {epoch}" if epoch or unplanned else "from the beginning"
        suites = dict.fromkeys(split_name(task, config.environment.suite)[0] for task in tasks)
        self.say(f"Training one agent on {what} of {', '.join(suites)}, seed {config.seed}, {begin}.")
        if unplanned:
            self.say("It went on from an unplanned checkpoint: a valid run, not bit for bit the one never stopped.")
        for task in self._bar.task_ids:  # of learners before these
            self._bar.remove_task(task)
        self._epochs = self._bar.add_task("epochs", total=config.epochs, completed=epoch, note="")
        self._updates = self._bar.add_task("updates", total=config.updates_per_epoch, completed=updates, note="")

    def finished(self, run: Path, config: TrainConfig) -> None:
        """There is nothing left to do."""
        self.say(f"{run} has finished its {config.epochs} epochs; --epochs trains longer.")

    def interrupted(self) -> None:
        """A signal ends the run."""
        self.say("Saving what was done; a second signal ends at once.")

    def say(self, sentence: str) -> None:
        """Print a line."""
        self.console.print(printable(sentence), highlight=False, markup=False, emoji=False, soft_wrap=True)

    def update(self, updates: int) -> None:
        """One more gradient step; `updates` in all."""
        self._bar.update(self._updates, advance=1, note=f"{updates:,} in all")

    def epoch(self, epoch: int, environment_steps: int, updates: int, rows: Mapping[Kind, dict[str, Any]]) -> None:
        """An epoch has ended with these rows of metrics."""
        self._bar.update(self._epochs, completed=epoch, note=_speeds(environment_steps, rows))
        self._bar.reset(self._updates, start=True)
        if rows["evaluation"]:
            loss = f", loss {float(rows['update']['loss/total']):.3f}" if rows["update"] else ""
            returns = "  ".join(
                f"{name.removeprefix('evaluation/return/')} {value:.2f}"
                for name, value in rows["evaluation"].items()
                if name.startswith("evaluation/return/") and "/attempt_" not in name
            )
            self.say(f"epoch {epoch}: {_speeds(environment_steps, rows)}, {updates:,} updates{loss}")
            self.say(f"  return: {returns}")


def _speeds(environment_steps: int, rows: Mapping[Kind, dict[str, Any]]) -> str:
    note = f"{environment_steps:,} steps"
    if rows["collect"]:
        note += f", {rows['collect']['collect/steps_per_second']:,.0f} steps/s"
    if rows["update"]:
        note += f", {rows['update']['updates_per_second']:.1f} updates/s"
    return note
