"""The groups of benchmarks: each module of this folder defines one `GROUP`, which is called by the module's name."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from bench.harness.group import Group


def find_groups() -> dict[str, Group]:
    """Every group by its name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: import_module(f"{__name__}.{name}").GROUP for name in names}
