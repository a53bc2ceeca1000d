"""Plain .npz files: one trajectory in each, or many, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path

import numpy as np

from twohot.files import atomic_write
from twohot.replay.formats.archive import Archive, opened
from twohot.replay.formats.trajectory import FormatError, Trajectory, checked, label, schema_of

_KINDS = ("observation", "step")


def read_npz(path: str | Path, *, fields: Collection[str] | None = None) -> Iterator[Trajectory]:
    """Yields the trajectories of a file, or of the files of a folder in alphabetical order.

    Keys of a file with one trajectory of T steps: `observation/<name>` [T + 1, ...] each, or a lone `observation`;
    `action` [T, ...]; `reward` [T]; `terminated` [T]; and, if there are any, `truncated` [T] (else the last step is,
    unless it is terminated), `task` (an integer, else 0) and arrays `step/<name>` [T, ...]. With a key `length`
    [N] the arrays hold N trajectories one after the other, sum(length) rows each and sum(length + 1) of the
    observations, and `task` has N numbers. Other keys are ignored.

    Args:
        path: a file, or a folder with .npz files in it.
        fields: names of the observations to keep; None for all.

    Raises:
        FileNotFoundError: where there is no file.
        FormatError: naming file and key, for a corrupt file and for other keys, shapes or dtypes.
    """
    path = Path(path)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path}: no .npz files in this folder")
    for file in files:
        with opened(file) as archive:
            yield from _trajectories(archive, fields)


def _trajectories(archive: Archive, fields: Collection[str] | None) -> Iterator[Trajectory]:
    named = {
        kind: {name.removeprefix(f"{kind}/"): archive[name] for name in archive.names if name.startswith(f"{kind}/")}
        for kind in _KINDS
    }
    if "observation" in archive.names:
        named["observation"]["observation"] = archive["observation"]
    columns = {name: archive[name] for name in ("action", "reward", "terminated")}
    if "truncated" in archive.names:
        columns["truncated"] = archive["truncated"]
    if "length" not in archive.names:
        task = archive["task"] if "task" in archive.names else 0
        yield checked(
            str(archive.path),
            observation=named["observation"],
            step=named["step"],
            **columns,
            task=task,
            fields=fields,
        )
        return
    lengths = archive["length"]
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 1).any():
        raise FormatError(f"{archive.path}: length: expected a row of integers of at least 1, got {lengths!r:.60}")
    counts: list[int] = lengths.tolist()
    count, rows = len(counts), sum(counts)
    tasks = archive["task"] if "task" in archive.names else np.zeros(count, np.int32)
    expected = [(name, values, rows) for name, values in columns.items()]
    expected += [(f"observation {name!r}", values, rows + count) for name, values in named["observation"].items()]
    expected += [(f"step {name!r}", values, rows) for name, values in named["step"].items()]
    for name, values, size in (*expected, ("task", tasks, count)):
        if values.ndim == 0 or len(values) != size:
            raise FormatError(f"{archive.path}: {name}: expected {size} rows, got shape {values.shape}")
    for index, (end, length) in enumerate(zip(accumulate(counts), counts, strict=True)):
        first = end - length
        yield checked(
            f"{archive.path}: trajectory {index}",
            observation={
                name: values[first + index : end + index + 1] for name, values in named["observation"].items()
            },
            step={name: values[first:end] for name, values in named["step"].items()},
            **{name: values[first:end] for name, values in columns.items()},
            task=tasks[index],
            fields=fields,
        )


def write_npz(path: str | Path, trajectories: Iterable[Trajectory]) -> int:
    """Writes trajectories as `read_npz` reads them, and returns how many.

    To a path that ends with .npz they go as one file, which needs memory for all of them; else each becomes a file of
    its own in the folder of that name, which is made. A file takes the place of an earlier one when all of it is on the
    disk. Raises OSError, FileExistsError for a folder that holds .npz files already, and ValueError where trajectories
    of one file have other columns than the first, or a label is none.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _write_one(path, list(trajectories))
    path.mkdir(parents=True, exist_ok=True)
    if any(path.glob("*.npz")):
        raise FileExistsError(f"{path}: holds .npz files already; choose another folder")
    count = 0
    for count, trajectory in enumerate(trajectories, 1):
        _save(path / f"{count - 1:09d}.npz", _flat(trajectory))
    return count


def _write_one(path: Path, trajectories: list[Trajectory]) -> int:
    if not trajectories:
        raise ValueError("trajectories: expected at least one for a single file, got none")
    schemas = [schema_of(trajectory) for trajectory in trajectories]
    for index, schema in enumerate(schemas):
        if schema != schemas[0]:
            raise ValueError(f"trajectories: expected equal columns, got {schemas[0]} and, in {index}, {schema}")
    flat = [_flat(trajectory) for trajectory in trajectories]
    length = np.array([len(columns["reward"]) for columns in flat], np.int64)
    join = {name: np.concatenate([columns[name] for columns in flat]) for name in flat[0] if name != "task"}
    _save(path, join | {"length": length, "task": np.array([columns["task"] for columns in flat], np.int32)})
    return len(flat)


def _flat(trajectory: Trajectory) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for kind in _KINDS:
        named: Mapping[str, np.ndarray] = trajectory.get(kind) or {}
        columns |= {f"{kind}/{name}": values for name, values in named.items()}
    columns |= {name: trajectory[name] for name in ("action", "reward", "terminated", "truncated")}
    return columns | {"task": np.array(label("trajectory", trajectory.get("task", 0)), np.int32)}


def _save(path: Path, columns: dict[str, np.ndarray]) -> None:
    savez: Callable[..., None] = np.savez  # some versions have other arguments than arrays
    with atomic_write(path) as partial, partial.open("wb") as file:
        savez(file, **columns)
