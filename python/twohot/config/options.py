"""Settings by name, as files, programs and the command line give them: nested, or with dotted names."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from twohot.config.checks import ConfigurationError
from twohot.errors import UsageError
from twohot.files import parse_json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file says. Raises ConfigurationError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML ({error})") from None


def read_options(path: Path) -> dict[str, Any]:
    """Options in a file: TOML where its name ends so, else JSON such as a run's `config.json`.

    Raises:
        UsageError: there is no such file. ConfigurationError: it is neither.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected settings in TOML or JSON, such as RUN/config.json")
    if path.suffix == ".toml":
        return read_toml(path)
    try:
        options = parse_json(path.read_bytes(), finite=False)
    except ValueError as error:
        raise ConfigurationError(f"{path}: not JSON ({error}); the name of a TOML file ends in .toml") from None
    if not isinstance(options, dict):
        raise ConfigurationError(f"{path}: expected a JSON object of settings, got {options!r:.80}")
    return options


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as tables within tables: "agent.width" becomes an entry of "agent"; a dataclass gives all its fields."""
    result: dict[str, Any] = {}
    for name, value in options.items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)  # noqa: PLW2901
        inner = nested(value) if isinstance(value, Mapping) else value
        *tables, last = str(name).split(".")
        for table in reversed(tables):
            last, inner = table, {last: inner}
        result = merged(result, {last: inner})
    return result


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the entries of `changes`, table within table."""
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = merged(inner, value)  # noqa: PLW2901
        result[key] = value
    return result


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Entries of nested tables, by dotted name."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


@cache
def setting_names(cls: type, prefix: str = "") -> tuple[str, ...]:
    """Dotted names of all settings of a dataclass tree, sections apart."""
    found: list[str] = []
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        inner = hints[field.name]
        is_section = isinstance(inner, type) and dataclasses.is_dataclass(inner)
        found += setting_names(inner, f"{prefix}{field.name}.") if is_section else [prefix + field.name]
    return tuple(found)
