"""Where comparisons come from: the file of a study with its rows, or the directories of runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from twohot.config import TrainConfig
from twohot.config.files import load_config, to_json
from twohot.envs import UnknownEnvironmentError, get_suite, names_suite, split_name
from twohot.errors import UsageError
from twohot.info import read_start
from twohot.studies.comparison import Comparison
from twohot.studies.comparison_tables import differing, option_text
from twohot.studies.rows import read_rows, rows_of_run
from twohot.studies.runner import finished_runs
from twohot.studies.study import RunKey, load_study

LONGEST_NAME = 60
"""Letters of a name that is made from options; where it would be longer, a setting is called as its directory is."""


def comparison_of_study(path: Path) -> Comparison:
    """The settings of a study, with the rows that it has so far.

    Raises:
        UsageError, ConfigurationError: there is no study at `path`, or its rows were made while it said something else.
        CorruptRunError: its rows are none.
    """
    study = load_study(path)
    finished_runs(study)
    configs = {name: setting.config for name, setting in study.settings.items()}
    return Comparison(
        title=study.name,
        summary=study.summary,
        rows=read_rows(study.rows_path),
        settings={name: _options(config) for name, config in configs.items()},
        best=study.best,
        references=_references(configs.values()),
        seeds=study.seeds,
        facts={"preset": study.preset, "seeds": ", ".join(map(str, study.seeds))},
    )


def comparison_of_runs(directories: Sequence[Path]) -> Comparison:
    """Runs, put together into settings: those whose configurations differ in nothing but the seed are one.

    Where two of one setting have the same seed, the code that they ran tells them apart.

    Args:
        directories: of runs, finished or not.

    Raises:
        UsageError: two are the same run, or cannot be told apart. ConfigurationError, CorruptRunError, NoRunError: a
        directory holds no run, or a damaged one.
    """
    configs = [load_config(directory / "config.json") for directory in directories]
    starts = [read_start(directory) for directory in directories]
    options = [_options(config) for config in configs]
    keys = [(repr(chosen), config.seed) for chosen, config in zip(options, configs, strict=True)]
    if len(set(keys)) < len(keys):
        for chosen, start in zip(options, starts, strict=True):
            chosen["commit"] = _commit(start)
    groups: dict[str, dict[int, int]] = {}  # of places in `directories`, by seed
    for place, config in enumerate(configs):
        other = groups.setdefault(repr(options[place]), {}).setdefault(config.seed, place)
        if other != place:
            one, two = directories[other], directories[place]
            same = "are one" if one.resolve() == two.resolve() else "have the same configuration, seed and code"
            raise UsageError(f"{one} and {two} {same}: give one of them")
    settings = [list(group.values()) for group in groups.values()]
    names = _names(
        [options[first] for first, *_ in settings], [[directories[p] for p in places] for places in settings]
    )
    rows = []
    for name, places in zip(names, settings, strict=True):
        for place in places:
            found = rows_of_run(directories[place], configs[place], RunKey(name, configs[place].seed), "")
            about = {"commit": _commit(starts[place]), "processor": starts[place].get("processor", "")}
            rows += [replace(row, **about) for row in found]
    return Comparison(
        title=" and ".join(names) if len(names) < 3 else f"{len(names)} settings",
        summary="; ".join(
            f"{name}: {', '.join(str(directories[place]) for place in places)}"
            for name, places in zip(names, settings, strict=True)
        ),
        rows=rows,
        settings={name: options[first] for name, (first, *_) in zip(names, settings, strict=True)},
        references=_references(configs),
    )


def _options(config: TrainConfig) -> dict[str, object]:
    """All settings of a configuration by dotted name, without the seed."""
    return {name: value for name, value in _flat(to_json(config)) if name != "seed"}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _commit(start: Mapping[str, str]) -> str:
    return start.get("commit", start.get("version", "unknown"))


def _references(configs: Iterable[TrainConfig]) -> dict[str, tuple[float, float]]:
    """The reference returns of all attempts that count, of the tasks whose suite has some."""
    found: dict[str, tuple[float, float]] = {}
    for config in configs:
        environment = config.environment
        counted = environment.attempts - environment.unscored_attempts
        named = [("", environment.suite)]
        for name in (*environment.tasks, *config.evaluate.held_out_tasks):
            if names_suite(name, environment.suite):
                suite, _ = split_name(name, environment.suite)
                named.append((f"{suite}:", suite))
        for prefix, suite in dict.fromkeys(named):
            with suppress(UnknownEnvironmentError):  # of a user's own, which is not registered here
                scores = get_suite(suite).reference_scores.items()
                found |= {f"{prefix}{task}": (low * counted, high * counted) for task, (low, high) in scores}
    return found


def _names(options: Sequence[Mapping[str, object]], directories: Sequence[Sequence[Path]]) -> list[str]:
    """A name for each setting, of the options in which they differ; where that is long, of its first directory."""
    different = differing(options)
    short = [option.rpartition(".")[2] for option in different]
    labels = [name if short.count(name) == 1 else option for name, option in zip(short, different, strict=True)]
    names = [
        ", ".join(f"{label} {option_text(chosen.get(option))}" for label, option in zip(labels, different, strict=True))
        for chosen in options
    ]
    if different and max(map(len, names)) <= LONGEST_NAME and len(set(names)) == len(names):
        return names
    first = [mine[0].resolve() for mine in directories]
    alone = len({path.name for path in first}) == len(first)
    more = [f" and {len(mine) - 1} more" if len(mine) > 1 else "" for mine in directories]
    return [(path.name if alone else str(path)) + rest for path, rest in zip(first, more, strict=True)]
