"""From Python's arguments to the native store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypedDict

from twohot import _native
from twohot.replay.arguments import boolean, instance, integer
from twohot.replay.schema import Schema

SEGMENT_BYTES = 256 << 20


Mode = Literal["read", "append", "write"]


class Capacities(TypedDict, total=False):
    """The capacities of a replay; at least one is given, and all that are hold."""

    capacity_steps: int | None
    capacity_bytes: int | None
    capacity_trajectories: int | None


def capacities(capacity_steps: int | None, capacity_bytes: int | None, capacity_trajectories: int | None) -> Capacities:
    """The arguments, by name."""
    return {
        "capacity_steps": capacity_steps,
        "capacity_bytes": capacity_bytes,
        "capacity_trajectories": capacity_trajectories,
    }


class DirectoryOptions(TypedDict, total=False):
    """How a replay keeps its files; see `Replay.create` and `Replay.open`."""

    durable: bool
    segment_bytes: int
    keep_evicted: bool


def make_native(
    schema: Schema,
    capacity: Capacities,
    directory: Path | None,
    *,
    mode: Mode | Literal["create"],
    seed: int,
    threads: int,
    durable: bool = False,
    segment_bytes: int = SEGMENT_BYTES,
    keep_evicted: bool = False,
    skip_corrupt: bool = False,
) -> _native.ReplayStore:
    """The native store of these arguments, those of `Replay.open`. Raises as that does."""

    def given(name: str) -> int | None:
        value = capacity.get(name)
        return None if value is None else integer(name, value)

    return _native.ReplayStore(
        *instance("schema", schema, Schema, "which says what a step looks like").native(),
        capacity_steps=given("capacity_steps"),
        capacity_bytes=given("capacity_bytes"),
        capacity_trajectories=given("capacity_trajectories"),
        seed=integer("seed", seed, 0, 2**64 - 1),
        threads=integer("threads", threads, maximum=2**31 - 1),
        directory=None if directory is None else os.fsencode(directory),
        mode=mode,
        segment_bytes=integer("segment_bytes", segment_bytes, 1),
        durable=boolean("durable", durable),
        keep_evicted=boolean("keep_evicted", keep_evicted),
        skip_corrupt=skip_corrupt,
    )
