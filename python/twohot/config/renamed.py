"""Settings whose names have changed since 0.1: read from files for good, and typed or set by programs until 0.3."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twohot._moved import renamed_fields

RENAMED = {
    "agent.hidden_entries": "agent.excluded_keys",
    "agent.random_shift_share": "agent.random_shift_fraction",
    "collect.flip": "collect.flip_probability",
    "collect.random_multiplier": "collect.randomize_epsilon",
    "data.own_share": "data.own_fraction",
    "environment.free_attempts": "environment.unscored_attempts",
    "optimizer.accumulate": "optimizer.accumulation_steps",
}
"""Old name -> name."""

Settings = TypeVar("Settings")


def renamed_settings(section: str) -> Callable[[type[Settings]], type[Settings]]:
    """Decorates the dataclass of a section, whose settings programs may also set and read under their old names."""
    names = {old: new.partition(".")[2] for old, new in RENAMED.items()}
    return renamed_fields(**{old.partition(".")[2]: new for old, new in names.items() if old.startswith(f"{section}.")})


def current_name(setting: str) -> str:
    """The name of a setting, "section.name", whose name may be an old one."""
    return RENAMED.get(setting, setting)


def current_options(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments of the command line with options under their present names; and a notice for each that was not."""
    options = {_option(old, no): _option(new, no) for old, new in RENAMED.items() for no in ("", "no-")}
    current, notices = [], []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        new = options.get(name.replace("_", "-"))
        if new is not None:
            notices.append(f"{name} is now {new}; 0.3 drops the old name")
        current.append(argument if new is None else f"{new}{equals}{value}")
    return current, notices


def _option(setting: str, no: str) -> str:
    section, _, name = setting.replace("_", "-").partition(".")
    return f"--{section}.{no}{name}"
