"""Reads the buffers that the official AMAGO code (UT-Austin-RPL/amago) writes with `save_trajs_as` "npz"."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from twohot.replay.formats.archive import Archive, opened
from twohot.replay.formats.trajectory import FormatError, Trajectory, checked

_OBSERVATION = "_OBS_KEY_"


def _files(path: Path) -> list[Path]:
    """The .npz files at a path or below it, in the order of the times in their names.

    Raises:
        FileNotFoundError: where there are none.
        FormatError: where there are pickles.
    """
    found = [path] if path.is_file() else sorted(path.rglob("*.npz")) + sorted(path.rglob("*.traj"))
    if not found:
        raise FileNotFoundError(f"{path}: expected a buffer of the official AMAGO code, found no .npz file")
    pickled = [file for file in found if file.suffix != ".npz"]
    if pickled:
        raise FormatError(
            f"{pickled[0]}: not an .npz file. A .traj file is a pickle, which executes what it holds and is never read "
            "here; write it again with the official code: load_traj_from_disk(path).save_to_disk(path, save_as='npz')"
        )
    return sorted(found, key=lambda file: (_parts(file)[1], file.name))


def _parts(file: Path) -> tuple[str, float]:
    """The name of the environment and the time in a file's name, ENVIRONMENT_RANDOM_TIME.npz; "" and 0 for others."""
    parts = file.stem.split("_")
    try:
        time = float(parts[2]) if len(parts) == 3 else math.nan
    except ValueError:
        time = math.nan
    return (parts[0], time) if math.isfinite(time) else ("", 0.0)


def amago_tasks(path: str | Path) -> dict[str, int]:
    """A number for each environment that the names of the files name, in alphabetical order: those of `read_amago`.

    Raises FileNotFoundError and FormatError as `read_amago` does.
    """
    return {name: index for index, name in enumerate(sorted({_parts(file)[0] for file in _files(Path(path))}))}


def read_amago(
    path: str | Path,
    *,
    tasks: Mapping[str, int] | None = None,
    discrete: bool = False,
    fields: Collection[str] | None = None,
) -> Iterator[Trajectory]:
    """Yields the trajectories of a buffer, the oldest first.

    A file has `_OBS_KEY_<name>` [T + 1, ...], `actions` [T, A] float32 (discrete ones as one-hot rows), `rews` [T, 1],
    `dones` [T, 1] (terminated), `time_idxs` [T + 1, 1] and `rl2s` [T + 1, 1 + A], the previous reward and action, which
    a replay derives (amago/hindsight.py). A trajectory without a termination is truncated; what the official code
    saved in chunks stays in chunks. From a vectorised environment that resets itself, the last observation is the
    first of what followed: the official code writes it so.

    Args:
        path: a file, or a folder with files at any depth, such as `<dset_root>/<dset_name>/buffer`.
        tasks: the number of each environment; by default `amago_tasks(path)`.
        discrete: turns one-hot rows into an int32 index.
        fields: names of the observations to keep; None for all.

    Raises:
        FileNotFoundError: where there is no file.
        FormatError: naming file and key, for a .traj pickle, a corrupt file, other keys, shapes or dtypes, or an
            environment without a number.
    """
    files = _files(Path(path))
    numbers = amago_tasks(path) if tasks is None else tasks
    for file in files:
        environment = _parts(file)[0]
        if environment not in numbers:
            raise FormatError(f"{file}: no number for the environment {environment!r} in tasks")
        with opened(file) as archive:
            yield _trajectory(archive, discrete, fields, numbers[environment])


def one_hot(action: np.ndarray) -> bool:
    """Whether every row of actions [T, A] has a single 1 and else zeros."""
    return (
        action.ndim == 2
        and action.dtype.kind in "biuf"
        and bool(((action != 0).sum(1) == 1).all() and ((action == 1).sum(1) == 1).all())
    )


def _trajectory(archive: Archive, discrete: bool, fields: Collection[str] | None, task: int) -> Trajectory:
    names = [name for name in archive.names if name.startswith(_OBSERVATION)]
    kept = [name for name in names if fields is None or name.removeprefix(_OBSERVATION) in fields]
    action = archive["actions"]
    if action.ndim != 2:
        raise FormatError(f"{archive.path}: actions: expected shape (T, A), got {action.shape}")
    if discrete:
        if not one_hot(action):
            raise FormatError(f"{archive.path}: actions: expected one-hot rows for discrete=True")
        action = action.argmax(1).astype(np.int32)
    time = archive["time_idxs"].ravel()
    if len(time) != len(action) + 1 or time.dtype.kind not in "iuf" or (np.diff(time) != 1).any():
        raise FormatError(f"{archive.path}: time_idxs: expected {len(action) + 1} consecutive numbers")
    return checked(
        str(archive.path),
        observation={name.removeprefix(_OBSERVATION): archive[name] for name in kept},
        action=action,
        reward=archive["rews"],
        terminated=archive["dones"],
        task=task,
        fields=fields,
    )
