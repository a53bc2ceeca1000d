"""Reads and writes Minari datasets (Farama's format of offline reinforcement learning) through the package `minari`.

The package comes with `pip install 'twohot[minari]'`. Datasets lie where MINARI_DATASETS_PATH says.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from twohot.errors import TwohotError
from twohot.replay import Field
from twohot.replay.formats.trajectory import FormatError, Trajectory, checked, schema_of

if TYPE_CHECKING:
    from minari import MinariDataset

_EPISODES = 64  # written at a time
_TASK, _STEP = "twohot_task", "twohot_step_"  # keys in infos, which have a row for the reset before those of the steps


def _package() -> Any:
    try:
        import minari
    except ImportError as error:
        raise TwohotError(f"Minari datasets need another package: pip install 'twohot[minari]' ({error})") from error
    return minari


def read_minari(dataset: str | Path | MinariDataset, *, fields: Collection[str] | None = None) -> Iterator[Trajectory]:
    """Yields the episodes of a dataset as trajectories.

    Dictionaries and tuples of observations become names with slashes, a lone observation is called "observation";
    float64 rewards become float32. An episode that neither terminates nor is truncated counts as truncated. The task
    and other step fields are those that `write_minari` noted in `infos`, else 0 and none.

    Args:
        dataset: the id of a local dataset such as "D4RL/door/human-v2", the path of its folder `data`, or a
            `MinariDataset`, which may be filtered. Nothing is downloaded.
        fields: names of the observations to keep, where some are no arrays of numbers; None for all.

    Raises:
        TwohotError: where the package is not installed.
        FileNotFoundError: where there is no such dataset.
        FormatError: naming dataset, episode and key, for what is no array of numbers, for actions that are not one
            array, and for an episode that ends before its last step.
    """
    minari = _package()
    if isinstance(dataset, Path):
        dataset = minari.MinariDataset(dataset)
    elif isinstance(dataset, str):
        dataset = minari.load_dataset(dataset)
    for episode in dataset.iterate_episodes():
        source = f"{dataset.id}: episode {episode.id}"
        if isinstance(episode.actions, dict | tuple):
            raise FormatError(f"{source}: actions: expected one array, got a {type(episode.actions).__name__}")
        infos = episode.infos or {}
        yield checked(
            source,
            observation=dict(_leaves(episode.observations)),
            action=episode.actions,
            reward=episode.rewards,
            terminated=episode.terminations,
            truncated=episode.truncations,
            task=int(np.reshape(infos[_TASK], -1)[0]) if _TASK in infos else 0,
            step={name.removeprefix(_STEP): values[1:] for name, values in infos.items() if name.startswith(_STEP)},
            fields=fields,
        )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays of nested dictionaries and tuples with their names."""
    if not isinstance(value, Mapping | tuple):
        yield name or "observation", value
        return
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, item in items:
        yield from _leaves(item, f"{name}/{key}" if name else str(key))


def write_minari(dataset_id: str, trajectories: Iterable[Trajectory], **details: Any) -> int:
    """Writes trajectories as a new local dataset and returns how many.

    Spaces are boxes over all that the dtypes hold, unless `details` has better ones. Stored as HDF5, which keeps
    images without loss; other formats of Minari may not.

    Args:
        dataset_id: such as "mine/cart/expert-v0".
        trajectories: at least one; all have the same fields.
        details: for `minari.create_dataset_from_buffers`: spaces, `env`, `author`, `algorithm_name`, ...

    Raises:
        TwohotError: where the package is not installed.
        ValueError: without a trajectory, for a dataset that exists, and for an id that Minari does not accept.
    """
    minari = _package()
    rest = iter(trajectories)
    first = next(rest, None)
    if first is None:
        raise ValueError("trajectories: expected at least one, got none")
    schema = schema_of(first)
    details = {
        "observation_space": spaces.Dict({name: _space(field) for name, field in schema.observation.items()}),
        "action_space": _space(schema.action),
        "data_format": "hdf5",
        **details,
    }
    episodes = (_episode(minari, trajectory) for trajectory in chain((first,), rest))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="minari")  # about details that are not given
        dataset = minari.create_dataset_from_buffers(dataset_id, list(islice(episodes, _EPISODES)), **details)
    while part := list(islice(episodes, _EPISODES)):
        dataset.update_dataset_from_buffer(part)
    return int(dataset.total_episodes)


def _episode(minari: Any, trajectory: Trajectory) -> Any:
    infos = {_TASK: np.full(len(trajectory["reward"]) + 1, trajectory.get("task", 0), np.int32)}
    for name, values in (trajectory.get("step") or {}).items():
        infos[_STEP + name] = np.concatenate((np.zeros_like(values[:1]), values))
    return minari.data_collector.EpisodeBuffer(
        observations=dict(trajectory["observation"]),
        actions=trajectory["action"],
        rewards=trajectory["reward"],
        terminations=trajectory["terminated"],
        truncations=trajectory["truncated"],
        infos=infos,
    )


def _space(field: Field) -> spaces.Box:
    kind = np.dtype(field.dtype)
    if kind.kind == "f":
        low, high = -np.inf, np.inf
    elif kind.kind == "b":
        low, high = 0, 1
    else:
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
    return spaces.Box(low, high, field.shape, kind.type)
