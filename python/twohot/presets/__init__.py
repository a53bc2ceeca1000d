"""Named configurations: `twohot train PRESET`. One file a benchmark; a twin called `-small` is for two cores.

Every module here that has `PRESETS` is found.
"""

from importlib import import_module
from pkgutil import iter_modules

from twohot.presets.preset import Preset


def _found() -> dict[str, Preset]:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    named = [(name, preset) for module in modules for name, preset in getattr(module, "PRESETS", {}).items()]
    return dict(sorted(named, key=lambda item: (item[0] != "quickstart", item[0])))


PRESETS: dict[str, Preset] = _found()
"""By name, the quickstart first."""

__all__ = ["PRESETS", "Preset"]
