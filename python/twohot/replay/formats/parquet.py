"""Writes trajectories as Parquet, through the package `pyarrow`: for Hugging Face `datasets`, and in LeRobot's format.

The package comes with `pip install 'twohot[parquet]'`.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from twohot.extras import package
from twohot.files import atomic_write
from twohot.replay.formats.trajectory import FormatError, Trajectory, label, schema_of

_BYTES = 100 << 20  # of arrays in a file, at most, and one trajectory more
_DATA, _EPISODE_FILE = "data/chunk-{:03d}/file-{:03d}.parquet", "meta/episodes/chunk-000/file-000.parquet"
_FILES = 1000  # in a chunk
_IMAGE_CHANNELS = (1, 3, 4)
_OWN = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def _package() -> tuple[Any, Any]:
    return package("pyarrow", "parquet", "Parquet"), package("pyarrow.parquet", "parquet", "Parquet")


def write_datasets(path: str | Path, trajectories: Iterable[Trajectory]) -> int:
    """Writes trajectories for `datasets.load_dataset(path)` and any other reader of Parquet, and returns how many.

    A row is a trajectory of T steps: `observation/NAME` [T + 1, ...] of each, `action` [T, ...], `reward`, `terminated`
    and `truncated` [T], `task`, and `step/NAME` [T, ...], as nested lists of the arrays' own dtypes. Files of about 100
    MB stand in the folder's `data`.

    Args:
        path: a new folder. trajectories: at least one; all have the same fields.

    Raises:
        TwohotError: the package is not installed.
        FileExistsError: the folder holds something already.
        ValueError: there is no trajectory, or one has other columns than the first.
    """
    arrow, parquet = _package()
    path = _new(path)
    count = 0
    for index, part in enumerate(_parts(trajectories)):
        rows = [_flat(trajectory) for trajectory in part]
        table = arrow.table({name: _lists(arrow, [row[name] for row in rows]) for name in rows[0] if name != "task"})
        table = table.append_column("task", arrow.array([row["task"] for row in rows], arrow.int32()))
        _write(parquet, path / f"data/train-{index:05d}.parquet", table)
        count += len(part)
    return count


def write_lerobot(
    path: str | Path, trajectories: Iterable[Trajectory], *, fps: int = 30, tasks: Mapping[int, str] | None = None
) -> int:
    """Writes trajectories as a dataset of LeRobot's format v3.0, and returns how many.

    A row is a step: `observation.state` where one vector is all that is seen, `observation.images.NAME` for images
    (bytes [H, W, 1, 3 or 4], stored as PNG, without loss), `observation.NAME` for all else, `action`, `step.NAME` for
    step fields, and what the action led to as `next.reward`, `next.terminated` and `next.done` (terminated or
    truncated). The format has no place for the observation after the last action of an episode, which is left out.
    Statistics are of all episodes together: minimum, maximum, mean and deviation, no quantiles.

    Args:
        path: a new folder. trajectories: at least one; all have the same fields.
        fps: steps a second, from which timestamps are made. tasks: what each label is called, in words.

    Raises:
        TwohotError: the package is not installed. FileExistsError: the folder holds something already.
        ValueError: there is no trajectory, one has other columns than the first, or `fps` is below 1.
        FormatError: two columns would have one name, or one has more than five dimensions.
    """
    arrow, parquet = _package()
    if fps < 1:
        raise ValueError(f"fps: expected at least 1, got {fps}")
    path = _new(path)
    episodes: list[dict[str, Any]] = []
    statistics: dict[str, _Statistics] = {}
    names: list[str] = []  # of tasks, in order of appearance
    features: dict[str, Any] = {}
    frames = 0
    for number, part in enumerate(_parts(trajectories)):
        chunk, file = divmod(number, _FILES)
        tables: list[Any] = []
        for trajectory in part:
            task = label("trajectory", trajectory.get("task", 0))
            name = (tasks or {}).get(task, f"task {task}")
            names += [name] * (name not in names)
            length, columns = len(trajectory["reward"]), _step_columns(trajectory)
            features = features or {key: _feature(key, array) for key, array in columns.items()}
            for key, array in columns.items():
                statistics.setdefault(key, _Statistics(features[key]["dtype"] == "image")).add(array)
            own = {
                "timestamp": np.arange(length, dtype=np.float32) / np.float32(fps),
                "frame_index": np.arange(length),
                "episode_index": np.full(length, len(episodes)),
                "index": np.arange(frames, frames + length),
                "task_index": np.full(length, names.index(name)),
            }
            arrays = {
                key: _images(arrow, array) if features[key]["dtype"] == "image" else _nested(arrow, array)
                for key, array in columns.items()
            }
            tables.append(arrow.table(arrays | {key: arrow.array(array) for key, array in own.items()}))
            episodes.append(
                {
                    "episode_index": len(episodes),
                    "tasks": [name],
                    "length": length,
                    "data/chunk_index": chunk,
                    "data/file_index": file,
                    "dataset_from_index": frames,
                    "dataset_to_index": frames + length,
                    "meta/episodes/chunk_index": 0,
                    "meta/episodes/file_index": 0,
                }
            )
            frames += length
        _write(parquet, path / _DATA.format(chunk, file), arrow.concat_tables(tables))
    _write(parquet, path / _EPISODE_FILE, arrow.Table.from_pylist(episodes))
    _write(parquet, path / "meta/tasks.parquet", _task_table(arrow, names))
    _json(path / "meta/stats.json", {key: found.summary() for key, found in statistics.items()})
    own_features = {key: {"dtype": "int64", "shape": [1], "names": None} for key in _OWN}
    own_features["timestamp"]["dtype"] = "float32"
    about = {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": len(episodes),
        "total_frames": frames,
        "total_tasks": len(names),
        "chunks_size": _FILES,
        "data_files_size_in_mb": _BYTES >> 20,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": features | own_features,
    }
    _json(path / "meta/info.json", about)  # last: without it there is no dataset
    return len(episodes)


def _new(path: str | Path) -> Path:
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path}: is there already and holds something; choose another folder")
    return path


def _parts(trajectories: Iterable[Trajectory]) -> Iterator[list[Trajectory]]:
    """Trajectories of one schema, as many as go into one file."""
    part: list[Trajectory] = []
    size, schema = 0, None
    for index, trajectory in enumerate(trajectories):
        found = schema_of(trajectory)
        schema = schema or found
        if found != schema:
            raise ValueError(f"trajectories: expected equal columns, got {schema} and, in {index}, {found}")
        part.append(trajectory)
        size += sum(array.nbytes for name, array in _flat(trajectory).items() if name != "task")
        if size >= _BYTES:
            yield part
            part, size = [], 0
    if schema is None:
        raise ValueError("trajectories: expected at least one, got none")
    if part:
        yield part


def _flat(trajectory: Trajectory) -> dict[str, Any]:
    named: dict[str, Any] = {f"observation/{name}": array for name, array in trajectory["observation"].items()}
    named |= {name: trajectory[name] for name in ("action", "reward", "terminated", "truncated")}
    fields: Mapping[str, np.ndarray] = trajectory.get("step") or {}
    named |= {f"step/{name}": array for name, array in fields.items()}
    return named | {"task": label("trajectory", trajectory.get("task", 0))}


def _nested(arrow: Any, array: np.ndarray) -> Any:
    """[rows, ...] as lists of fixed sizes."""
    values = arrow.array(np.ascontiguousarray(array).ravel())
    for size in array.shape[:0:-1]:
        values = arrow.FixedSizeListArray.from_arrays(values, size)
    return values


def _lists(arrow: Any, arrays: list[np.ndarray]) -> Any:
    """Arrays [any, ...] as one list each."""
    ends = np.cumsum([0, *map(len, arrays)])
    return arrow.LargeListArray.from_arrays(arrow.array(ends, arrow.int64()), _nested(arrow, np.concatenate(arrays)))


def _write(parquet: Any, path: Path, table: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        parquet.write_table(table, partial, row_group_size=1 << 16)


def _json(path: Path, value: Any) -> None:
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=4) + "\n", encoding="utf-8")


def _step_columns(trajectory: Trajectory) -> dict[str, np.ndarray]:
    """LeRobot's columns of T rows, by name."""
    observation: Mapping[str, np.ndarray] = trajectory["observation"]
    named: list[tuple[str, Any]] = []
    for name, array in observation.items():
        key = name.replace("/", ".")
        if _shows(array):
            key = f"images.{key}"
        elif len(observation) == 1 and array.ndim == 2 and array.dtype.kind == "f":
            key = "state"
        named.append((f"observation.{key}", array[:-1]))
    named += [("action", trajectory["action"]), ("next.reward", trajectory["reward"])]
    named += [("next.terminated", trajectory["terminated"])]
    named += [("next.done", trajectory["terminated"] | trajectory["truncated"])]
    fields: Mapping[str, np.ndarray] = trajectory.get("step") or {}
    named += [(f"step.{name.replace('/', '.')}", array) for name, array in fields.items()]
    # One number is no list there.
    columns = {name: array[:, 0] if array.shape[1:] == (1,) else array for name, array in named}
    if len(columns) < len(named):
        raise FormatError(f"lerobot: two columns have one name among {', '.join(name for name, _ in named)}")
    return columns


def _shows(array: np.ndarray) -> bool:
    """Whether it is images."""
    return array.dtype == np.uint8 and array.ndim == 4 and array.shape[-1] in _IMAGE_CHANNELS


def _feature(name: str, array: np.ndarray) -> dict[str, Any]:
    if array.ndim > 6:
        raise FormatError(f"lerobot: {name}: expected at most 5 dimensions, got {array.shape[1:]}")
    if _shows(array):
        return {"dtype": "image", "shape": list(array.shape[1:]), "names": ["height", "width", "channels"]}
    return {"dtype": str(array.dtype), "shape": list(array.shape[1:] or (1,)), "names": None}


def _images(arrow: Any, array: np.ndarray) -> Any:
    """Images as PNG in the struct in which `datasets` keeps them."""
    image: Any = import_module("PIL.Image")
    rows: list[dict[str, Any]] = []
    for pixels in array:
        buffer = io.BytesIO()
        image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    return arrow.array(rows, arrow.struct({"bytes": arrow.binary(), "path": arrow.string()}))


def _task_table(arrow: Any, names: list[str]) -> Any:
    """Tasks by name, which pandas reads as the index."""
    table = arrow.table({"task_index": arrow.array(range(len(names)), arrow.int64()), "task": arrow.array(names)})
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
        for name, (kind, dtype) in kinds.items()
    ]
    about = {"index_columns": ["task"], "column_indexes": [], "columns": columns}
    return table.replace_schema_metadata({"pandas": json.dumps(about)})


class _Statistics:
    """Minimum, maximum, mean and standard deviation of a column; of images by channel, of pixels from 0 to 1."""

    def __init__(self, image: bool) -> None:
        self._image, self._count = image, 0
        self._low: Any = np.inf
        self._high: Any = -np.inf
        self._mean: Any = 0.0
        self._deviations: Any = 0.0  # squared, summed
        self._frames = 0

    def add(self, array: np.ndarray) -> None:
        """Rows [T, ...]."""
        values: Any = array.astype(np.float64)
        values = values if values.ndim > 1 else values[:, None]
        axes = (0, 1, 2) if self._image else (0,)
        values = values / 255 if self._image else values
        self._frames += len(array)
        count = math.prod(values.shape[axis] for axis in axes)
        self._low, self._high = np.minimum(self._low, values.min(axes)), np.maximum(self._high, values.max(axes))
        mean, total = values.mean(axes), self._count + count  # merged as Chan et al. (1979) do
        difference = mean - self._mean
        self._deviations = self._deviations + np.square(values - mean).sum(axes)
        self._deviations = self._deviations + np.square(difference) * (self._count * count / total)
        self._mean, self._count = self._mean + difference * (count / total), total

    def summary(self) -> dict[str, Any]:
        """As LeRobot's stats.json has them."""
        mean: Any = self._mean
        deviation: Any = np.sqrt(self._deviations / self._count)
        found = {"min": self._low, "max": self._high, "mean": mean, "std": deviation}
        shape: Any = (-1, 1, 1) if self._image else mean.shape
        return {key: np.reshape(value, shape).tolist() for key, value in found.items()} | {"count": [self._frames]}
