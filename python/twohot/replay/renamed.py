"""Names of 0.1, which 0.3 drops."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def warn_renamed(old: str, new: str) -> None:
    """Warn the caller of whoever calls this."""
    warnings.warn(f"{old} is now {new}; 0.3 drops the old name", DeprecationWarning, stacklevel=3)


def renamed_keywords(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a function be called with old keywords (old="new"). TypeError for an old one beside the new one."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> R:
            for old in names.keys() & keywords.keys():
                new = names[old]
                if new in keywords:
                    raise TypeError(
                        f"{function.__name__}: {old} is the old name of {new}; expected one of them, got both"
                    )
                warn_renamed(f"{function.__name__}({old}=)", f"{new}=")
                keywords[new] = keywords.pop(old)
            return function(*args, **keywords)

        return call

    return decorate
