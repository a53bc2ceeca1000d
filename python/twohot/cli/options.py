"""What commands share: options as dataclasses, the console, and the directory of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from twohot.errors import UsageError
from twohot.text import did_you_mean_setting

if TYPE_CHECKING:
    from rich.console import Console

Options = TypeVar("Options")


def parse(kind: type[Options], command: str, arguments: list[str], default: Options | None = None) -> Options:
    """An instance of a dataclass from the command line; prints help, or which value cannot be understood, and exits.

    Args:
        kind: a field is an option, its docstring the help of it. command: its name, in the help.
        default: what options that are left out are taken from; None: the defaults of the fields.

    Raises:
        UsageError: there is no such option; the sentence names what is close to it.
    """
    import tyro

    prog = f"twohot {command}"
    parsed, unknown = tyro.cli(
        kind, prog=prog, args=arguments, default=default, description=kind.__doc__, return_unknown_args=True
    )
    for argument in unknown:
        option = argument.partition("=")[0].replace("_", "-")
        if argument.startswith("-"):
            hint = did_you_mean_setting(option, options_of(kind if default is None else default))
            raise UsageError(f"no option {option}: {hint}`{prog} --help` lists all")
    if unknown:
        raise UsageError(f"expected options, got {unknown[0]!r}: `{prog} --help` lists all")
    assert isinstance(parsed, kind)
    return parsed


def options_of(kind: Any, section: str = "") -> Iterator[str]:
    """The options of a dataclass, such as "--seed"; of an instance of it, those of its sections as well."""
    hints = get_type_hints(kind if isinstance(kind, type) else type(kind), include_extras=True)
    for field in fields(kind):
        named = [about.name for about in getattr(hints[field.name], "__metadata__", ()) if hasattr(about, "name")]
        name = field.name.replace("_", "-") if not named or named[0] is None else named[0]
        value = None if isinstance(kind, type) else getattr(kind, field.name)
        if is_dataclass(value):
            yield from options_of(value, f"{section}{name}." if name else section)
        else:
            yield f"--{section}{name}"


def console() -> Console:
    """Where to print tables: plain text, wherever it comes from."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def run_directory(run: Path) -> Path:
    """The same path; raises UsageError unless it holds a run."""
    if not (run / "config.json").is_file():
        raise UsageError(f"{run}: no run here (expected {run / 'config.json'}); runs are made by `twohot train`")
    return run
