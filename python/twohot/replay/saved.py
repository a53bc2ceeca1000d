"""A replay in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twohot.files import replacing
from twohot.replay.schema import STEP_COLUMNS, Schema

if TYPE_CHECKING:
    from twohot.replay.store import Replay

FORMAT = "twohot.saved-replay/2"
PLAIN = ("length", "task", "id", "origin", "protected", "priority")


def write(path: Path, snapshot: dict[str, Any], schema: Schema, capacity: Mapping[str, int | None]) -> None:
    """Writes what native code gave of a replay; the file takes the place of an earlier one at once. Raises OSError."""
    from safetensors.numpy import save_file

    tensors = {f"observation/{name}": array for name, array in snapshot["observation"].items()}
    tensors |= {f"step/{name}": array for name, array in snapshot.get("step", {}).items()}
    tensors |= {name: snapshot[name] for name in (*STEP_COLUMNS, *PLAIN)}
    tensors["random_state"] = np.array(snapshot["random_state"], dtype=np.uint64)
    about = {"schema": schema.to_json(), "capacity": dict(capacity), "counters": list(snapshot["counters"])}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"format": FORMAT, "replay": json.dumps(about)})


def read(path: Path, create: Callable[[Schema, dict[str, int | None]], Replay]) -> Replay:
    """The replay that `create` makes for the saved schema and capacity, filled.

    Raises OSError where the file cannot be read and ValueError, naming it, where it is no saved replay.
    """
    from safetensors import SafetensorError, safe_open

    path.open("rb").close()
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"expected the format {FORMAT}, got {metadata.get('format')}")
            about = json.loads(metadata["replay"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        replay = create(Schema.from_json(about["schema"]), about["capacity"])
        _fill(replay, tensors, about["counters"])
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be loaded as a replay: {error}") from error
    return replay


def _fill(replay: Replay, tensors: dict[str, np.ndarray], counters: list[int]) -> None:
    """Fills an empty replay from the tensors that were saved."""
    lengths, ids = tensors["length"], tensors["id"]
    next_id, evicted_trajectories, evicted_steps = counters
    shapes = {tensors[name].shape for name in PLAIN if name != "priority" or tensors[name].size}
    if lengths.dtype != np.int64 or len(shapes) != 1 or (lengths < 1).any():
        raise ValueError("its lengths and ids do not belong together")
    if len(np.unique(ids)) != len(ids) or (ids < 0).any() or (ids >= next_id).any():
        raise ValueError("its ids come twice or were never given")
    extra = {name: len(lengths) for name in tensors if name.startswith("observation/")}
    for name in (*STEP_COLUMNS, *(f"step/{name}" for name in replay.schema.step), *extra):
        rows = int(lengths.sum()) + extra.get(name, 0)
        if len(tensors[name]) != rows:
            raise ValueError(f"expected {rows} rows of {name}, got {len(tensors[name])}")
    ends = np.cumsum(lengths)
    for index, (end, length) in enumerate(zip(ends.tolist(), lengths.tolist(), strict=True)):
        steps = slice(end - length, end)
        rows_of = slice(end - length + index, end + index + 1)
        replay._native.insert(
            {name: tensors[f"observation/{name}"][rows_of] for name in replay.schema.observation},
            *(tensors[name][steps] for name in STEP_COLUMNS),
            {name: tensors[f"step/{name}"][steps] for name in replay.schema.step},
            int(tensors["task"][index]),
            bool(tensors["protected"][index]),
            int(tensors["origin"][index]),
            int(ids[index]),
        )
    if tensors["priority"].size:
        replay.set_priorities(ids, tensors["priority"])
    stats = replay.stats()
    replay._native.resume(
        next_id, evicted_trajectories + stats.evicted_trajectories, evicted_steps + stats.evicted_steps
    )
    replay.random_state = tensors["random_state"]
