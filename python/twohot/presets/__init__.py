"""Named configurations: `twohot train PRESET`. One file a benchmark; a twin called `-small` is for two cores.

Every module here that has `PRESETS` is found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twohot.presets.preset import Preset

    PRESETS: dict[str, Preset]
    """By name, the quickstart first."""

__all__ = ["PRESETS", "Preset", "summaries"]


def summaries() -> dict[str, str]:
    """The sentence of each preset by its name, as in `PRESETS`; read from the files, so that nobody waits for torch."""
    return _ordered({name: text for module in _modules() for name, text in _written(module).items()})


def _written(module: str) -> dict[str, str]:
    """The sentences in a module's `PRESETS` where they are literals; where not, the module is imported."""
    spec = find_spec(f"{__name__}.{module}")
    source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    for statement in ast.parse(source).body:
        match statement:
            case ast.AnnAssign(target=ast.Name("PRESETS")) | ast.Assign(targets=[ast.Name("PRESETS")]):
                found = dict(_sentences(statement.value))
                return found or {name: preset.summary for name, preset in _presets(module).items()}
    return {}


def _sentences(value: ast.expr | None) -> Iterator[tuple[str, str]]:
    """Of {"NAME": Preset("SENTENCE", ...)}; of anything else nothing."""
    match value:
        case ast.Dict(keys=keys, values=values):
            pairs = list(zip(keys, values, strict=True))
        case _:
            return
    found = []
    for pair in pairs:
        match pair:
            case ast.Constant(str(name)), ast.Call(args=[ast.Constant(str(sentence)), *_]):
                found.append((name, sentence))
            case _:
                return
    yield from found


def _modules() -> list[str]:
    return [module.name for module in iter_modules(__path__)]


def _presets(module: str) -> dict[str, Preset]:
    return getattr(import_module(f"{__name__}.{module}"), "PRESETS", {})


def _ordered(named: dict) -> dict:
    return dict(sorted(named.items(), key=lambda item: (item[0] != "quickstart", item[0])))


def __getattr__(name: str) -> object:
    """`PRESETS` and `Preset`, for which the configuration and with it torch are imported when they are asked for."""
    if name == "PRESETS":
        return globals().setdefault(
            name, _ordered({name: preset for module in _modules() for name, preset in _presets(module).items()})
        )
    if name == "Preset":
        return import_module(f"{__name__}.preset").Preset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
