"""What commands share: options as dataclasses, the console, and the directory of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from twohot.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

Options = TypeVar("Options")


def parse(kind: type[Options], command: str, arguments: list[str], default: Options | None = None) -> Options:
    """An instance of a dataclass from the command line; prints help, or what cannot be understood, and exits.

    Args:
        kind: a field is an option, its docstring the help of it. command: its name, in the help.
        default: what options that are left out are taken from; None: the defaults of the fields.
    """
    import tyro

    parsed = tyro.cli(kind, prog=f"twohot {command}", args=arguments, default=default, description=kind.__doc__)
    assert isinstance(parsed, kind)
    return parsed


def console() -> Console:
    """Where to print tables: plain text, wherever it comes from."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def run_directory(run: Path) -> Path:
    """The same path; raises UsageError unless it holds a run."""
    if not (run / "config.json").is_file():
        raise UsageError(f"{run}: no run here (expected {run / 'config.json'}); runs are made by `twohot train`")
    return run
