"""The replay of a run: in memory, and copied into each checkpoint; or on disk, where each checkpoint points into it."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from twohot.config import ReplayConfig
from twohot.replay import Replay, Schema

SAVED = "replay.safetensors"
DIRECTORY = "replay"
SEGMENT_BYTES = 256 << 20


def create(config: ReplayConfig, run: Path, schema: Schema, seed: int) -> Replay:
    """An empty replay for a run that starts from the beginning; what a run without a checkpoint left behind goes."""
    empty = partial(Replay.create, schema, capacity_steps=config.capacity_steps, seed=seed, threads=config.threads)
    if config.storage == "memory":
        return empty()
    shutil.rmtree(run / DIRECTORY, ignore_errors=True)
    return empty(directory=run / DIRECTORY, segment_bytes=SEGMENT_BYTES, keep_evicted=True)


def save(replay: Replay, checkpoint: Path) -> dict[str, Any]:
    """Puts what the replay holds into the directory of a checkpoint, or makes sure of it on disk.

    Returns JSON values for `load`; `evicted` names the files that no later checkpoint needs.
    """
    if replay.directory is None:
        replay.save(checkpoint / SAVED)
        return {"evicted": []}
    replay.sync()
    state = [int(word) for word in replay.random_state]
    return {"position": replay.position(), "random_state": state, "evicted": replay.evicted_files()}


def load(config: ReplayConfig, run: Path, checkpoint: Path, saved: dict[str, Any]) -> Replay:
    """The replay as it was when `save` returned `saved`; what came later is taken back. Raises OSError, ValueError."""
    if config.storage == "memory":
        return Replay.load(checkpoint / SAVED, threads=config.threads)
    replay = Replay.open(
        run / DIRECTORY,
        "append",
        position=saved["position"],
        evicted=saved["evicted"],  # an older checkpoint may need them
        segment_bytes=SEGMENT_BYTES,
        keep_evicted=True,
        threads=config.threads,
    )
    replay.random_state = saved["random_state"]
    return replay
