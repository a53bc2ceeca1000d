"""Train an agent from a preset, or continue a run.

train PRESET [options]   train an agent; `twohot train --help` lists the presets
train PRESET --from RUN [options]   the same, beginning with the weights of another run where they fit
train PRESET --config FILE [options]   the same with the settings of a TOML or JSON file, such as a run's config.json
train --resume RUN       continue a run that was stopped or killed; `train PRESET --run RUN --continue` starts it, too
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from twohot import presets
from twohot.cli.options import console, parse, run_directory
from twohot.errors import TwohotError, UsageError
from twohot.extras import TRAIN, require
from twohot.text import did_you_mean, printable

if TYPE_CHECKING:
    from rich.console import Console

    from twohot.api.run import Run


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
    from twohot.api.train import configuration, free_directory, train
    from twohot.cli.train_options import TrainOptions
    from twohot.config.files import to_json
    from twohot.config.renamed import current_options
    from twohot.runs.checkpoint import differences
    from twohot.training.ranks import learners

    rest = [re.sub(r"^--env(?==|$)", "--environment.tasks", argument) for argument in rest]
    rest, notices = current_options(rest)
    for notice in notices:
        print(f"twohot: {notice}", file=sys.stderr)
    base = configuration(name, _value("--config", rest))
    options = parse(TrainOptions, f"train {name}", rest, default=TrainOptions(base))
    if options.continue_ and options.run is None:
        raise UsageError("--continue: expected the directory of the run too: twohot train PRESET --run RUN --continue")
    asked = differences(to_json(options.settings), to_json(base), frozenset())
    arguments_of_train = {
        "config": options.config,
        "options": {setting: value for setting, value, _ in asked},
        "continue_": options.continue_,
        "from_": options.from_,
        "writers": options.writers,
    }
    if options.run is None and learners() > 1:
        raise UsageError("--run: expected the run's directory, which the learners that torchrun has started share")
    with free_directory(Path("runs"), name) if options.run is None else nullcontext(options.run) as run:
        return _finish(run, lambda: train(name, run=run, **arguments_of_train))


def _usage() -> str:
    known = presets.summaries()
    width = max(map(len, known))
    listing = "\n".join(f"  {name:{width}}  {summary}" for name, summary in known.items())
    return (
        "usage: twohot train PRESET [options]\n       twohot train PRESET --config FILE [options]\n"
        "       twohot train PRESET --from RUN [options]\n"
        "       twohot train PRESET --run RUN --continue [options]\n"
        f"       twohot train --resume RUN [--epochs N] [--checkpoint-minutes M]\n\n{listing}\n\n"
        "`twohot train PRESET --help` lists every option with the preset's value."
    )


def _value(option: str, arguments: list[str]) -> str | None:
    """What an option is given, before the others are read, whose defaults it decides."""
    found = None
    for argument, after in pairwise([*arguments, ""]):
        if argument == option:
            found = after
        elif argument.startswith(f"{option}="):
            found = argument.removeprefix(f"{option}=")
    return found


def _resume(arguments: list[str]) -> int:
    from twohot.api.train import train
    from twohot.cli.train_options import ResumeOptions

    options = parse(ResumeOptions, "train", arguments)
    run = run_directory(options.resume)
    free = {
        "epochs": options.epochs,
        "checkpoint_minutes": options.checkpoint_minutes,
        "actors": options.actors,
        "ray.address": options.ray_address,
    }
    free = {setting: value for setting, value in free.items() if value is not None}
    return _finish(run, lambda: train(resume=run, options=free, writers=options.writers))


def _finish(run: Path, work: Callable[[], Run]) -> int:
    """Train, and end with the table of results and the report's path; an interruption says how to go on."""
    from twohot.reports.report import print_results
    from twohot.runs.checkpoint import resume_command
    from twohot.training.interruption import Interrupted
    from twohot.training.ranks import is_first

    output = console()
    advice = f"continue with: {resume_command(run)}"
    try:
        with _ends_at_once(output):
            trained = work()
    except Interrupted as interrupted:
        what = "terminated" if interrupted.signal == signal.SIGTERM else "interrupted"
        how = f"; {advice}" if (run / "config.json").exists() else ""
        print(f"twohot: {what}{printable(how)}", file=sys.stderr)
        return interrupted.exit_code
    except OSError as error:
        if isinstance(error, TwohotError) or not (run / "config.json").exists():
            raise
        raise TwohotError(f"{error}; what was committed is safe: fix that, then {advice}") from error
    if not is_first():
        return 0
    print_results(output, list(trained.scores.values()))
    output.print(f"Report: {printable(trained.report())}", soft_wrap=True)
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
