"""Packages on PyPI that are compared with: which are installed, and how to import them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version


def installed_version(distribution: str) -> str | None:
    """The version of an installed package, None where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@contextmanager
def without_procgen() -> Iterator[None]:
    """For the import of torchrl: it imports a procgen that it finds, and ours lacks what that import needs."""
    hidden = "procgen" not in sys.modules
    if hidden:
        sys.modules["procgen"] = None
    try:
        yield
    finally:
        if hidden:
            del sys.modules["procgen"]
