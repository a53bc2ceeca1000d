"""Modules under the names that they had in 0.1, which 0.3 drops."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "twohot.acting": "twohot.inference.agent",
    "twohot.analysis": "twohot.inference.analysis",
    "twohot.bins": "twohot.losses.bins",
    "twohot.checkpoint": "twohot.runs.checkpoint",
    "twohot.config_files": "twohot.config.files",
    "twohot.envs.batched": "twohot.envs.vector.batched",
    "twohot.evaluate": "twohot.training.evaluate",
    "twohot.export": "twohot.inference.export",
    "twohot.learner": "twohot.learning.learner",
    "twohot.metrics": "twohot.runs.metrics",
    "twohot.offline": "twohot.data.offline",
    "twohot.progress": "twohot.training.progress",
    "twohot.replay.views": "twohot.reports.replay_plot",
    "twohot.report": "twohot.reports.report",
    "twohot.rollout": "twohot.data.rollout",
    "twohot.train": "twohot.training.train",
    "twohot.video": "twohot.training.video",
    **{
        f"twohot.envs.{suite}": f"twohot.envs.suites.{suite}"
        for suite in ("atari", "babyai", "gymnasium", "maze_runner", "metaworld", "popgym", "procgen", "retro")
    },
}
"""Old name -> name."""


class _Finder(MetaPathFinder, Loader):
    """Gives a module of an old name the attributes of the one that it became."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        new = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is now {new}; 0.3 drops the old name", DeprecationWarning, stacklevel=2)
        found = import_module(new)
        module.__doc__ = found.__doc__
        module.__getattr__ = lambda name: getattr(found, name)
        module.__dir__ = lambda: dir(found)


def install() -> None:
    """Let the old names be imported."""
    sys.meta_path.append(_Finder())
