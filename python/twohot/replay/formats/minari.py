"""Reads and writes Minari datasets (Farama's format of offline reinforcement learning) through the package `minari`.

The package comes with `pip install 'twohot[minari]'`. Datasets lie where MINARI_DATASETS_PATH says.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twohot.errors import TwohotError
from twohot.extras import MissingExtraError, here
from twohot.files import require_file
from twohot.replay import Field
from twohot.replay.formats.archive import check_size
from twohot.replay.formats.trajectory import FormatError, Trajectory, checked, schema_of
from twohot.replay.spaces import leaves

if TYPE_CHECKING:
    from gymnasium import spaces
    from minari import MinariDataset  # pyright: ignore[reportMissingTypeStubs]  # the package has none

_MAPPING: type[Any] = Mapping
_NESTED: tuple[type[Any], ...] = (Mapping, tuple)
_EPISODES = 64  # written at a time
_TASK, _STEP = "twohot_task", "twohot_step_"  # keys in infos, which have a row for the reset before those of the steps


def _package() -> Any:
    try:
        return import_module("minari")
    except ImportError as error:
        install = here("pip install 'twohot[minari]'")
        raise MissingExtraError(f"Minari datasets need another package: {install} ({error})") from error


def read_minari(dataset: str | Path | MinariDataset, *, fields: Collection[str] | None = None) -> Iterator[Trajectory]:
    """Yields the episodes of a dataset as trajectories.

    Dictionaries and tuples of observations become names with slashes, a lone observation is called "observation";
    float64 rewards become float32. An episode that neither terminates nor is truncated counts as truncated. The task
    and step fields are those that `write_minari` noted in `infos`, else 0 and none.

    Args:
        dataset: the id of a local dataset such as "D4RL/door/human-v2", the path of its folder `data`, or a
            `MinariDataset`, which may be filtered. Nothing is downloaded.
        fields: names of the observations to keep, where some are no arrays of numbers; None for all.

    Raises:
        MissingExtraError: where the package is not installed.
        FileNotFoundError: where there is no such dataset.
        FormatError: naming dataset, episode and key, for what is no array of numbers, for actions that are not one
            array, for an episode that ends before its last step, and for a dataset that is corrupt, or that says of no
            space what it is: Minari would run what makes its environment.
    """
    dataset = open_minari(dataset)
    episodes = iter(dataset.iterate_episodes())
    while True:
        try:
            episode = next(episodes, None)
        except Exception as error:  # the package raises anything for files that it cannot read
            raise FormatError(f"{dataset.id}: corrupt ({error})") from error
        if episode is None:
            return
        source = f"{dataset.id}: episode {episode.id}"
        try:
            trajectory = _trajectory(source, episode, fields)
        except FormatError:
            raise
        except Exception as error:  # as above
            raise FormatError(f"{source}: corrupt ({error})") from error
        yield trajectory


def open_minari(dataset: str | Path | MinariDataset) -> MinariDataset:
    """A dataset, as `read_minari` takes and raises."""
    minari = _package()
    if not isinstance(dataset, str | Path):
        return dataset
    try:
        if isinstance(dataset, Path):
            path = dataset
        else:
            path = Path(minari.storage.datasets_root_dir.get_dataset_path(dataset)) / "data"
            if not path.exists():
                raise FileNotFoundError(f"Minari has no dataset {dataset} at {path}; nothing is downloaded here")
        about = json.loads(require_file(path / "metadata.json").read_text())
        if not all(isinstance(about.get(f"{kind}_space"), str) for kind in ("observation", "action")):
            raise FormatError(
                f"{path}: its metadata say of no observation_space or action_space; Minari would take them from its "
                "environment, whose code is not run here: write the dataset again with both"
            )
        for file in path.rglob("*.hdf5"):
            _check_hdf5(file)
        return minari.MinariDataset(path)
    except (TwohotError, OSError):
        raise
    except Exception as error:  # the package raises anything for files that it cannot read
        raise FormatError(f"{dataset}: corrupt ({error})") from error


def _check_hdf5(path: Path) -> None:
    """Raises FormatError for a file that claims more than it can hold, or that refers to other files."""
    h5py: Any = import_module("h5py")
    claimed = 0

    def look(name: str, item: Any) -> None:
        nonlocal claimed
        if isinstance(item, h5py.Dataset):
            claimed += math.prod(item.shape or ()) * item.dtype.itemsize
            if item.external or item.is_virtual:
                raise FormatError(f"{path}: {name}: expected data of this file, got a reference to another")
        else:
            for key in item:
                if isinstance(item.get(key, getlink=True), h5py.ExternalLink):
                    raise FormatError(f"{path}: {name}/{key}: expected data of this file, got a link to another")

    with h5py.File(require_file(path), "r") as file:
        look("", file)
        file.visititems(look)
    check_size(path, claimed)


def _trajectory(source: str, episode: Any, fields: Collection[str] | None) -> Trajectory:
    if isinstance(episode.actions, _NESTED):
        raise FormatError(f"{source}: actions: expected one array, got a {type(episode.actions).__name__}")
    found = list(leaves(episode.observations))
    observation = dict(found)
    if len(observation) < len(found):
        raise FormatError(f"{source}: a name comes twice among {', '.join(name for name, _ in found)}")
    infos: Mapping[str, Any] = episode.infos or {}
    return checked(
        source,
        observation=observation,
        action=episode.actions,
        reward=episode.rewards,
        terminated=episode.terminations,
        truncated=episode.truncations,
        task=np.reshape(infos[_TASK], -1)[0] if _TASK in infos else 0,
        step={name.removeprefix(_STEP): values[1:] for name, values in infos.items() if name.startswith(_STEP)},
        fields=fields,
    )


def write_minari(dataset_id: str, trajectories: Iterable[Trajectory], **details: Any) -> int:
    """Writes trajectories as a new local dataset and returns how many.

    Spaces are boxes over all that the dtypes hold, unless `details` has better ones. Stored as HDF5, which keeps
    images without loss; other formats of Minari may not.

    Args:
        dataset_id: such as "mine/cart/expert-v0".
        trajectories: at least one; all have the same fields.
        details: for `minari.create_dataset_from_buffers`: spaces, `env`, `author`, `algorithm_name`, ...

    Raises:
        MissingExtraError: where the package is not installed.
        ValueError: without a trajectory, for a dataset that exists, and for an id that Minari does not accept.
    """
    minari = _package()
    rest = iter(trajectories)
    first = next(rest, None)
    if first is None:
        raise ValueError("trajectories: expected at least one, got none")
    schema = schema_of(first)
    details = {
        "observation_space": _spaces(schema.observation),
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
    fields: Mapping[str, np.ndarray] = trajectory.get("step") or {}
    for name, values in fields.items():
        infos[_STEP + name] = np.concatenate((np.zeros_like(values[:1]), values))
    return minari.data_collector.EpisodeBuffer(
        observations=dict(trajectory["observation"]),
        actions=trajectory["action"],
        rewards=trajectory["reward"],
        terminations=trajectory["terminated"],
        truncations=trajectory["truncated"],
        infos=infos,
    )


def _spaces(fields: Mapping[str, Field]) -> spaces.Dict:
    from gymnasium import spaces

    return spaces.Dict({name: _space(field) for name, field in fields.items()})


def _space(field: Field) -> spaces.Box:
    from gymnasium import spaces

    kind = np.dtype(field.dtype)
    if kind.kind == "f":
        low, high = -np.inf, np.inf
    elif kind.kind == "b":
        low, high = 0, 1
    else:
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
    return spaces.Box(low, high, field.shape, kind.type)
