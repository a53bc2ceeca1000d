"""Files that appear whole or not at all, and JSON that nobody need trust."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twohot.errors import CorruptRunError

DEEPEST = 32
"""Objects and lists inside of one another in a file that is read."""


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_file(path: Path) -> Path:
    """The path of an ordinary file, or of none. Raises OSError for a folder, a pipe or a device: it may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "expected an ordinary file", str(path))
    return path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends and all of it is on the disk.

    Where the block raises, `path` is as it was and nothing is left beside it. Raises OSError.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")  # other processes, and hosts, may write it as well
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def parse_json(data: bytes, *, finite: bool = True) -> Any:
    """JSON from a file that may be corrupt, or written by anybody.

    Args:
        data: UTF-8. finite: refuse NaN and infinity.

    Raises:
        ValueError: saying why it is none: not UTF-8, not JSON, a number that is not finite, or nested too deeply.
    """
    try:
        value = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST):
        if finite and any(isinstance(item, float) and not math.isfinite(item) for item in level):
            raise ValueError("a number in it is not finite")
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [item for items in inner for item in items]
        if not level:
            return value
    raise ValueError("nested too deeply")


def read_object(path: Path, remedy: str, *, finite: bool = True) -> dict[str, Any]:
    """The JSON object in a file of a run; empty where there is no such file.

    Args:
        path: of the file. remedy: what to do about a corrupt one. finite: as for `parse_json`.

    Raises:
        CorruptRunError: the file holds none.
    """
    if not path.is_file():
        return {}
    try:
        data = parse_json(path.read_bytes(), finite=finite)
    except ValueError as error:
        raise CorruptRunError(f"{path} is not JSON ({error}): {remedy}") from error
    if not isinstance(data, dict):
        raise CorruptRunError(f"{path}: expected a JSON object, got {json.dumps(data)[:80]}: {remedy}")
    return data
