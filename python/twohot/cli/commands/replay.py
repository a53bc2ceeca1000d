"""Look into, check, repair, fill and empty a replay in a directory.

replay COMMAND ...       look into, verify, repair, import or export a replay directory
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tyro

from twohot.cli.options import console, parse
from twohot.errors import TwohotError, UsageError
from twohot.replay import Problem, Replay
from twohot.replay.manifest import exists, read_manifest, repair_command
from twohot.text import printable

if TYPE_CHECKING:
    from rich.console import Console

USAGE = """\
usage: twohot replay COMMAND ...

  info DIRECTORY                  what a replay holds: its schema, and lengths and returns by task
  verify DIRECTORY                compare every trajectory with its checksum
  repair DIRECTORY                rebuild the index from all that is intact, and set the rest aside
  import FORMAT SOURCE DIRECTORY  add trajectories from AMAGO buffers, Minari datasets or npz files
  export FORMAT DIRECTORY TARGET  write the trajectories as npz, for Minari, Hugging Face datasets or LeRobot

`twohot replay COMMAND --help` explains each.
"""
UNBOUNDED = 2**62
"""A capacity that nothing reaches: looking into a replay evicts nothing."""


@dataclass(frozen=True)
class ReplayInfoOptions:
    """What a replay directory holds: its schema, and lengths and returns by task. Works while others write to it."""

    directory: tyro.conf.Positional[Path]
    """A replay's directory; that of a run with `--replay.storage disk` is RUN/replay."""
    plot: Path | None = None
    """Also draw lengths and returns by task into this file, in the format of its suffix."""


@dataclass(frozen=True)
class ReplayVerifyOptions:
    """Read every trajectory and compare it with its checksum; the exit code is 1 where anything is corrupt."""

    directory: tyro.conf.Positional[Path]
    """A replay's directory."""


@dataclass(frozen=True)
class ReplayRepairOptions:
    """Rebuild the index of a replay from all that is intact; files without any go to its folder `damaged`."""

    directory: tyro.conf.Positional[Path]
    """A replay's directory, to which nobody writes at the moment."""


@dataclass(frozen=True)
class ReplayImportOptions:
    """Add trajectories from files to a replay, which is made where there is none; nothing that is read executes.

    All are read and checked before the first is added: where one is corrupt, nothing is added.
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
    """Of a replay that is made: its capacity in steps; without it nothing ever leaves."""
    protect: bool = False
    """The trajectories never leave, though they count towards the capacity."""


@dataclass(frozen=True)
class ReplayExportOptions:
    """Write all trajectories of a replay, oldest first."""

    format: tyro.conf.Positional[Literal["npz", "minari", "datasets", "lerobot"]]
    """What to write; see docs/replay.md."""
    directory: tyro.conf.Positional[Path]
    """The replay's directory."""
    target: tyro.conf.Positional[str]
    """npz: a file that ends with .npz, or a new folder, for one file a trajectory. minari: a new dataset's name.
    datasets, lerobot: a new folder."""
    fps: int = 30
    """lerobot: steps a second."""
    tasks: tuple[str, ...] = ()
    """lerobot: what the tasks 0, 1, ... are called, in words."""


def run(arguments: list[str]) -> int:
    """Run one of the commands; returns the exit code. Raises TwohotError and OSError."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise UsageError(f"no command {name!r}; there are {', '.join(COMMANDS)}")
    return COMMANDS[name](rest, console())


def _info(arguments: list[str], output: Console) -> int:
    from twohot.reports.numbers import format_number, format_si
    from twohot.reports.terminal import print_table

    options = parse(ReplayInfoOptions, "replay info", arguments)
    with _open(options.directory, corrupt="skip") as replay:
        stats, table = replay.stats(), replay.table()
        size = f"{stats.trajectories} trajectories, {stats.steps} steps, {format_si(stats.bytes)}B"
        print(f"{printable(options.directory)}: {size}")
        for kind, fields in (("observation", replay.schema.observation), ("step", replay.schema.step)):
            for field, about in fields.items():
                print(f"  {kind} {printable(field)}: {_describe(about)}")
        print(f"  action: {_describe(replay.schema.action)}")
        rows = []
        for task in np.unique(table["task"]):
            mine = table["task"] == task
            lengths, returns = table["length"][mine], table["return"][mine]
            counts = (int(mine.sum()), int(lengths.sum()), int(np.median(lengths)))
            low, middle, high = (float(found) for found in np.percentile(returns, (0, 50, 100)))
            size = max(abs(low), abs(high))
            figures = (format_number(figure, size) for figure in (middle, low, high))
            rows.append([str(task), *(f"{count:,}" for count in counts), *figures])
        print_table(output, ["task", "trajectories", "steps", "median length", "median return", "min", "max"], rows, ())
        if options.plot is not None:
            from twohot.reports.replay_plot import plot

            try:
                plot(replay, options.plot)
            except ValueError as error:  # matplotlib's, of a format that it does not know
                raise UsageError(f"--plot: {error}") from error
            print(f"Plot: {printable(options.plot)}")
        if stats.problems:
            print(f"{stats.problems} corrupt records or files were left out: see `twohot replay verify`")
    return 0


def _verify(arguments: list[str], output: Console) -> int:
    options = parse(ReplayVerifyOptions, "replay verify", arguments)
    with _open(options.directory, corrupt="skip") as replay, output.status("reading every trajectory"):
        stats, problems = replay.stats(), replay.verify()
    _print(problems)
    where = printable(options.directory)
    print(f"{where}: {stats.trajectories} trajectories, {stats.steps} steps; {_count(problems)}")
    if problems:
        print(f"`{printable(repair_command(options.directory))}` keeps all that is intact and sets the rest aside")
    return 1 if problems else 0


def _repair(arguments: list[str], output: Console) -> int:
    options = parse(ReplayRepairOptions, "replay repair", arguments)
    with output.status("reading every trajectory"):
        problems = _runtime(lambda: Replay.repair(options.directory))
    _print(problems)
    with _open(options.directory) as replay:
        stats = replay.stats()
    where = printable(options.directory)
    print(f"{where}: {stats.trajectories} trajectories, {stats.steps} steps are intact; {_count(problems)}")
    return 0


def _import(arguments: list[str], output: Console) -> int:
    from twohot.replay.formats import schema_of

    options = parse(ReplayImportOptions, "replay import", arguments)
    first = next(_reader(options), None)
    if first is None:
        raise TwohotError(f"{options.source}: holds no trajectory")
    there = exists(options.directory)
    capacity: dict[str, Any] = {}
    if there:
        schema, found = read_manifest(options.directory)
        capacity.update(found)
    else:
        schema = schema_of(first)
        capacity["capacity_steps"] = UNBOUNDED if options.capacity_steps is None else options.capacity_steps
    # All are read once before the first is added, so that a corrupt one in the midst leaves the directory as it was.
    with _runtime(lambda: Replay.create(schema, **capacity)) as rehearsal, output.status("reading trajectories"):
        _add_all(rehearsal, options, once=True)
    if there:
        replay = _runtime(lambda: Replay.open(options.directory, "append"))
    else:
        replay = Replay.create(schema, directory=options.directory, **capacity)
    with replay, output.status("adding trajectories") as status:
        added = _add_all(replay, options, lambda count: status.update(f"adding trajectories: {count}"))
        replay.sync()
        stats = replay.stats()
    where = printable(options.directory)
    print(f"added {added} trajectories; {where} holds {stats.trajectories} with {stats.steps} steps")
    return 0


def _add_all(
    replay: Replay, options: ReplayImportOptions, tell: Callable[[int], Any] = lambda count: None, *, once: bool = False
) -> int:
    """Adds what the source has, and returns how many; `once`: each is forgotten before the next one."""
    added = 0
    try:
        for trajectory in _reader(options):
            replay.add(**trajectory, protect=options.protect)
            added += 1
            tell(added)
            if once:
                replay.clear()
    except (ValueError, OSError) as error:
        done = "nothing was added" if once else f"the {added} before it were added"
        told = isinstance(error, TwohotError | OSError)  # where it is
        place = "" if told else f"{options.source}: trajectory {added} does not fit the replay: "
        raise TwohotError(f"{place}{error}; {done}") from error
    return added


def _export(arguments: list[str], output: Console) -> int:
    from twohot.replay.formats import write_datasets, write_lerobot, write_minari, write_npz

    options = parse(ReplayExportOptions, "replay export", arguments)
    with _open(options.directory) as replay, output.status("writing trajectories") as status:
        problems = replay.verify()  # of a copy nobody could tell any more
        if problems:
            raise TwohotError(
                f"{problems[0]}; nothing was exported: `{repair_command(options.directory)}` keeps what is intact"
            )

        def trajectories() -> Iterator[dict[str, Any]]:
            for number, trajectory in enumerate(replay.ids().tolist()):
                status.update(f"writing trajectories: {number + 1}")
                yield replay.get(trajectory)

        write: Callable[..., int] = {
            "npz": write_npz,
            "minari": write_minari,
            "datasets": write_datasets,
            "lerobot": partial(write_lerobot, fps=options.fps, tasks=dict(enumerate(options.tasks))),
        }[options.format]
        written = _runtime(lambda: write(options.target, trajectories()))
    print(f"wrote {written} trajectories to {printable(options.target)}")
    return 0


def _reader(options: ReplayImportOptions) -> Iterator[dict[str, Any]]:
    from twohot.replay.formats import read_amago, read_minari, read_npz

    fields = options.fields or None
    if options.format == "amago":
        return read_amago(options.source, discrete=options.discrete, fields=fields)
    return {"minari": read_minari, "npz": read_npz}[options.format](options.source, fields=fields)


def _open(directory: Path, **options: Any) -> Replay:
    return _runtime(lambda: Replay.open(directory, "read", capacity_steps=UNBOUNDED, **options))


def _runtime(call: Callable[[], Any]) -> Any:
    """What the call gives; what it says of the state of a replay, or of an option, is for the user's eyes."""
    try:
        return call()
    except TwohotError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        raise TwohotError(str(error)) from error


def _describe(field: Any) -> str:
    shape = f" {list(field.shape)}" if field.shape else ""
    return f"{field.dtype}{shape}{', ' + field.compression if field.compression else ''}"


def _count(problems: list[Problem]) -> str:
    return "nothing is corrupt" if not problems else f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"


def _print(problems: list[Problem]) -> None:
    for problem in problems:
        print(printable(problem))


COMMANDS: dict[str, Callable[[list[str], Any], int]] = {
    "info": _info,
    "verify": _verify,
    "repair": _repair,
    "import": _import,
    "export": _export,
}
