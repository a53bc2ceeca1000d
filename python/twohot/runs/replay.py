"""The replay of a run: in memory, and copied into each checkpoint; or on disk, where each checkpoint points into it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from twohot.config import ConfigurationError, ReplayConfig
from twohot.replay import Replay, Schema
from twohot.replay.manifest import exists

SAVED, DIRECTORY = "replay.safetensors", "replay"
"""Of the first learner; of rank 2 they are replay-2.safetensors and replay-2, of the domain gym replay-gym."""
SEGMENT_BYTES = 256 << 20
REPLAY_STREAM = 4
"""Of a run's seed (a spawn key of numpy's SeedSequence)."""


Place = int | str
"""Whose replay it is: a learner's, by its rank, or a domain's, by its name."""


class Totals(NamedTuple):
    """What several replays hold together."""

    trajectories: int
    steps: int


class Replays:
    """The replays of a run with several domains, one of each, by the domain's name, which a file's may be.

    Methods are those of a `Replay`.
    """

    def __init__(self, each: Mapping[str, Replay]) -> None:
        self.each = dict(each)

    @property
    def directory(self) -> Path | None:
        """That of one of them; None where they are in memory."""
        return next(iter(self.each.values())).directory

    def stats(self) -> Totals:
        """Of all together."""
        stats = [replay.stats() for replay in self.each.values()]
        return Totals(sum(each.trajectories for each in stats), sum(each.steps for each in stats))

    def evicted_files(self) -> list[str]:
        """Of all, each with its domain before it."""
        return [f"{name}/{file}" for name, replay in self.each.items() for file in replay.evicted_files()]

    def reclaim(self, files: Sequence[str]) -> None:
        """Remove these of the `evicted_files`."""
        for name, replay in self.each.items():
            replay.reclaim([file.removeprefix(f"{name}/") for file in files if file.startswith(f"{name}/")])

    def close(self) -> None:
        """Let go of all."""
        for replay in self.each.values():
            replay.close()


def create(config: ReplayConfig, run: Path, schema: Schema, seed: int, rank: Place = 0) -> Replay:
    """An empty replay for a run that starts from the beginning; what a run without a checkpoint left behind goes."""
    seed, directory = (_seed(seed, rank) if rank else seed), run / _named(DIRECTORY, rank)
    empty = partial(Replay.create, schema, capacity_steps=config.capacity_steps, seed=seed, threads=config.threads)
    if config.storage == "memory":
        return empty()
    remove(run, rank)
    return empty(directory=directory, segment_bytes=SEGMENT_BYTES, keep_evicted=True)


def remove(run: Path, rank: Place = 0) -> None:
    """Remove the files of a replay on disk, if there are any."""
    shutil.rmtree(run / _named(DIRECTORY, rank), ignore_errors=True)


@contextmanager
def capacity_checked() -> Iterator[None]:
    """Around what stores trajectories: one that is too long for the replay is a matter of configuration.

    Raises:
        ConfigurationError: in the place of the replay's ValueError.
    """
    try:
        yield
    except ValueError as error:
        if "the whole capacity" not in str(error):
            raise
        raise ConfigurationError(f"replay.capacity_steps: too small for one trial ({error})") from error


def _named(name: str, rank: Place) -> str:
    path = Path(name)
    return f"{path.stem}-{rank}{path.suffix}" if rank else name


def _seed(seed: int, rank: Place) -> int:
    """Of the replay of a rank but the first, or of a domain."""
    key = (rank,) if isinstance(rank, int) else (0, *rank.encode())
    return int(np.random.SeedSequence(seed, spawn_key=(REPLAY_STREAM, *key)).generate_state(1, np.uint64)[0] >> 1)


def save(replay: Replay | Replays, checkpoint: Path, rank: Place = 0) -> dict[str, Any]:
    """Puts what the replay holds into the directory of a checkpoint, or makes sure of it on disk.

    Returns JSON values for `load`; `evicted` names the files that no later checkpoint needs.
    """
    if isinstance(replay, Replays):
        domains = {name: save(each, checkpoint, name) for name, each in replay.each.items()}
        evicted = [f"{name}/{file}" for name, saved in domains.items() for file in saved["evicted"]]
        return {"evicted": evicted, "domains": domains}
    if replay.directory is None:
        replay.save(checkpoint / _named(SAVED, rank))
        return {"evicted": []}
    replay.sync()
    state = [int(word) for word in replay.random_state]
    return {"position": replay.position(), "random_state": state, "evicted": replay.evicted_files()}


def is_there(run: Path, rank: int = 0) -> bool:
    """Whether a run has a replay on disk."""
    return exists(run / _named(DIRECTORY, rank))


def load_all(config: ReplayConfig, run: Path, saved: dict[str, Any] | None, rank: int = 0) -> tuple[Replay, int]:
    """The replay on disk with all that was committed to it, and the steps that came after `save` returned `saved`.

    Raises OSError, ValueError.
    """
    replay = _open(config, run, rank)
    now, before = replay.position(), {} if saved is None else saved["position"]
    new = sum(max(0, count - before.get(name, 0)) for name, count in now.items())
    if saved is not None:
        replay.random_state = saved["random_state"]
    return replay, int(replay.lengths()[max(0, len(replay) - new) :].sum())


def load(config: ReplayConfig, run: Path, checkpoint: Path, saved: dict[str, Any], rank: Place = 0) -> Replay:
    """The replay as it was when `save` returned `saved`; what came later is taken back. Raises OSError, ValueError."""
    if config.storage == "memory":
        return Replay.load(checkpoint / _named(SAVED, rank), threads=config.threads)
    # An older checkpoint may need files that were evicted.
    replay = _open(config, run, rank, position=saved["position"], evicted=saved["evicted"])
    replay.random_state = saved["random_state"]
    return replay


def _open(config: ReplayConfig, run: Path, rank: Place, **options: Any) -> Replay:
    directory = run / _named(DIRECTORY, rank)
    options |= {"segment_bytes": SEGMENT_BYTES, "keep_evicted": True, "threads": config.threads}
    return Replay.open(directory, "append", **options)
