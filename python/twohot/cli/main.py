"""The `twohot` command: train, evaluate, report, replay, envs, info."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from twohot.errors import TwohotError, UsageError
from twohot.streams import enduring_streams
from twohot.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from twohot.cli.options import TrainOptions
    from twohot.config import TrainConfig

# Both are read when torch is first imported. Huge pages halve the page faults of large fresh tensors. OpenMP threads
# that sleep at a barrier cost about a third of a step on an idle machine, and save a factor of five where a core is
# shared, which is the rule; OMP_WAIT_POLICY=active is for those who have the machine to themselves.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

USAGE = """\
usage: twohot COMMAND ...

  train PRESET [options]   train an agent; `twohot train --help` lists the presets
  train --resume RUN       continue a run that was stopped or killed; `train PRESET --run RUN --continue` starts it, too
  evaluate RUN [RUN ...]   play trained agents, per task and per attempt
  report RUN [options]     write a run's results as one HTML page
  replay COMMAND ...       look into, verify, repair, import or export a replay directory
  envs [SUITE]             list the environments: what is installed, and how to install the rest
  envs --check MODULE:ID   play an environment of your own, and say what is wrong with it
  info                     versions, devices, and which native code runs

`twohot COMMAND --help` explains each. With TWOHOT_TRACEBACK=1 an error shows where it came from.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 failed, 2 not understood, 130 interrupted, 143 terminated)."""
    with enduring_streams():
        return _main(list(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        import twohot

        print(f"twohot {twohot.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"twohot: no command {name!a}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return COMMANDS[name](rest) or 0
    except KeyboardInterrupt:
        print("twohot: interrupted", file=sys.stderr)
        return 130
    except (TwohotError, OSError) as error:
        if os.environ.get("TWOHOT_TRACEBACK") == "1":
            raise
        print(f"twohot: {printable(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _console() -> Console:
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)  # what is printed is text, wherever it comes from


def _run_directory(run: Path) -> Path:
    if not (run / "config.json").is_file():
        raise UsageError(f"{run}: no run here (expected {run / 'config.json'}); runs are made by `twohot train`")
    return run


def _train(arguments: list[str]) -> int:
    from twohot.presets import PRESETS

    if arguments and arguments[0].split("=")[0] == "--resume":
        return _resume(arguments)
    if any(argument.split("=")[0] == "--resume" for argument in arguments):
        raise UsageError("--resume takes the place of a preset: twohot train --resume RUN [--epochs N]")
    listing = "\n".join(f"  {name:18} {preset.summary}" for name, preset in PRESETS.items())
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            "usage: twohot train PRESET [options]\n       twohot train PRESET --run RUN --continue [options]\n"
            f"       twohot train --resume RUN [--epochs N] [--checkpoint-minutes M]\n\n{listing}"
        )
        print("\n`twohot train PRESET --help` lists every option with the preset's value.")
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    from twohot.cli.options import TrainOptions, parse
    from twohot.training.train import train

    rest = [re.sub(r"^--env(?==|$)", "--environment.tasks", argument) for argument in rest]
    options = parse(TrainOptions, f"train {name}", rest, default=TrainOptions(PRESETS[name].config))
    if options.continue_ and options.run is None:
        raise UsageError("--continue: expected the directory of the run too: twohot train PRESET --run RUN --continue")
    if options.continue_ and (options.run / "config.json").exists():
        return _continue(options, PRESETS[name].config)
    with _free_directory(Path("runs"), name) if options.run is None else nullcontext(options.run) as run:
        return _finish(run, lambda progress: train(options.config, run, progress))


def _continue(options: TrainOptions, preset: TrainConfig) -> int:
    """Resume the run whose configuration the options agree with; more epochs than it has make it longer."""
    from twohot.config import ConfigurationError
    from twohot.config.files import load_config
    from twohot.training.train import resume, settings_in_conflict

    run, asked, stored = options.run, options.config, load_config(options.run / "config.json")
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
    from twohot.cli.options import ResumeOptions, parse
    from twohot.training.train import resume

    options = parse(ResumeOptions, "train", arguments)
    run = _run_directory(options.resume)
    return _finish(run, lambda progress: resume(run, progress, options.epochs, options.checkpoint_minutes))


def _finish(run: Path, work: Callable) -> int:
    """Train, and end with the table of results and the report's path; an interruption says how to go on."""
    from twohot.reports.report import print_results, results_table, write_report
    from twohot.runs.checkpoint import resume_command
    from twohot.training.interruption import Interrupted
    from twohot.training.progress import Progress

    console = _console()
    console.print(f"Run directory: {printable(run)}", soft_wrap=True)
    advice = f"continue with: {resume_command(run)}"
    try:
        with _ends_at_once(console):
            work(Progress(console))
    except Interrupted as interrupted:
        what = "terminated" if interrupted.signal == signal.SIGTERM else "interrupted"
        how = f"; {advice}" if (run / "config.json").exists() else ""
        print(f"twohot: {what}{printable(how)}", file=sys.stderr)
        return interrupted.exit_code
    except OSError as error:
        if isinstance(error, TwohotError) or not (run / "config.json").exists():
            raise
        raise TwohotError(f"{error}; what was committed is safe: mend that, then {advice}") from error
    print_results(console, results_table(run))
    console.print(f"Report: {printable(write_report(run))}", soft_wrap=True)
    return 0


@contextmanager
def _ends_at_once(console: Console) -> Iterator[None]:
    """Within, a signal that nobody else hears ends this process there and then, with the cursor shown again."""

    def end(number: int, frame: object) -> None:
        if console.is_terminal:
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


def _evaluate(arguments: list[str]) -> int:
    from twohot.cli.options import EvaluateOptions, parse

    options = parse(EvaluateOptions, "evaluate", arguments)
    if options.trials < 1:
        raise UsageError(f"--trials: expected at least 1, got {options.trials}")
    directories = [_run_directory(run) for run in options.runs]
    if len({directory.resolve() for directory in directories}) < len(directories):
        raise UsageError(f"expected every run once, got {', '.join(map(str, directories))}")
    from twohot.cli.evaluate import run

    run(options, _console())
    return 0


def _report(arguments: list[str]) -> int:
    from twohot.cli.options import ReportOptions, parse

    options = parse(ReportOptions, "report", arguments)
    from twohot.reports.report import write_report

    print(printable(write_report(_run_directory(options.run), options.output)))
    return 0


def _replay(arguments: list[str]) -> int:
    from twohot.cli.replay import run

    return run(arguments, _console())


def _envs(arguments: list[str]) -> int:
    from twohot.cli.options import EnvsOptions, parse

    options = parse(EnvsOptions, "envs", arguments)
    if options.check is not None:
        return _check_environment((options.suite, *options.check) if options.suite else options.check)
    from rich.table import Table

    from twohot.envs import get_suite, registered_suites

    console = _console()
    if options.suite:
        print("\n".join(map(printable, get_suite(options.suite).tasks)))
        return 0
    table = Table("suite", "tasks", "status", "what it is")
    for suite in registered_suites().values():
        status = f"missing: {suite.install}" if suite.missing() else "installed"
        table.add_row(suite.name, str(len(suite.tasks)), status, suite.summary)
    console.print(table)
    return 0


def _check_environment(named: tuple[str, ...]) -> int:
    from twohot.cli.environment_check import WRONG, check
    from twohot.envs import registered_suites

    suite, *tasks = named if len(named) > 1 else ("gym", *named)
    if len(tasks) != 1 or tasks[0] in registered_suites():
        raise UsageError(
            "--check: expected one environment, as module:Id-v0, an id of gymnasium or SUITE TASK, got "
            f"{' '.join(named) or 'none'}"
        )
    print(f"{suite} task {tasks[0]!r}")
    wrong = 0
    for found in check(suite, tasks[0]):
        wrong += found.kind == WRONG
        print(f"  {found.kind:5}  {printable(found.text)}", flush=True)
    print("An agent can be trained on it." if not wrong else f"{wrong} of these {'is' if wrong == 1 else 'are'} wrong.")
    return int(wrong > 0)


def _info(arguments: list[str]) -> int:
    from twohot.cli.options import InfoOptions, parse

    options = parse(InfoOptions, "info", arguments)
    from twohot.info import attention_facts, facts

    labels = attention_facts(options.device, options.dtype, options.head_size) if options.attention else facts()
    width = max(map(len, labels))
    print("\n".join(f"{label:{width}}  {printable(value)}" for label, value in labels.items()))
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "report": _report,
    "replay": _replay,
    "envs": _envs,
    "info": _info,
}

if __name__ == "__main__":
    sys.exit(main())
