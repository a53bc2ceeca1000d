"""The runs of a study: one in this process, or all that are missing in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from twohot.config import ConfigurationError
from twohot.config.files import load_config
from twohot.errors import CorruptRunError, NoRunError
from twohot.runs.metrics import read_metrics
from twohot.studies.rows import StudyRow, add_rows, read_rows, rows_of_run
from twohot.studies.study import RunKey, Study
from twohot.text import printable
from twohot.training.interruption import SIGNALS, Interrupted
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
    if (run / "config.json").exists():
        for setting, asked, stored in settings_in_conflict(config, load_config(run / "config.json")):
            raise ConfigurationError(
                f"{run}: was begun with {setting} = {stored!r}, and the study says {asked!r}: delete the run, or give "
                "another folder with --runs"
            )
        resume(run, progress, epochs=config.epochs)
    else:
        train(config, run, progress)
    rows = rows_of_run(run, config, key, study.settings[key.setting].digest)
    add_rows(study, rows, runs / "rows.lock")
    return rows


@dataclass
class _Child:
    """A run in a process of its own."""

    key: RunKey
    process: subprocess.Popen[bytes]
    log: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def minutes(self) -> str:
        return f"{(time.monotonic() - self.began) / 60:.1f} min"


def run_missing(study: Study, missing: Sequence[RunKey], runs: Path, jobs: int, console: Console) -> list[RunKey]:
    """Run what is missing, at most `jobs` at a time, each in a process of its own.

    A signal is passed on: the runs save themselves, and the same command goes on from there.

    Args:
        study: which. missing: the runs, in the order in which they begin. runs: the folder of the study's runs.
        jobs: how many at a time. console: shows the progress; a line for each event where it is no terminal.

    Returns:
        The runs that failed; the others go on regardless.

    Raises:
        Interrupted: by SIGINT, SIGTERM or SIGHUP, when every run has ended.
    """
    runs.mkdir(parents=True, exist_ok=True)
    waiting, running, failed = list(missing), [], []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _signals() as heard, Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        whole = progress.add_task(f"[bold]{study.name}", total=len(missing))
        bars, told = {}, False
        while running or (waiting and not heard):
            while waiting and len(running) < jobs and not heard:
                child = _start(study, waiting.pop(0), runs)
                running.append(child)
                config = study.config(child.key)
                bars[child.key] = progress.add_task(
                    f"  {child.key}, updates", total=config.epochs * config.updates_per_epoch
                )
                _say(console, f"{child.key}: begins, its log is {child.log}")
            if heard and not told:
                _say(console, "Each run saves what it has done; a second signal ends them at once.")
                _pass_on(running, signal.SIGTERM)
                told = True
            if len(heard) > 1:
                _pass_on(running, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
            for child in list(running):
                progress.update(bars[child.key], completed=_updates(runs / str(child.key)))
                code = child.process.poll()
                if code is None:
                    continue
                running.remove(child)
                progress.remove_task(bars.pop(child.key))
                progress.advance(whole)
                if code == 0:
                    _say(console, f"{child.key}: done in {child.minutes}")
                elif not heard:
                    failed.append(child.key)
                    _say(console, f"{child.key}: failed (exit code {code}); the end of {child.log}:")
                    for line in child.log.read_text(errors="replace").splitlines()[-LOG_LINES:]:
                        _say(console, f"  {line}")
        if heard:
            raise Interrupted(heard[0])
    return failed


def _start(study: Study, key: RunKey, runs: Path) -> _Child:
    log = runs / f"{key}.{LOG_NAME}"
    command = [sys.executable, "-m", "twohot", "study", "run", str(study.path), "--only", str(key), "--runs", str(runs)]
    with log.open("ab") as output:
        # A terminal's Ctrl-C reaches this process alone, which passes it on once.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    return _Child(key, process, log)


def _updates(run: Path) -> int:
    try:
        return max((row.updates for row in read_metrics(run)), default=0)
    except (NoRunError, CorruptRunError, OSError):  # not begun yet
        return 0


def _pass_on(running: Sequence[_Child], number: int) -> None:
    for child in running:
        if child.process.poll() is None:
            os.kill(child.process.pid, number)


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
