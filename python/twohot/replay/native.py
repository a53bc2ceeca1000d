"""From Python's arguments to the native store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twohot import _native
from twohot.replay.schema import Schema

SEGMENT_BYTES = 256 << 20


def make_native(
    schema: Schema,
    capacity: Mapping[str, int | None],
    directory: Path | None,
    mode: str,
    seed: int,
    threads: int,
    *,
    durable: bool = False,
    segment_bytes: int = SEGMENT_BYTES,
    keep_evicted: bool = False,
    skip_damage: bool = False,
) -> _native.ReplayStore:
    """The native store of these arguments, those of `Replay.open`; `capacity` by their names. Raises as that does."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed: expected 0 .. 2^64 - 1, got {seed}")
    if segment_bytes < 1:
        raise ValueError(f"segment_bytes: expected at least 1, got {segment_bytes}")
    return _native.ReplayStore(
        *schema.native(),
        **capacity,
        seed=seed,
        threads=threads,
        directory=None if directory is None else str(directory),
        mode=mode,
        segment_bytes=segment_bytes,
        durable=durable,
        keep_evicted=keep_evicted,
        skip_damage=skip_damage,
    )
