"""Train an agent from a preset, or continue a run.

train PRESET [options]   train an agent; `twohot train --help` lists the presets
train --resume RUN       continue a run that was stopped or killed; `train PRESET --run RUN --continue` starts it, too
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from twohot import presets
from twohot.cli.options import console, parse, run_directory
from twohot.errors import TwohotError, UsageError
from twohot.extras import TRAIN, require
from twohot.text import did_you_mean, printable

if TYPE_CHECKING:
    from rich.console import Console

    from twohot.config import TrainConfig


def run(arguments: list[str]) -> int:
    """Train or resume, as the arguments say; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    require(*TRAIN)
    if arguments[0].split("=")[0] == "--resume":
        return _resume(arguments)
    if any(argument.split("=")[0] == "--resume" for argument in arguments):
        raise UsageError("--resume takes the place of a preset: twohot train --resume RUN [--epochs N]")
    name, rest = arguments[0], arguments[1:]
    known = tuple(presets.summaries())
    if name not in known:
        raise UsageError(f"no preset {name!r}: {did_you_mean(name, known)}`twohot train --help` lists all")
    from twohot.cli.train_options import TrainOptions
    from twohot.config.renamed import current_options
    from twohot.training.train import train

    preset = presets.PRESETS[name].config
    rest = [re.sub(r"^--env(?==|$)", "--environment.tasks", argument) for argument in rest]
    rest, notices = current_options(rest)
    for notice in notices:
        print(f"twohot: {notice}", file=sys.stderr)
    options = parse(TrainOptions, f"train {name}", rest, default=TrainOptions(preset))
    if options.continue_ and options.run is None:
        raise UsageError("--continue: expected the directory of the run too: twohot train PRESET --run RUN --continue")
    if options.continue_ and options.run is not None and (options.run / "config.json").exists():
        return _continue(options.run, options.config, preset)
    with _free_directory(Path("runs"), name) if options.run is None else nullcontext(options.run) as run:
        return _finish(run, lambda progress: train(options.config, run, progress))


def _usage() -> str:
    known = presets.summaries()
    width = max(map(len, known))
    listing = "\n".join(f"  {name:{width}}  {summary}" for name, summary in known.items())
    return (
        "usage: twohot train PRESET [options]\n       twohot train PRESET --run RUN --continue [options]\n"
        f"       twohot train --resume RUN [--epochs N] [--checkpoint-minutes M]\n\n{listing}\n\n"
        "`twohot train PRESET --help` lists every option with the preset's value."
    )


def _continue(run: Path, asked: TrainConfig, preset: TrainConfig) -> int:
    """Resume the run whose configuration agrees with what is asked for; more epochs than it has make it longer."""
    from twohot.config import ConfigurationError
    from twohot.config.files import load_config
    from twohot.training.train import resume, settings_in_conflict

    stored = load_config(run / "config.json")
    for setting, here, there in settings_in_conflict(asked, stored):
        raise ConfigurationError(
            f"{run}: was started with {setting} = {there!r}, and this line says {here!r}: leave the option out to "
            "continue that run, or give another directory to start a new one"
        )
    epochs = max(asked.epochs, stored.epochs) if asked.epochs != preset.epochs else stored.epochs
    if epochs != asked.epochs:
        print(f"{printable(run)}: trains the {epochs} epochs that it was given before, not {asked.epochs}")
    minutes = asked.checkpoint_minutes if asked.checkpoint_minutes != preset.checkpoint_minutes else None
    return _finish(run, lambda progress: resume(run, progress, epochs, minutes))


def _resume(arguments: list[str]) -> int:
    from twohot.cli.train_options import ResumeOptions
    from twohot.training.train import resume

    options = parse(ResumeOptions, "train", arguments)
    run = run_directory(options.resume)
    return _finish(run, lambda progress: resume(run, progress, options.epochs, options.checkpoint_minutes))


def _finish(run: Path, work: Callable) -> int:
    """Train, and end with the table of results and the report's path; an interruption says how to go on."""
    from twohot.reports.report import print_results, results_table, write_report
    from twohot.runs.checkpoint import resume_command
    from twohot.training.interruption import Interrupted
    from twohot.training.progress import Progress

    output = console()
    output.print(f"Run directory: {printable(run)}", soft_wrap=True)
    advice = f"continue with: {resume_command(run)}"
    try:
        with _ends_at_once(output):
            work(Progress(output))
    except Interrupted as interrupted:
        what = "terminated" if interrupted.signal == signal.SIGTERM else "interrupted"
        how = f"; {advice}" if (run / "config.json").exists() else ""
        print(f"twohot: {what}{printable(how)}", file=sys.stderr)
        return interrupted.exit_code
    except OSError as error:
        if isinstance(error, TwohotError) or not (run / "config.json").exists():
            raise
        raise TwohotError(f"{error}; what was committed is safe: fix that, then {advice}") from error
    print_results(output, results_table(run))
    output.print(f"Report: {printable(write_report(run))}", soft_wrap=True)
    return 0


@contextmanager
def _ends_at_once(output: Console) -> Iterator[None]:
    """Within, a signal that nobody else hears ends this process there and then, with the cursor shown again."""

    def end(number: int, frame: object) -> None:
        if output.is_terminal:
            with suppress(OSError):
                os.write(2, b"\x1b[?25h")
        with suppress(OSError):
            os.write(2, b"\ntwohot: ended at once\n")
        os._exit(128 + number)

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _free_directory(parent: Path, name: str) -> Iterator[Path]:
    """The first of NAME-1, NAME-2, ... that nobody has: made here, and gone again where nothing comes of it."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = parent / f"{name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        break
    try:
        yield path
    finally:
        with suppress(OSError):
            path.rmdir()
