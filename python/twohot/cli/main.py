"""The `twohot` command: finds the command that is asked for in `twohot.cli.commands`, and ends as it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from twohot.cli import commands
from twohot.errors import TwohotError, UsageError
from twohot.extras import TRAIN, require
from twohot.streams import enduring_streams
from twohot.text import did_you_mean, printable

__all__ = ["main"]

# Both are read when torch is first imported. Huge pages halve the page faults of large fresh tensors. OpenMP threads
# that sleep at a barrier cost about a third of a step on an idle machine, and save a factor of five where a core is
# shared, which is the rule; OMP_WAIT_POLICY=active is for those who have the machine to themselves.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 failed, 2 not understood, 130 interrupted, 143 terminated)."""
    with enduring_streams():
        return _main(list(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        import twohot

        print(f"twohot {twohot.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in commands.names():
        there = commands.names()
        print(f"twohot: no command {name!a}: {did_you_mean(name, there)}there are {', '.join(there)}", file=sys.stderr)
        return 2
    try:
        try:
            return commands.load(name)(rest)
        except ModuleNotFoundError:
            require(*TRAIN)  # which says in a sentence what is missing
            raise
    except KeyboardInterrupt as error:
        print("twohot: interrupted", file=sys.stderr)
        return getattr(error, "exit_code", 130)
    except (TwohotError, OSError) as error:
        if os.environ.get("TWOHOT_TRACEBACK") == "1":
            raise
        print(f"twohot: {printable(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _usage() -> str:
    ways = [way for name in commands.names() for way in commands.usage(name)]
    width = max(len(call) for call, _ in ways)
    listing = "\n".join(f"  {call:{width}}   {text}" for call, text in ways)
    return (
        f"usage: twohot COMMAND ...\n\n{listing}\n\n"
        "`twohot COMMAND --help` explains each. With TWOHOT_TRACEBACK=1 an error shows where it came from."
    )


if __name__ == "__main__":
    sys.exit(main())
