"""A replay in one safetensors file."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from twohot import _native
from twohot.errors import CorruptReplayError
from twohot.extras import require
from twohot.files import atomic_write, require_file
from twohot.replay.arguments import integer
from twohot.replay.native import Capacities, capacities, make_native
from twohot.replay.schema import STEP_COLUMNS, Schema

FORMAT = "twohot.saved-replay/3"
PREVIOUS_FORMAT = "twohot.saved-replay/2"
"""Without checksums."""
PLAIN = {
    "length": "int64",
    "task": "int32",
    "id": "int64",
    "origin": "int64",
    "protected": "bool",
    "priority": "float64",
    "random_state": "uint64",
}
"""The tensors beside the columns, and their dtypes."""


def write(path: Path, snapshot: dict[str, Any], schema: Schema, capacity: Capacities) -> None:
    """Writes what native code gave of a replay; the file takes the place of an earlier one at once. Raises OSError."""
    require("safetensors", who="replays in one file")
    from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]  # its PathLike names no type

    tensors = {f"observation/{name}": array for name, array in snapshot["observation"].items()}
    tensors |= {f"step/{name}": array for name, array in snapshot.get("step", {}).items()}
    tensors |= {name: np.asarray(snapshot[name], PLAIN.get(name)) for name in (*STEP_COLUMNS, *PLAIN)}
    about = {"schema": schema.to_json(), "capacity": dict(capacity), "counters": list(snapshot["counters"])}
    text = json.dumps(about)
    metadata = {"format": FORMAT, "replay": text, "checksum": _checksum(text, tensors)}
    with atomic_write(path) as partial:
        save_file(tensors, partial, metadata=metadata)


def read(path: Path, changes: Mapping[str, int], threads: int) -> tuple[Schema, _native.ReplayStore, Capacities]:
    """The saved schema, a store in memory with what was saved, and its capacity, the saved one with these changes.

    Raises OSError where the file cannot be read and CorruptReplayError, naming it, where it is no saved replay.
    """
    require("safetensors", who="replays in one file")
    from safetensors import safe_open

    require_file(path).open("rb").close()
    try:
        with cast("Any", safe_open(path, framework="numpy")) as file:
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("format") not in (FORMAT, PREVIOUS_FORMAT):
                raise ValueError(f"expected the format {FORMAT}, got {metadata.get('format')}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        text = metadata["replay"]
        summed = metadata["format"] != PREVIOUS_FORMAT or "checksum" in metadata
        if summed and metadata["checksum"] != _checksum(text, tensors):
            raise ValueError("it does not have its checksum: it was changed")
        about = json.loads(text)
        schema, capacity = Schema.from_json(about["schema"]), capacities(**{**about["capacity"], **changes})
        store = make_native(schema, capacity, None, mode="create", seed=0, threads=threads)
        _fill(store, schema, tensors, about["counters"])
    except OSError:
        raise
    except Exception as error:  # whatever parsing makes of bytes that nobody wrote so
        raise CorruptReplayError(f"{path} cannot be loaded as a replay: {error}") from error
    return schema, store, capacity


def _checksum(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Of all that a file says of a replay."""
    value = zlib.crc32(text.encode())
    for name, array in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), value)
        flat: Any = np.ascontiguousarray(array).ravel()
        value = zlib.crc32(flat.view(np.uint8).data, value)
    return f"{value:08x}"


def _fill(store: _native.ReplayStore, schema: Schema, tensors: Mapping[str, np.ndarray], counters: list[int]) -> None:
    """Fills an empty store from the tensors that were saved."""
    ids = tensors["id"]
    next_id, evicted_trajectories, evicted_steps = (integer("counters", count, 0) for count in counters)
    if len(np.unique(ids)) != len(ids) or (ids < 0).any() or (ids >= next_id).any():
        raise ValueError("its ids come twice or were never given")
    columns: dict[str, Any] = {name: tensors[name] for name in (*STEP_COLUMNS, "length", "task", "origin", "protected")}
    columns["observation"] = {name: tensors[f"observation/{name}"] for name in schema.observation}
    if schema.step:
        columns["step"] = {name: tensors[f"step/{name}"] for name in schema.step}
    store.extend(columns, ids)
    if tensors["priority"].size:
        store.set_priorities(ids, tensors["priority"])
    stats = store.stats()
    store.resume(next_id, evicted_trajectories + stats["evicted_trajectories"], evicted_steps + stats["evicted_steps"])
    words: list[int] = tensors["random_state"].ravel().tolist()
    if len(words) != 4:
        raise ValueError(f"random_state: expected four words, got {len(words)}")
    store.random_state = words
