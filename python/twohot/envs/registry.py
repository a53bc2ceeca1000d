"""The one registry of environments: what suites there are, what they need, and how a task is made.

Listing suites and tasks imports nothing of a suite; the suite's own packages load when a task is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from twohot._moved import renamed_fields
from twohot.envs.checked import asked, checked
from twohot.envs.errors import UnsupportedSpaceError
from twohot.envs.observations import SeenObservation
from twohot.errors import BrokenEnvironmentError, TwohotError
from twohot.extras import MissingExtraError, here
from twohot.text import did_you_mean

if TYPE_CHECKING:
    from twohot.envs.vector.batched import EnvBatch


class UnknownEnvironmentError(TwohotError, ValueError):
    """A suite or task name that the registry does not hold."""


class NonFiniteError(BrokenEnvironmentError):
    """A NaN or an infinity in an observation or a reward of an environment, or a reward that float32 cannot hold."""


MAX_SHOWN = 400
"""Letters of an observation in an error."""


def non_finite(suite: str, task: str, observation: Any, reward: float, step: int) -> NonFiniteError:
    """The error of a NaN or an infinity that a task has given at a step of a trial, or of a reward beyond float32."""
    text = " ".join(str(observation).split())
    text = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
    return NonFiniteError(
        f"expected finite observations and rewards within float32 from {task_name(suite, task)}, got observation "
        f"{text} and reward {reward} at step {step} of the trial: fix the environment or leave the task out"
    )


@renamed_fields(tells_success="reports_success")
@dataclass(frozen=True)
class Suite:
    """A named family of tasks that are made the same way.

    Args:
        name: what a person types, such as "popgym".
        summary: one sentence for `twohot envs`.
        requires: importable module names that the suite needs.
        install: the command that installs them, such as "pip install 'twohot[popgym]'"; it is shown as it has to be
            typed here, where the package may not come from an index.
        tasks: names of all tasks, known without importing anything.
        make: make(task, split, render=False) -> environment with the spaces that `make_task` describes. It imports
            what it needs when it is called. Call it through `make_task`, which checks the names first.
        make_batch: make_batch(task, split, num_envs) -> an `EnvBatch` that plays the same in one call for all
            environments; None where the suite has no such form.
        make_mixed_batch: make_mixed_batch(tasks, split, num_envs) -> an `EnvBatch` whose environments play any of
            several tasks of the same spaces; None where the suite has no such form.
        splits: the sets of levels, seeds or goals that its tasks have, of "train" and "test".
        one_vector: whether an observation that is a Dict or Tuple of nothing but numbers and finite choices becomes one
            vector; else its parts keep their names.
        uniform: whether all tasks have the same spaces, so that one need only be made to know them.
        open_ended: whether `make` knows more tasks than `tasks` lists and says itself which it does not know.
        reports_success: whether all tasks say in `info["success"]` that an attempt has succeeded, so that success
            rates are shown from the beginning; else they are shown for tasks that turn out to say it.
        one_per_process: whether a process can hold only one environment.
        relabel: relabel(environment configuration, seed) -> a function for `Replay.loader(relabel=...)`; None where the
            suite knows no hindsight.
        reference_scores: task name -> (return of random play, return of a human or an expert) in one attempt, for
            normalised scores.
    """

    name: str
    summary: str
    requires: tuple[str, ...]
    install: str
    tasks: tuple[str, ...]
    make: Callable[..., gym.Env]
    make_batch: Callable[[str, str, int], EnvBatch] | None = None
    make_mixed_batch: Callable[[Sequence[str], str, int], EnvBatch] | None = None
    splits: tuple[str, ...] = ("train",)
    one_vector: bool = False
    uniform: bool = False
    open_ended: bool = False
    reports_success: bool = False
    one_per_process: bool = False
    relabel: Callable[..., Any] | None = None
    reference_scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)

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


def registered_suites() -> dict[str, Suite]:
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
        if task not in found.tasks and not found.open_ended:
            raise UnknownEnvironmentError(_unknown(f"{suite} task", task, found.tasks, f"twohot envs {suite}"))
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"expected every task once (tasks are drawn uniformly), got {tasks}")
    missing = found.missing()
    if missing:
        raise MissingExtraError(f"{suite!r} needs {', '.join(missing)}, which is not installed{installed_by(found)}")
    return tasks


def installed_by(suite: Suite) -> str:
    """The end of a sentence that says that a suite is not installed: what installs it, where it says that."""
    return f": {here(suite.install)}" if suite.install else ""


def split_name(name: str, suite: str) -> tuple[str, str]:
    """The suite and the task that a name in a run of `suite` means: "suite:task", or else a task of `suite`.

    Raises:
        UnknownEnvironmentError: what stands before the colon is no suite, nor can it belong to a task of `suite`.
    """
    first, colon, task = name.partition(":")
    if names_suite(name, suite):
        return first, task
    if colon and suite in _SUITES and not _SUITES[suite].open_ended and name not in _SUITES[suite].tasks:
        get_suite(first)  # says which is meant
    return suite, name


def names_suite(name: str, suite: str) -> bool:
    """Whether the name of a task in a run of `suite` is "suite:task".

    It is none where `suite` has a task of that whole name; nor where it takes such names itself, as gymnasium's
    "module:Id", and the suite named like the module has no such task.
    """
    first, colon, task = name.partition(":")
    if not colon or first not in _SUITES:
        return False
    if suite not in _SUITES or first == suite:
        return suite not in _SUITES or name not in _SUITES[suite].tasks
    own, other = _SUITES[suite], _SUITES[first]
    return name not in own.tasks and (not own.open_ended or other.open_ended or task in other.tasks)


def plain_name(name: str, suite: str, of_run: str) -> str:
    """The name of a task of `suite` without the suite that it may name, in a run of the suite `of_run`.

    As `split_name` where the suites are registered here, which they need not be.
    """
    whole = of_run == suite and suite in _SUITES and name in _SUITES[suite].tasks
    return name if whole else name.removeprefix(f"{suite}:")


def check_split(suite: str, split: str) -> None:
    """Raises UnknownEnvironmentError unless the suite has that split."""
    splits = get_suite(suite).splits
    if split not in splits:
        raise UnknownEnvironmentError(f"expected a split of {suite!r}, {' or '.join(splits)}, got {split!r}")


def make_task(suite: str, task: str, split: str = "train", render: bool = False) -> gym.Env:
    """One task as an environment, without any padding, whose observations are checked: see `ObservationReader`.

    Its observation is a Box or a Dict of Boxes: float32 vectors, uint8 images [H, W, C], integers where the name
    begins with "grid" or "tokens" (0 is padding), and perhaps "action_mask", int8, 1 where a choice is legal. Its
    action is Discrete, MultiDiscrete, MultiBinary or a bounded Box. Attempts of an environment whose attribute
    `hidden_task` is true share what `reset(options={"attempt": 0})` draws and `reset(options={"attempt": i})` keeps.

    Args:
        suite, task: names in the registry.
        split: which levels, seeds or goals, "train" or "test".
        render: whether its `render()` returns uint8 images [H, W, 3].

    Raises:
        UnknownEnvironmentError, MissingExtraError: see `check_tasks` and `check_split`.
        UnsupportedSpaceError: the task's spaces are not supported.
        BrokenEnvironmentError: the environment raised when it was made; and see `Checked`.
    """
    check_tasks(suite, (task,))
    check_split(suite, split)
    found, name = get_suite(suite), task_name(suite, task)
    env = checked(asked(name, "__init__", found.make, task, split, render=render), name)
    for kind in ("observation_space", "action_space"):
        if not isinstance(getattr(env, kind, None), gym.Space):
            raise UnsupportedSpaceError(f"{name}: expected its {kind} to be a space of gymnasium, got none")
    return SeenObservation(env, name, one_vector=found.one_vector)


def task_name(suite: str, task: str) -> str:
    """How an error calls a task."""
    return f"{suite} task {task!r}"


def _unknown(kind: str, name: str, known: tuple[str, ...], command: str) -> str:
    return f"there is no {kind} named {name!r}: {did_you_mean(name, known)}`{command}` lists all"
