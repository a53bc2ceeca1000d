"""Modules, arguments and fields under the names that they had in 0.1, which 0.3 drops."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Class = TypeVar("Class")

MOVED = {
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
        for name in ("batched", "batched_trials", "machine", "python_batch", "trial_vector", "workers")
    },
    **{
        f"twohot.envs.{name}": f"twohot.envs.wrappers.{name}"
        for name in ("actions", "attempts", "layout", "one_hot", "padding")
    },
    "twohot.acting": "twohot.inference.agent",
    "twohot.config_files": "twohot.config.files",
    "twohot.conventions": "twohot.spaces",
    "twohot.environment_check": "twohot.cli.environment_check",
    "twohot.envs.multitask": "twohot.envs.wrappers.trial",
    "twohot.envs.rows": "twohot.envs.vector.serial",
    "twohot.evaluate_command": "twohot.cli.commands.evaluate",
    "twohot.evaluation_section": "twohot.reports.evaluation",
    "twohot.loss_rows": "twohot.losses.rows",
    "twohot.networks": "twohot.agent.build",
    "twohot.replay.views": "twohot.reports.replay_plot",
    "twohot.replay_commands": "twohot.cli.commands.replay",
    "twohot.run_replay": "twohot.runs.replay",
}
"""Old name -> name."""


class _CallableModule(ModuleType):
    """The old module `twohot.train`, which once it is imported takes the place of the function of that name."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return import_module("twohot.api.train").train(*arguments, **named)


class _Finder(MetaPathFinder, Loader):
    """Gives a module of an old name the attributes of the one that it became."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        new = MOVED[module.__name__]
        warn_renamed(module.__name__, new)
        found = import_module(new)
        module.__doc__ = found.__doc__
        module.__getattr__ = lambda name: getattr(found, name)
        module.__dir__ = lambda: dir(found)
        if module.__name__ == "twohot.train":
            module.__class__ = _CallableModule


def install() -> None:
    """Let the old names be imported."""
    sys.meta_path.append(_Finder())


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Say that `old` is now `new`, to who called the caller."""
    warnings.warn(f"{old} is now {new}; 0.3 drops the old name", DeprecationWarning, stacklevel=stacklevel)


def renamed_attributes(module: str, **renamed: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module, whose attributes are read under their old names, too: `Old="New"`."""

    def read(name: str) -> Any:
        if name not in renamed:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn_renamed(name, renamed[name])
        return getattr(sys.modules[module], renamed[name])

    return read


def renamed_arguments(**renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function that takes each keyword argument under its old name, too: `old="new"`.

    TypeError for an argument under both.
    """
    return _renamed_arguments(renamed, both=False)


def _renamed_arguments(renamed: dict[str, str], *, both: bool) -> Callable[[Callable[P, R]], Callable[P, R]]:
    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in renamed.keys() & kwargs.keys():
                new = renamed[old]
                if new in kwargs and not both:
                    raise TypeError(f"{old} is the old name of {new}; expected one of them, got both")
                warn_renamed(f"the argument {old}", new)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


def renamed_fields(**renamed: str) -> Callable[[type[Class]], type[Class]]:
    """Decorates a class whose fields are also set and read under their old names: `old="new"`."""

    def decorate(cls: type[Class]) -> type[Class]:
        def read(self: Class, name: str) -> Any:
            if name not in renamed:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            warn_renamed(f"{cls.__name__}.{name}", renamed[name])
            return getattr(self, renamed[name])

        # `dataclasses.replace` sets a field that it changes under its old name under both; the change counts.
        setattr(cls, "__init__", _renamed_arguments(renamed, both=True)(cls.__init__))  # noqa: B010 (of a class)
        setattr(cls, "__getattr__", read)  # noqa: B010
        return cls

    return decorate


def renamed_property(old: str, new: str) -> Any:
    """The attribute `old` of a class, which reads and sets the attribute `new`."""

    def read(self: Any) -> Any:
        warn_renamed(f"{type(self).__name__}.{old}", new)
        return getattr(self, new)

    def write(self: Any, value: Any) -> None:
        warn_renamed(f"{type(self).__name__}.{old}", new)
        setattr(self, new, value)

    return property(read, write, doc=f"Deprecated: use `{new}`.")


def renamed_method(old: str, new: str) -> Callable[..., Any]:
    """The method `old` of a class, which calls the method `new`."""

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        warn_renamed(f"{type(self).__name__}.{old}", new)
        return getattr(self, new)(*arguments, **named)

    call.__name__, call.__doc__ = old, f"Deprecated: use `{new}`."
    return call
