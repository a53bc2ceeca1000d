"""From Python's arguments to the native store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from twohot import _native
from twohot.replay.arguments import boolean, integer, text
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
    if not isinstance(schema, Schema):
        raise TypeError(f"schema: expected a Schema, got {schema!r:.60}")
    return _native.ReplayStore(
        *schema.native(),
        **{name: None if value is None else integer(name, value) for name, value in capacity.items()},
        seed=integer("seed", seed, 0, 2**64 - 1),
        threads=integer("threads", threads, most=2**31 - 1),
        directory=None if directory is None else os.fsencode(directory),
        mode=text("mode", mode),
        segment_bytes=integer("segment_bytes", segment_bytes, 1),
        durable=boolean("durable", durable),
        keep_evicted=boolean("keep_evicted", keep_evicted),
        skip_damage=skip_damage,
    )
