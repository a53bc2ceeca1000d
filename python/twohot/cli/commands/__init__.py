"""Commands: every module here is one, which bears its name and has `run(arguments) -> int`, the exit code.

Its docstring begins with what it does; lines of it like "NAME ARGUMENTS  what that does" are listed by `twohot --help`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules


def names() -> list[str]:
    """All commands, by name."""
    return [module.name for module in iter_modules(__path__)]


def load(name: str) -> Callable[[list[str]], int]:
    """What runs a command."""
    return import_module(f"{__name__}.{name}").run


def usage(name: str) -> list[tuple[str, str]]:
    """How to call a command, and what that does, from its docstring; imports nothing, so that --help is fast."""
    spec = find_spec(f"{__name__}.{name}")
    source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    summary, _, rest = (ast.get_docstring(ast.parse(source)) or name).partition("\n")
    lines = re.findall(r"^(\S.*?) {2,}(\S.*)$", rest, re.MULTILINE)
    return lines or [(name, summary)]
