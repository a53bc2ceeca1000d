"""What settings may be, and the error of one that is something else."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from numbers import Integral, Real
from typing import Literal, get_args, get_origin, get_type_hints

from twohot.errors import TwohotError

LIMIT = 2**63
"""What every whole number in a configuration is below."""
MAX_THREADS = 1024


class ConfigurationError(TwohotError):
    """A configuration that cannot run; the message says which setting, what it must be, and what it is.

    No ValueError: tyro would catch one and print it in its own words.
    """


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigurationError(message)


def require_kinds(settings: object, where: str = "") -> None:
    """That switches are bools, numbers are numbers, and choices are among theirs: programs are not checked by tyro."""
    for name, (expected, fits) in _kinds(type(settings)).items():
        value = getattr(settings, name)
        require(fits(value), f"{where}{name}: expected {expected}, got {value!r}")


@cache
def _kinds(cls: type) -> dict[str, tuple[str, Callable[[object], bool]]]:
    """Of the settings that are no text, tuple or dataclass: what is expected, and whether a value is that."""
    found = {}
    for name, hint in get_type_hints(cls).items():
        kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if get_origin(hint) is Literal:
            choices = get_args(hint)
            found[name] = f"one of {', '.join(choices)}", lambda value, choices=choices: value in choices
        elif kinds[0] is bool:
            found[name] = "True or False", lambda value: isinstance(value, bool)
        elif kinds[0] in (int, float):
            expected, number = ("an integer", Integral) if kinds[0] is int else ("a number", Real)
            allowed = (number, *kinds[1:])
            found[name] = expected, lambda x, allowed=allowed: isinstance(x, allowed) and not isinstance(x, bool)
    return found
