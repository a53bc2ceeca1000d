"""Configurations in files: JSON that is read back whole, or refused with the path of what is wrong."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal

from twohot.config.checks import LIMIT, ConfigurationError
from twohot.config.options import setting_names
from twohot.config.renamed import current_name
from twohot.config.run import TrainConfig
from twohot.files import atomic_write, parse_json
from twohot.losses import BinsError
from twohot.text import did_you_mean_setting

ADDED = frozenset(
    {
        "actors",
        "learners",
        "ray.block_seconds",
        "ray",
        "checkpoint_minutes",
        "agent.grids",
        "agent.normalization",
        "agent.input_projection",
        "agent.critic_actions",
        "agent.soften_stored_actions",
        "agent.critic_action_clip",
        "agent.logit_scale",
        "agent.popart_deviation",
        "agent.density_clip",
        "agent.gumbel_temperature",
        "agent.latent_size",
        "agent.latent_steps",
        "objective.filter_maximum",
        "objective.filter_adds_binary",
        "objective.multi_binary_log_prob",
        "objective.policy_gradient_order",
        "objective.target_update",
        "objective.prediction_weight",
        "objective.kl_weight",
        "optimizer.group_by_length",
        "collect.epsilon_where",
        "collect.epsilon_duration",
        "environment.skip_missing",
        "replay.balance",
        "optimizer.warmup_from_zero",
    }
)
"""Settings that configurations of former versions lack; their defaults do what those versions did."""


def to_json(config: Any) -> dict[str, Any]:
    """A dataclass tree as plain JSON values."""
    return dataclasses.asdict(config)


def from_json(cls: type, data: Any, where: str = "") -> Any:
    """The dataclass `cls` from what `to_json` made of it, in this version or a former one (see `ADDED` and `RENAMED`).

    Raises:
        ConfigurationError: on an unknown or missing key, or a value of the wrong type, naming its path.
    """
    if not isinstance(data, dict):
        raise ConfigurationError(f"{where or 'configuration'}: expected a JSON object, got {data!r}")
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    prefix = f"{where}." if where else ""
    data = {current_name(prefix + name).removeprefix(prefix): value for name, value in data.items()}
    unknown = sorted(set(data) - set(names))
    if unknown:
        name = prefix + unknown[0]
        known = dict.fromkeys((*setting_names(TrainConfig), *(prefix + each for each in names)))  # and sections here
        meant = did_you_mean_setting(name, known).strip() or f"known are {', '.join(names)}"
        raise ConfigurationError(f"{name}: unknown setting; {meant}")
    missing = [name for name in names if name not in data and prefix + name not in ADDED]
    if missing:
        raise ConfigurationError(f"{prefix}{missing[0]}: setting is missing")
    values = {name: _value(hints[name], data[name], prefix + name) for name in names if name in data}
    try:
        return cls(**values)
    except BinsError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_json(hint, value, where)
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigurationError(f"{where}: expected a list, got {value!r}")
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in value)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _value(next(kind for kind in typing.get_args(hint) if kind is not type(None)), value, where)
    if origin is Literal:
        fits = value in typing.get_args(hint)
    elif hint is float:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        fits = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    if not fits:
        raise ConfigurationError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {value!r}")
    if isinstance(value, int) and abs(value) >= LIMIT:
        raise ConfigurationError(f"{where}: expected a number below 2^63, got one of {value.bit_length()} bits")
    return float(value) if hint is float else value


def save_json(data: dict[str, Any], path: Path) -> None:
    """Write indented JSON that is there whole or not at all, whatever happens meanwhile."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def save_config(config: TrainConfig, path: Path) -> None:
    """Write the resolved configuration."""
    save_json(to_json(config), path)


def load_config(path: Path) -> TrainConfig:
    """Read what `save_config` wrote.

    Raises:
        ConfigurationError: when the file is missing, is not JSON, or does not fit `TrainConfig`.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path.parent}: no run here (expected the file {path.name})")
    try:
        data = parse_json(path.read_bytes(), finite=False)
    except ValueError as error:
        raise ConfigurationError(f"{path}: not JSON ({error})") from None
    return from_json(TrainConfig, data)
