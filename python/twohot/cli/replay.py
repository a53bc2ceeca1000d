"""`twohot replay`: looks into, checks, mends, fills and empties a replay in a directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twohot.cli.options import (
    ReplayExportOptions,
    ReplayImportOptions,
    ReplayInfoOptions,
    ReplayRepairOptions,
    ReplayVerifyOptions,
    parse,
)
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
  repair DIRECTORY                make the index anew from all that is intact, and set the rest aside
  import FORMAT SOURCE DIRECTORY  add trajectories from AMAGO buffers, Minari datasets or npz files
  export FORMAT DIRECTORY TARGET  write the trajectories as npz or as a Minari dataset

`twohot replay COMMAND --help` explains each.
"""
UNBOUNDED = 2**62
"""A capacity that nothing reaches: looking into a replay evicts nothing."""


def run(arguments: list[str], console: Console) -> int:
    """Run one of the commands; returns the exit code. Raises TwohotError and OSError."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise UsageError(f"no command {name!r}; there are {', '.join(COMMANDS)}")
    return COMMANDS[name](rest, console)


def _info(arguments: list[str], console: Console) -> int:
    from rich.table import Table

    from twohot.reports.figures import compact

    options = parse(ReplayInfoOptions, "replay info", arguments)
    with _open(options.directory, corrupt="skip") as replay:
        stats, table = replay.stats(), replay.table()
        size = f"{stats.trajectories} trajectories, {stats.steps} steps, {compact(stats.bytes)}B"
        print(f"{printable(options.directory)}: {size}")
        for kind, fields in (("observation", replay.schema.observation), ("step", replay.schema.step)):
            for field, about in fields.items():
                print(f"  {kind} {printable(field)}: {_describe(about)}")
        print(f"  action: {_describe(replay.schema.action)}")
        rows = Table("task", *("trajectories", "steps", "median length", "median return", "least", "most"))
        for task in np.unique(table["task"]):
            mine = table["task"] == task
            lengths, returns = table["length"][mine], table["return"][mine]
            figures = (np.median(returns), returns.min(), returns.max())
            counts = (mine.sum(), lengths.sum(), int(np.median(lengths)))
            rows.add_row(str(task), *map(str, counts), *(f"{figure:.4g}" for figure in figures))
        console.print(rows)
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


def _verify(arguments: list[str], console: Console) -> int:
    options = parse(ReplayVerifyOptions, "replay verify", arguments)
    with _open(options.directory, corrupt="skip") as replay, console.status("reading every trajectory"):
        stats, problems = replay.stats(), replay.verify()
    _print(problems)
    where = printable(options.directory)
    print(f"{where}: {stats.trajectories} trajectories, {stats.steps} steps; {_count(problems)}")
    if problems:
        print(f"`{printable(repair_command(options.directory))}` keeps all that is intact and sets the rest aside")
    return 1 if problems else 0


def _repair(arguments: list[str], console: Console) -> int:
    options = parse(ReplayRepairOptions, "replay repair", arguments)
    with console.status("reading every trajectory"):
        problems = _runtime(lambda: Replay.repair(options.directory))
    _print(problems)
    with _open(options.directory) as replay:
        stats = replay.stats()
    where = printable(options.directory)
    print(f"{where}: {stats.trajectories} trajectories, {stats.steps} steps are intact; {_count(problems)}")
    return 0


def _import(arguments: list[str], console: Console) -> int:
    from twohot.replay.formats import schema_of

    options = parse(ReplayImportOptions, "replay import", arguments)
    first = next(_reader(options), None)
    if first is None:
        raise TwohotError(f"{options.source}: holds no trajectory")
    there = exists(options.directory)
    if there:
        schema, capacity = read_manifest(options.directory)
    else:
        steps = UNBOUNDED if options.capacity_steps is None else options.capacity_steps
        schema, capacity = schema_of(first), {"capacity_steps": steps}
    # All are read once before the first is added, so that a corrupt one in the midst leaves the directory as it was.
    with _runtime(lambda: Replay.create(schema, **capacity)) as rehearsal, console.status("reading trajectories"):
        _add_all(rehearsal, options, once=True)
    if there:
        replay = _runtime(lambda: Replay.open(options.directory, "append"))
    else:
        replay = Replay.create(schema, directory=options.directory, **capacity)
    with replay, console.status("adding trajectories") as status:
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


def _export(arguments: list[str], console: Console) -> int:
    from twohot.replay.formats import write_minari, write_npz

    options = parse(ReplayExportOptions, "replay export", arguments)
    with _open(options.directory) as replay, console.status("writing trajectories") as status:
        problems = replay.verify()  # of a copy nobody could tell any more
        if problems:
            raise TwohotError(
                f"{problems[0]}; nothing was exported: `{repair_command(options.directory)}` keeps what is intact"
            )

        def trajectories() -> Iterator[dict[str, Any]]:
            for number, trajectory in enumerate(replay.ids().tolist()):
                status.update(f"writing trajectories: {number + 1}")
                yield replay.get(trajectory)

        write = write_npz if options.format == "npz" else write_minari
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
