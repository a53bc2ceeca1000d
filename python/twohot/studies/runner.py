"""The runs of a study: one in this process, or all that are missing in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import load_config
from twohot.errors import CorruptRunError, NoRunError
from twohot.runs.metrics import read_metrics
from twohot.studies.rows import StudyRow, add_rows, read_rows, rows_of_run
from twohot.studies.study import RunKey, Study
from twohot.text import printable
from twohot.training.interruption import SIGNALS, Interrupted
from twohot.training.placed_learners import Placed
from twohot.training.progress import Progress as RunProgress
from twohot.training.train import resume, settings_in_conflict, train

LOG_NAME = "log.txt"
"""In the folder of a study's runs, RUN.log.txt: what that run printed."""
POLL_SECONDS = 0.5
LOG_LINES = 5
"""Lines of a failed run's log that are shown."""


def finished_runs(study: Study) -> set[RunKey]:
    """The runs whose rows are in the study's file.

    Raises:
        ConfigurationError: rows were made while the file said something else of their setting.
    """
    finished = set()
    for row in read_rows(study.rows_path):
        setting = study.settings.get(row.setting)
        if setting is None:
            continue
        if row.digest != setting.digest:
            raise ConfigurationError(
                f"{study.rows_path}: the rows of {row.setting} were made when {study.path.name} said something else of "
                "it: undo that change, give the setting another name, or delete those rows to run it again"
            )
        finished.add(RunKey(row.setting, row.seed))
    return finished


def run_one(study: Study, key: RunKey, runs: Path, progress: RunProgress) -> list[StudyRow]:
    """Begin or go on with one run of a study, in this process, and add its rows to the study's file at its end.

    Args:
        study: which. key: of the run. runs: the folder of the study's runs; the run is there by its name.
        progress: shows the training.

    Raises:
        ConfigurationError: the run was begun with other settings. As for `twohot.training.train.train` beside.
    """
    config, run = study.config(key), runs / str(key)
    train_run(config, run, progress)
    rows = rows_of_run(run, config, key, study.settings[key.setting].digest)
    add_rows(study, rows, runs / "rows.lock")
    return rows


def train_run(config: TrainConfig, run: Path, progress: RunProgress, placed: Placed | None = None) -> None:
    """Begin or go on with a run of a study; see `run_one`. placed: where this is a process of Ray's."""
    if (run / "config.json").exists():
        for setting, asked, stored in settings_in_conflict(config, load_config(run / "config.json")):
            raise ConfigurationError(
                f"{run}: was begun with {setting} = {stored!r}, and the study says {asked!r}: delete the run, or give "
                "another folder with --runs"
            )
        resume(run, progress, epochs=config.epochs, placed=placed)
    else:
        train(config, run, progress, placed=placed)


class Child(Protocol):
    """A run that goes on elsewhere."""

    def poll(self) -> int | None:
        """The exit code, once it has ended; its rows are in the study's file where that is 0."""
        ...

    def pass_on(self, number: int) -> None:
        """Let it hear a signal."""
        ...


class _Process:
    """A run in a process of this machine."""

    def __init__(self, study: Study, key: RunKey, runs: Path) -> None:
        command = ["study", "run", str(study.path), "--only", str(key), "--runs", str(runs)]
        with log_of(key, runs).open("ab") as output:
            # A terminal's Ctrl-C reaches this process alone, which passes it on once.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "twohot", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def pass_on(self, number: int) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, number)


def log_of(key: RunKey, runs: Path) -> Path:
    """The file of what a run prints."""
    return runs / f"{key}.{LOG_NAME}"


def run_missing(
    study: Study,
    missing: Sequence[RunKey],
    runs: Path,
    jobs: int,
    console: Console,
    start: Callable[[Study, RunKey, Path], Child] = _Process,
) -> list[RunKey]:
    """Run what is missing, at most `jobs` at a time, each in a process of its own; by default on this machine.

    A signal is passed on: the runs save themselves, and the same command goes on from there.

    Args:
        study: which. missing: the runs, in the order in which they begin. runs: the folder of the study's runs.
        jobs: how many at a time. console: shows the progress; a line for each event where it is no terminal.
        start: begins one of them.

    Returns:
        The runs that failed; the others go on regardless.

    Raises:
        Interrupted: by SIGINT, SIGTERM or SIGHUP, when every run has ended.
    """
    runs.mkdir(parents=True, exist_ok=True)
    waiting, failed = list(missing), []
    running: dict[RunKey, tuple[Child, float]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _signals() as heard, Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        whole = progress.add_task(f"[bold]{study.name}", total=len(missing))
        bars, told = {}, False
        while running or (waiting and not heard):
            while waiting and len(running) < jobs and not heard:
                key = waiting.pop(0)
                running[key] = start(study, key, runs), time.monotonic()
                config = study.config(key)
                bars[key] = progress.add_task(f"  {key}, updates", total=config.epochs * config.updates_per_epoch)
                _say(console, f"{key}: begins, its log is {log_of(key, runs)}")
            if heard and not told:
                _say(console, "Each run saves what it has done; a second signal ends them at once.")
                for child, _ in running.values():
                    child.pass_on(signal.SIGTERM)
                told = True
            if len(heard) > 1:
                for child, _ in running.values():
                    child.pass_on(signal.SIGKILL)
            time.sleep(POLL_SECONDS)
            for key, (child, began) in list(running.items()):
                progress.update(bars[key], completed=_updates(runs / str(key)))
                code = child.poll()
                if code is None:
                    continue
                del running[key]
                progress.remove_task(bars.pop(key))
                progress.advance(whole)
                if code == 0:
                    _say(console, f"{key}: done in {(time.monotonic() - began) / 60:.1f} min")
                elif not heard:
                    failed.append(key)
                    log = log_of(key, runs)
                    _say(console, f"{key}: failed (exit code {code}); the end of {log}:")
                    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
                    for line in lines[-LOG_LINES:]:
                        _say(console, f"  {line}")
        if heard:
            raise Interrupted(heard[0])
    return failed


def _updates(run: Path) -> int:
    try:
        return max((row.updates for row in read_metrics(run)), default=0)
    except (NoRunError, CorruptRunError, OSError):  # not begun yet
        return 0


def _say(console: Console, sentence: str) -> None:
    console.print(printable(sentence), highlight=False, markup=False, emoji=False, soft_wrap=True)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Within, signals are collected in the list, instead of ending this process."""
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {
            number: signal.signal(number, hear) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN
        }
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
