"""Domains: the tasks of one suite that share spaces; a run has one or, where it names tasks with their suites, several.

Each domain has environments, a replay and a member of the agent of its own, and a configuration: that of the run, with
its tasks and its share of what all domains share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from twohot.config import ConfigurationError, TrainConfig
from twohot.data.spaces import agent_layout
from twohot.envs import (
    Layout,
    MissingExtraError,
    UnknownEnvironmentError,
    UnsupportedSpaceError,
    check_tasks,
    get_suite,
    installed_by,
    layout_of,
    names_suite,
    plain_name,
    split_name,
    task_spaces,
)
from twohot.text import file_stems

__all__ = [
    "Domain",
    "apportion",
    "as_begun",
    "domain_config",
    "domains_of",
    "is_mixed",
    "splits_left_out",
    "without_missing",
]


@dataclass(frozen=True)
class Domain:
    """Tasks of one suite that share spaces.

    Attributes:
        name: the suite's; of its second domain with "-2", and so on. "" where the run has no other.
        tasks: their names in the run, by those in `config`: those trained on, and those held out.
        config: of a run with this domain alone. layout: the spaces.
    """

    name: str
    tasks: Mapping[str, str]
    config: TrainConfig
    layout: Layout


def is_mixed(config: TrainConfig) -> bool:
    """Whether a run names tasks with their suites, and so has an agent with a member for each domain."""
    names = *config.environment.tasks, *config.evaluate.held_out_tasks
    return any(names_suite(name, config.environment.suite) for name in names)


def domains_of(config: TrainConfig) -> list[Domain]:
    """The domains of a run, in the order in which its tasks name them. Makes each task once, to see its spaces.

    A task joins the first domain of its suite whose spaces it can share, as tasks of one suite do everywhere: flat
    observations of all sizes, images of one shape, actions of one kind.

    Raises:
        ConfigurationError: what cannot be done with several domains, or has no room for all.
        MissingExtraError: suites are not installed. ValueError, UnknownEnvironmentError, UnsupportedSpaceError: as
            `common_layout`.
    """
    if not is_mixed(config):
        tasks = (*config.environment.tasks, *config.evaluate.held_out_tasks)
        layout = agent_layout(config.environment, config.evaluate)
        return [Domain("", dict(zip(tasks, tasks, strict=True)), config, layout)]
    check_mixed(config)
    if missing := missing_tasks(config):
        raise MissingExtraError(f"environment.tasks: {_listed(missing)}")
    groups = _groups(config)
    for name in config.evaluate.held_out_tasks:
        group = next(each for each in groups if name in each)
        if not set(group) & set(config.environment.tasks):
            raise ConfigurationError(
                f"evaluate.held_out_tasks: expected tasks that can share the spaces of a task of their suite that is "
                f"trained on, got {name}"
            )
    suites = [split_name(next(iter(group)), config.environment.suite)[0] for group in groups]
    _check_splits(config, suites)
    names = _names(suites)
    configs = [domain_config(config, group, suite) for group, suite in zip(groups, suites, strict=True)]
    number_of, trained = len(groups), [len(each.environment.tasks) for each in configs]
    for setting, number in (
        ("collect.environments", config.collect.environments),
        ("batch_size", config.batch_size),
        ("replay.capacity_steps", config.replay.capacity_steps),
    ):
        if number < number_of:
            raise ConfigurationError(
                f"{setting}: expected at least one for each of the {number_of} domains {', '.join(names)}, got {number}"
            )
    environments = apportion(config.collect.environments, trained)
    capacities = apportion(config.replay.capacity_steps, trained)
    domains = []
    for name, group, own, mine, capacity in zip(names, groups, configs, environments, capacities, strict=True):
        # The domains step side by side: where all have taken `epsilon_steps`, this one has taken its share of them.
        steps = config.collect.epsilon_steps * mine // config.collect.environments
        try:
            shared = replace(
                own,
                collect=replace(own.collect, environments=mine, epsilon_steps=steps),
                replay=replace(own.replay, capacity_steps=capacity),
            )
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{error}, with the share of the domain {name}: {mine} environments, {capacity} steps of replay"
            ) from error
        plain = (*own.environment.tasks, *own.evaluate.held_out_tasks)
        tasks = dict(zip(plain, _in_order(config, group), strict=True))
        domains.append(Domain(name, tasks, shared, layout_of(list(group.values()))))
    return domains


def _check_splits(config: TrainConfig, suites: Sequence[str]) -> None:
    known = {split for suite in suites for split in get_suite(suite).splits}
    for split in config.evaluate.splits:
        if split not in known:
            raise ConfigurationError(
                f"evaluate.splits: expected splits that one of the suites {', '.join(dict.fromkeys(suites))} has, "
                f"{' or '.join(sorted(known))}, got {split}"
            )


def splits_left_out(config: TrainConfig) -> list[str]:
    """Sentences of a run with several domains about the suites that have not all splits of `evaluate.splits`."""
    sentences = []
    suites = dict.fromkeys(split_name(name, config.environment.suite)[0] for name in config.environment.tasks)
    for suite in suites if is_mixed(config) else ():
        left_out = [split for split in config.evaluate.splits if split not in get_suite(suite).splits]
        played = _splits(config, suite)
        if left_out:
            sentences.append(
                f"{suite} has no split {', '.join(left_out)}: its tasks are played on {', '.join(played)}."
            )
    return sentences


def _splits(config: TrainConfig, suite: str) -> tuple[str, ...]:
    """Those of `evaluate.splits` that a suite has."""
    return tuple(split for split in config.evaluate.splits if split in get_suite(suite).splits) or ("train",)


def check_mixed(config: TrainConfig, learners: int = 1) -> None:
    """Raise ConfigurationError where a run with several domains asks for what needs one; `learners`: that are here."""
    environment = config.environment
    refused = {
        "actors": (config.actors == 0, "0: the environments of several domains are stepped by the learner's process"),
        "learners": (max(learners, config.learners) == 1, "1: several learners share one domain"),
        "optimizer.compile": (not config.optimizer.compile, "False: one domain can be compiled"),
        "data.sources": (not config.data.sources, "none: recorded data are of one domain"),
        "replay.relabel": (not config.replay.relabel, "False: hindsight is one suite's"),
        "environment.observation_size": (environment.observation_size == 0, "0: each domain has a size of its own"),
        "environment.actions": (environment.actions == 0, "0: each domain has actions of its own"),
    }
    for setting, (fits, expected) in refused.items():
        if not fits:
            raise ConfigurationError(f"{setting}: with tasks of several suites (suite:task) expected {expected}")


def missing_tasks(config: TrainConfig) -> dict[str, list[str]]:
    """The tasks of a run whose suites are not installed here, by the suite."""
    found: dict[str, list[str]] = {}
    for name in (*config.environment.tasks, *config.evaluate.held_out_tasks):
        suite, _ = split_name(name, config.environment.suite)
        if get_suite(suite).missing():
            found.setdefault(suite, []).append(name)
    return found


def without_missing(config: TrainConfig) -> tuple[TrainConfig, str]:
    """A run without the tasks whose suites are not installed, where `environment.skip_missing` asks for that.

    Returns:
        The configuration, and a sentence that says what was left out; "" where all is there.

    Raises:
        MissingExtraError: nothing is left to train on.
    """
    missing = missing_tasks(config) if config.environment.skip_missing else {}
    if not missing:
        return config, ""
    left_out = {name for names in missing.values() for name in names}
    kept = [name for name in config.environment.tasks if name not in left_out]
    if not kept:
        raise MissingExtraError(f"environment.tasks: no task is left: {_listed(missing)}")
    return _with_tasks(config, kept, left_out), f"Left out: {_listed(missing)}."


def require_installed(config: TrainConfig) -> None:
    """Raise MissingExtraError where a run that begins has tasks of suites that are not installed here."""
    if is_mixed(config) and (missing := missing_tasks(config)):
        raise MissingExtraError(f"environment.tasks: {_listed(missing)}; or leave them out: --environment.skip-missing")


def as_begun(config: TrainConfig, begun: TrainConfig) -> TrainConfig:
    """What is asked for, without the suites that were left out when the run was begun, installed now or not."""
    if not (config.environment.skip_missing and begun.environment.skip_missing):
        return config
    suite_of = {
        name: split_name(name, config.environment.suite)[0]
        for name in (*config.environment.tasks, *config.evaluate.held_out_tasks)
    }
    there = {*begun.environment.tasks, *begun.evaluate.held_out_tasks}
    suites = {suite for name, suite in suite_of.items() if name in there}
    kept = [name for name in config.environment.tasks if suite_of[name] in suites]
    left_out = {name for name, suite in suite_of.items() if suite not in suites}
    return _with_tasks(config, kept, left_out) if kept else config


def _with_tasks(config: TrainConfig, kept: Sequence[str], left_out: set[str]) -> TrainConfig:
    environment = config.environment
    held_out = tuple(name for name in config.evaluate.held_out_tasks if name not in left_out)
    return replace(
        config,
        environment=replace(environment, tasks=tuple(kept), reward_multipliers=_multipliers(config, kept)),
        evaluate=replace(config.evaluate, held_out_tasks=held_out),
    )


def _listed(missing: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(
        f"{', '.join(names)} needs {', '.join(get_suite(suite).missing())}, which is not installed"
        f"{installed_by(get_suite(suite))}"
        for suite, names in missing.items()
    )


def domain_config(config: TrainConfig, tasks: Sequence[str] | Mapping[str, object], suite: str) -> TrainConfig:
    """The configuration of a run with only these of its tasks, by their plain names.

    Args:
        tasks: names in the run. suite: theirs, which need not be registered here.
    """
    environment, evaluation = config.environment, config.evaluate
    trained = [name for name in environment.tasks if name in tasks]
    held_out = [name for name in evaluation.held_out_tasks if name in tasks]
    splits = evaluation.splits
    with suppress(UnknownEnvironmentError):
        splits = _splits(config, suite)
    return replace(
        config,
        environment=replace(
            environment,
            suite=suite,
            tasks=tuple(plain_name(name, suite, environment.suite) for name in trained),
            reward_multipliers=_multipliers(config, trained),
        ),
        evaluate=replace(
            evaluation,
            held_out_tasks=tuple(plain_name(name, suite, environment.suite) for name in held_out),
            splits=splits,
        ),
    )


def _multipliers(config: TrainConfig, names: Sequence[str]) -> tuple[float, ...]:
    environment = config.environment
    of_all = dict(zip(environment.tasks, environment.reward_multipliers, strict=False))
    return tuple(of_all[name] for name in names) if of_all else ()


def _in_order(config: TrainConfig, names: Mapping[str, object]) -> list[str]:
    """Those trained on, then those held out."""
    return [name for name in (*config.environment.tasks, *config.evaluate.held_out_tasks) if name in names]


def _groups(config: TrainConfig) -> list[dict[str, tuple]]:
    """Names of tasks with their spaces, of each domain."""
    by_suite: dict[str, dict[str, str]] = {}
    for name in (*config.environment.tasks, *config.evaluate.held_out_tasks):
        suite, task = split_name(name, config.environment.suite)
        mine = by_suite.setdefault(suite, {})
        if task in mine:
            raise ConfigurationError(f"environment.tasks: {mine[task]} and {name} are the same task")
        mine[task] = name
    groups: list[dict[str, tuple]] = []
    for suite, names in by_suite.items():
        check_tasks(suite, tuple(names))
        of_suite: list[dict[str, tuple]] = []
        own = None
        for task, name in names.items():
            own = own if own is not None and get_suite(suite).uniform else _spaces_of(suite, task, name)
            group = next((each for each in of_suite if _fits([*each.values(), own])), None)
            if group is None:
                layout_of([own])  # says what is wrong with it alone
                group = {}
                of_suite.append(group)
            group[name] = own
        groups += of_suite
    return groups


def _spaces_of(suite: str, task: str, name: str) -> tuple:
    try:
        return task_spaces(suite, (task,))[task]
    except UnsupportedSpaceError as error:
        raise UnsupportedSpaceError(f"{name}: {error}") from error


def _fits(own: Sequence[tuple]) -> bool:
    try:
        layout_of(own)
    except (ValueError, UnsupportedSpaceError):
        return False
    return True


def _names(suites: Sequence[str]) -> list[str]:
    """Of the domains of these suites, for files too; all different."""
    names: list[str] = []
    for index, suite in enumerate(suites):
        free = (f"{suite}-{number}" for number in count(2))
        new = (name for name in free if name not in suites and name not in names)
        names.append(next(new) if suite in suites[:index] else suite)
    return file_stems(names)


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """A whole number in parts in proportion to weights, each at least 1 (the method of largest remainders).

    Args:
        total: at least as many as there are weights. weights: positive.
    """
    exact = total * np.asarray(weights, np.float64) / np.sum(weights)
    parts = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - parts), kind="stable")
    parts[order[: total - int(parts.sum())]] += 1
    while not parts.all():
        parts[parts.argmax()] -= 1
        parts[parts.argmin()] += 1
    return parts.tolist()
