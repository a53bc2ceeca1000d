"""The description of a replay in a directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twohot.errors import DamagedReplayError
from twohot.files import replacing, require_file
from twohot.replay.native import make_native
from twohot.replay.schema import Schema

FORMAT = "twohot.replay/2"
MANIFEST = "replay.json"


def capacities(
    capacity_steps: int | None, capacity_bytes: int | None, capacity_trajectories: int | None
) -> dict[str, int | None]:
    """The arguments, by name."""
    return {
        "capacity_steps": capacity_steps,
        "capacity_bytes": capacity_bytes,
        "capacity_trajectories": capacity_trajectories,
    }


def exists(directory: Path) -> bool:
    """Whether the directory holds a replay."""
    return (directory / MANIFEST).exists()


def write_manifest(directory: Path, schema: Schema, capacity: Mapping[str, int | None]) -> None:
    """Makes the directory one of a replay. Raises OSError."""
    manifest: dict[str, Any] = {"format": FORMAT, "schema": schema.to_json(), "capacity": dict(capacity)}
    manifest["checksum"] = _checksum(manifest)
    with replacing(directory / MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=2) + "\n")


def read_manifest(directory: Path) -> tuple[Schema, dict[str, int | None]]:
    """The schema and the capacities of the replay in a directory.

    Raises FileNotFoundError where there is none, and DamagedReplayError where its description cannot be read.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(require_file(path).read_text())
        if manifest["format"] != FORMAT:
            raise DamagedReplayError(f"{path}: expected the format {FORMAT}, got {manifest['format']!r:.60}")
        if manifest.get("checksum") != _checksum(manifest):
            raise DamagedReplayError(f"{path} does not have its checksum: it was changed")
        schema, capacity = Schema.from_json(manifest["schema"]), capacities(**manifest["capacity"])
        make_native(schema, capacity, None, "append", 0, 1)  # refuses what no store can be made of
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{directory} holds no replay: there is no {MANIFEST}") from error
    except (OSError, DamagedReplayError):
        raise
    except Exception as error:  # whatever parsing makes of text that nobody wrote so
        raise DamagedReplayError(f"{path} cannot be read as the description of a replay: {error!r}") from error
    return schema, capacity


def _checksum(manifest: Mapping[str, Any]) -> str:
    """Of the schema and capacity: one digit that changes would let `repair` put all files aside, or evict them."""
    text = json.dumps([manifest["schema"], manifest["capacity"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
