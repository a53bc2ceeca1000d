"""The one registry of environments: what suites there are, what they need, and how a task is made.

Listing suites and tasks imports nothing of a suite; the suite's own packages load when a task is made.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import gymnasium as gym

from twohot.errors import TwohotError


class UnknownEnvironmentError(TwohotError, ValueError):
    """A suite or task name that the registry does not hold."""


class MissingExtraError(TwohotError, ImportError):
    """A suite whose packages are not installed."""


class UnsupportedSpaceError(TwohotError, ValueError):
    """An observation or action space that no wrapper here can turn into a flat Box or a Discrete."""


class NonFiniteError(TwohotError, ValueError):
    """A NaN or an infinity in an observation or a reward of an environment."""


@dataclass(frozen=True)
class Suite:
    """A named family of tasks that are made the same way.

    Args:
        name: what a person types, such as "popgym".
        summary: one sentence for `twohot envs`.
        requires: importable module names that the suite needs.
        install: the command that installs them, such as "pip install 'twohot[popgym]'".
        tasks: names of all tasks, known without importing anything.
        make: task name -> environment with a flat float32 Box observation and a Discrete action. It imports
            what it needs when it is called. Call it through `make_task`, which checks the names first.
    """

    name: str
    summary: str
    requires: tuple[str, ...]
    install: str
    tasks: tuple[str, ...]
    make: Callable[[str], gym.Env]

    def missing(self) -> tuple[str, ...]:
        """Names in `requires` that cannot be imported here. Looks them up; imports none of them."""
        return tuple(module for module in self.requires if find_spec(module) is None)


_SUITES: dict[str, Suite] = {}


def register(suite: Suite) -> None:
    """Adds a suite, one of the package's or a user's own, so that `TrialEnv` and the command line find it.

    Raises:
        ValueError: another suite has that name already.
    """
    if suite.name in _SUITES:
        raise ValueError(
            f"a suite named {suite.name!r} is registered already ({_SUITES[suite.name].summary}): choose another name"
        )
    _SUITES[suite.name] = suite


def suites() -> dict[str, Suite]:
    """All registered suites by name, in order of registration. The dict is a copy."""
    return dict(_SUITES)


def get_suite(name: str) -> Suite:
    """The suite of that name, whether or not its packages are installed.

    Raises:
        UnknownEnvironmentError: no suite has that name; the message lists close names.
    """
    if name not in _SUITES:
        raise UnknownEnvironmentError(_unknown("suite", name, tuple(_SUITES), "twohot envs"))
    return _SUITES[name]


def check_tasks(suite: str, tasks: Sequence[str]) -> tuple[str, ...]:
    """The task names as a tuple, once it is certain that the suite can make them.

    Raises:
        UnknownEnvironmentError: the suite or one of the tasks does not exist.
        MissingExtraError: the suite's packages are not installed.
        ValueError: there is no task, or one stands twice.
    """
    found = get_suite(suite)
    tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    if not tasks:
        raise ValueError(f"expected at least one task of {suite!r}, got none: `twohot envs {suite}` lists them")
    for task in tasks:
        if task not in found.tasks:
            raise UnknownEnvironmentError(_unknown(f"{suite} task", task, found.tasks, f"twohot envs {suite}"))
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"expected every task once (tasks are drawn uniformly), got {tasks}")
    missing = found.missing()
    if missing:
        raise MissingExtraError(f"{suite!r} needs {', '.join(missing)}, which is not installed: {found.install}")
    return tasks


def make_task(suite: str, task: str) -> gym.Env:
    """One task as an environment with a flat float32 Box observation and a Discrete action.

    Raises:
        UnknownEnvironmentError, MissingExtraError: see `check_tasks`.
        UnsupportedSpaceError: the task's spaces are not supported.
    """
    check_tasks(suite, (task,))
    return get_suite(suite).make(task)


def _unknown(kind: str, name: str, known: tuple[str, ...], command: str) -> str:
    lowered = {candidate.lower(): candidate for candidate in known}
    close = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"there is no {kind} named {name!r}: {hint}`{command}` lists all"
