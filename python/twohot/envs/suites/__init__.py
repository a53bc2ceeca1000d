"""Suites of environments: every module here that has a `SUITE`, which `twohot.envs` registers."""

from importlib import import_module
from pkgutil import iter_modules

from twohot.envs.registry import Suite


def found() -> tuple[Suite, ...]:
    """The suites of this folder, in the order of their modules."""
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    return tuple(module.SUITE for module in modules)
