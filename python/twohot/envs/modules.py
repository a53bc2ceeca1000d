"""Tasks that are written "module:Id-v0": the module registers them, and may be a file of the working directory."""

from __future__ import annotations

import sys
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from pathlib import Path

import gymnasium as gym

from twohot.envs.checked import FAILURES, raise_named
from twohot.envs.registry import UnknownEnvironmentError


def import_module_of(task: str, name: str) -> None:
    """Import what stands before the colon of a task, if it has one.

    Args:
        task: such as "my_file:MyEnv-v0". name: what errors call it.

    Raises:
        UnknownEnvironmentError: there is no such module. BrokenEnvironmentError: it raised when it was imported.
    """
    module, colon, _ = task.partition(":")
    if not colon:
        return
    here, first = Path.cwd(), module.partition(".")[0]
    is_here = first and ((here / first).is_dir() or (here / f"{first}.py").is_file())
    if is_here and first not in sys.modules and find_spec(first) is None:
        sys.path.append(str(here))  # last: no file here takes the place of an installed package
        invalidate_caches()
    try:
        if first:
            import_module(module)
            return
    except FAILURES as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{module}.".startswith(f"{missing}."):
            raise_named(error, name, f"import {module}")
    raise UnknownEnvironmentError(
        f"{name}: expected `module:Id-v0` with a module that Python finds or that is a file of the working directory "
        f"{here}, got the module {module!r}" + (": leave out .py" if module.endswith(".py") else "")
    )


def ids_of(task: str) -> str:
    """What the module of a task registers, as the end of a sentence; empty where the task names no module."""
    module, colon, _ = task.partition(":")
    if not colon:
        return ""
    ids = [name for name, spec in gym.registry.items() if _module(spec.entry_point) == module]
    known = ", ".join(ids) or "nothing: gymnasium.register(id, entry_point=...) belongs at its end"
    return f" ({module}, which is {getattr(sys.modules.get(module), '__file__', None)}, registers {known})"


def _module(entry_point: object) -> str:
    """Where an entry point, "module:Name" or a class, is from."""
    return entry_point.partition(":")[0] if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
