"""A study: a TOML file that names a preset, the settings that are compared, and the seeds of their runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import from_json, to_json
from twohot.config.options import flat, merged, read_toml
from twohot.errors import UsageError
from twohot.presets import PRESETS
from twohot.text import names_device

KEYS = ("summary", "preset", "seeds", "options", "settings", "best")
RANDOM = "random"
"""What rows of the uniformly random policy have as their setting."""


class RunKey(NamedTuple):
    """One run of a study."""

    setting: str
    seed: int

    def __str__(self) -> str:
        return f"{self.setting}-{self.seed}"


@dataclass(frozen=True)
class Setting:
    """One of the configurations that a study compares.

    Attributes:
        config: all of it; the seed is that of the preset.
        differences: what it changes of the preset and the study's common options, by dotted name.
        digest: eight hexadecimal digits that change with anything which the study's file says about it.
    """

    config: TrainConfig
    differences: Mapping[str, Any]
    digest: str


@dataclass(frozen=True)
class Study:
    """What a study's file says.

    Attributes:
        path: of the file. summary: one sentence. preset: what every setting begins with.
        seeds: of the runs of each setting. settings: by name, in the file's order.
        options: what every setting changes of the preset, by dotted name.
        best: the best known return of tasks; it scores 1, and the uniformly random policy, which is measured, 0.
    """

    path: Path
    summary: str
    preset: str
    seeds: tuple[int, ...]
    settings: Mapping[str, Setting]
    options: Mapping[str, Any]
    best: Mapping[str, float]

    @property
    def name(self) -> str:
        """The file's, without its suffix."""
        return self.path.stem

    @property
    def rows_path(self) -> Path:
        """The file of the raw results."""
        return self.path.with_suffix(".csv")

    @property
    def runs(self) -> list[RunKey]:
        """Every run, seed by seed, so that an unfinished study has seen all settings equally often."""
        return [RunKey(setting, seed) for seed in self.seeds for setting in self.settings]

    def config(self, run: RunKey) -> TrainConfig:
        """The configuration of one run."""
        return replace(self.settings[run.setting].config, seed=run.seed)


def load_study(path: Path) -> Study:
    """Read a study's file.

    Raises:
        UsageError: there is no such file. ConfigurationError: it is no study, naming what is wrong in it.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; a study is a TOML file (docs/studies.md)")
    data = read_toml(path)
    try:
        return _study(path, data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _study(path: Path, data: dict[str, Any]) -> Study:
    for key in data:
        if key not in KEYS:
            raise ConfigurationError(f"{key}: unknown; a study has {', '.join(KEYS)}")
    preset, summary = _expect(data, "preset", str), _expect(data, "summary", str)
    if preset not in PRESETS:
        raise ConfigurationError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    seeds = _expect(data, "seeds", list)
    if not seeds or any(type(seed) is not int or seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ConfigurationError(f"seeds: expected different whole numbers of at least 0, got {seeds}")
    options = _expect(data, "options", dict, {})
    settings = {}
    for name, changes in _expect(data, "settings", dict).items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name) or name == RANDOM or not isinstance(changes, dict):
            raise ConfigurationError(
                f"settings.{name}: expected a table with a name of letters, digits and . _ + -, and not {RANDOM!r}"
            )
        if names_device(name) or name.casefold() in map(str.casefold, settings):
            raise ConfigurationError(
                f"settings.{name}: its runs are folders of that name, which not every system can tell from a device or "
                "from another setting's: give another name"
            )
        settings[name] = _setting(name, preset, options, changes)
    if not settings:
        raise ConfigurationError("settings: expected at least one")
    best = _expect(data, "best", dict, {})
    for task, value in best.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ConfigurationError(f"best.{task}: expected a return, got {value!r}")
    return Study(path, summary, preset, tuple(seeds), settings, flat(options), best)


def _setting(name: str, preset: str, options: dict[str, Any], changes: dict[str, Any]) -> Setting:
    said = json.dumps([preset, options, changes], sort_keys=True, default=str)
    try:
        config = from_json(TrainConfig, merged(merged(to_json(PRESETS[preset].config), options), changes))
    except ConfigurationError as error:
        raise ConfigurationError(f"settings.{name}: {error}") from error
    return Setting(config, flat(changes), hashlib.sha256(said.encode()).hexdigest()[:8])


def _expect(data: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
    value = data.get(key, default)
    if not isinstance(value, kind):
        names = {str: "a text", list: "a list", dict: "a table"}
        raise ConfigurationError(f"{key}: " + (f"expected {names[kind]}, got {value!r}" if key in data else "missing"))
    return value
