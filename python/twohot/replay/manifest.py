"""The description of a replay in a directory."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twohot.errors import CorruptReplayError
from twohot.files import atomic_write, sync
from twohot.replay.native import Capacities, capacities, make_native
from twohot.replay.schema import Schema

FORMAT = "twohot.replay/3"
PREVIOUS_FORMAT = "twohot.replay/2"  # its writers counted instead of drawing their names, and nothing was marked as cut
MANIFEST = "replay.json"
MAX_BYTES = 1 << 24


def exists(directory: Path) -> bool:
    """Whether the directory holds a replay."""
    return (directory / MANIFEST).exists()


def repair_command(directory: str | Path) -> str:
    """The command that repairs a corrupt replay, for a shell."""
    return f"twohot replay repair {shlex.quote(str(directory))}"


def write_manifest(directory: Path, schema: Schema, capacity: Capacities) -> None:
    """Makes the directory one of a replay. Raises FileExistsError where it is one, and OSError."""
    path = directory / MANIFEST
    partial = directory / f".{MANIFEST}.{secrets.token_hex(8)}.partial"
    try:
        partial.write_text(_text(schema, capacity))
        sync(partial)
        try:
            os.link(partial, path)  # of two that make it at once, one has it
        except FileExistsError as error:
            raise FileExistsError(f"{directory} holds a replay already: open it with Replay.open") from error
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            os.replace(partial, path)  # a file system without links
    finally:
        partial.unlink(missing_ok=True)
    sync(directory)


def read_manifest(directory: Path, *, renew: bool = False) -> tuple[Schema, Capacities]:
    """The schema and the capacities of the replay in a directory.

    With `renew`, one of the format before becomes one of this format, for who is about to change its files. Raises
    FileNotFoundError where there is none, CorruptReplayError where its description cannot be read, and OSError.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(_read(path))
        if manifest["format"] not in (FORMAT, PREVIOUS_FORMAT):
            raise CorruptReplayError(f"{path}: expected the format {FORMAT}, got {manifest['format']!r:.60}")
        if manifest.get("checksum") != _checksum(manifest):
            raise CorruptReplayError(f"{path} does not have its checksum: it was changed")
        schema, capacity = Schema.from_json(manifest["schema"]), capacities(**manifest["capacity"])
        make_native(schema, capacity, None, mode="append", seed=0, threads=1)  # refuses what no store can be made of
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{directory} holds no replay: there is no {MANIFEST}") from error
    except (OSError, CorruptReplayError):
        raise
    except Exception as error:  # whatever parsing makes of text that nobody wrote so
        raise CorruptReplayError(f"{path} cannot be read as the description of a replay: {error!r}") from error
    if renew and manifest["format"] != FORMAT:
        with atomic_write(path) as partial:
            partial.write_text(_text(schema, capacity))
    return schema, capacity


def _read(path: Path) -> bytes:
    """The content of a file, without waiting for what is none."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                raise CorruptReplayError(f"{path} is not the description of a replay: expected a small file")
            return file.read()
    except IsADirectoryError as error:
        raise CorruptReplayError(f"{path} is a folder: expected the description of a replay") from error


def _text(schema: Schema, capacity: Capacities) -> str:
    manifest: dict[str, Any] = {"format": FORMAT, "schema": schema.to_json(), "capacity": dict(capacity)}
    manifest["checksum"] = _checksum(manifest)
    return json.dumps(manifest, indent=2) + "\n"


def _checksum(manifest: Mapping[str, Any]) -> str:
    """Of the schema and capacity: one digit that changes would let `repair` put all files aside, or evict them."""
    text = json.dumps([manifest["schema"], manifest["capacity"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
