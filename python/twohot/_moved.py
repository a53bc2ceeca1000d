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
    **{f"twohot.{name}": f"twohot.cli.{name}" for name in ("environment_check", "options")},
    **{
        f"twohot.{name}": f"twohot.data.{name}"
        for name in ("experience", "offline", "offline_columns", "offline_scan", "rollout")
    },
    **{f"twohot.{name}": f"twohot.inference.{name}" for name in ("analysis", "export")},
    **{f"twohot.{name}": f"twohot.learning.{name}" for name in ("learner",)},
    **{f"twohot.{name}": f"twohot.losses.{name}" for name in ("bins",)},
    **{f"twohot.{name}": f"twohot.reports.{name}" for name in ("figures", "markup", "page", "report", "results")},
    **{f"twohot.{name}": f"twohot.runs.{name}" for name in ("checkpoint", "metrics", "ownership", "scores")},
    **{
        f"twohot.{name}": f"twohot.training.{name}"
        for name in ("epoch", "evaluate", "interruption", "progress", "train", "video")
    },
    **{
        f"twohot.envs.{name}": f"twohot.envs.suites.{name}"
        for name in (
            "atari",
            "babyai",
            "dark_key",
            "frozen_lake",
            "gym_vector",
            "gymnasium",
            "half_cheetah",
            "maze_runner",
            "metaworld",
            "popgym",
            "procgen",
            "retro",
            "tmaze",
        )
    },
    **{
        f"twohot.envs.{name}": f"twohot.envs.vector.{name}"
        for name in ("batched", "batched_trials", "machine", "python_batch", "rows", "trial_vector", "workers")
    },
    **{
        f"twohot.envs.{name}": f"twohot.envs.wrappers.{name}"
        for name in ("actions", "attempts", "layout", "one_hot", "padding")
    },
    "twohot.acting": "twohot.inference.agent",
    "twohot.config_files": "twohot.config.files",
    "twohot.conventions": "twohot.spaces",
    "twohot.envs.multitask": "twohot.envs.wrappers.trial",
    "twohot.evaluate_command": "twohot.cli.evaluate",
    "twohot.evaluation_section": "twohot.reports.evaluation",
    "twohot.loss_rows": "twohot.losses.rows",
    "twohot.networks": "twohot.agent.build",
    "twohot.replay.views": "twohot.reports.replay_plot",
    "twohot.replay_commands": "twohot.cli.replay",
    "twohot.run_replay": "twohot.runs.replay",
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
