"""Checkpoints: a directory of safetensors and JSON, complete or absent, checked before it is read.

checkpoints/epoch-000010/          planned: a multiple of checkpoint_every, or the last epoch
checkpoints/epoch-000012-260-31/   unplanned: 12 epochs, and of the next one 260 steps of each actor and 31 updates
    agent.safetensors  optimizer.safetensors  random.safetensors
    replay.safetensors where the replay is in memory
    statistics.safetensors where it is unplanned: what the epoch's metrics are made of
    random-1.safetensors  replay-1.safetensors ...  of the second of several learners
    replay-gym.safetensors ...  of a domain, where there are several
    state.json         counters, configuration, and the size and CRC-32 of each file; last, the CRC-32 of itself

The newest two planned ones stay, and an unplanned one until a newer one of any kind is there: it displaces none that is
planned.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from twohot.errors import TwohotError
from twohot.files import atomic_write, parse_json, sync
from twohot.replay import Replay
from twohot.runs import replay as run_replay
from twohot.runs.replay import Replays
from twohot.tensors import require_alike

FORMAT = 2
KEEP = 2
_NAME = re.compile(r"epoch-(\d+)(?:-(\d+)-(\d+))?", re.ASCII)
_SIGNED = re.compile(rb'(.*),\n "crc32": "([0-9a-f]{8})"\n}\n', re.DOTALL)
MISFITS = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RuntimeError, MemoryError)
"""What values that do not fit together raise where they are used."""


class CheckpointError(TwohotError, ValueError):
    """A checkpoint that is missing, corrupt, or made with another configuration."""


class _Position(NamedTuple):
    """How far a run was, in the order of checkpoints."""

    epoch: int
    steps: int
    updates: int
    planned: bool


def latest(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    found = _complete(run / "checkpoints")
    return found[max(found)] if found else None


Found = TypeVar("Found")


def read_newest(path: Path, read: Callable[[Path], Found], missing: str) -> Found:
    """What `read` makes of a run's newest checkpoint, or of `path` where that is a checkpoint.

    Args:
        path: of either. read: takes a checkpoint's directory. missing: what is said where the run has none.

    Raises:
        CheckpointError: there is none, or it is corrupt.
    """
    if (path / "state.json").is_file():
        return read(path)
    while True:
        found = latest(path)
        if found is None:
            raise CheckpointError(f"{path}: {missing}")
        try:
            return read(found)
        except (CheckpointError, OSError):
            if found.exists():  # else a training that goes on has removed it meanwhile, and has newer ones
                raise


def _complete(directory: Path) -> dict[_Position, Path]:
    found = {}
    for path in directory.glob("epoch-*"):
        if match := _NAME.fullmatch(path.name):
            epoch, steps, updates = match.groups()
            found[_Position(int(epoch), int(steps or 0), int(updates or 0), steps is None)] = path
    return found


def save(
    run: Path,
    epoch: int,
    tensors: dict[str, dict[str, Tensor]],
    state: dict[str, Any],
    replay: Replay | Replays,
    unplanned: tuple[int, int] | None = None,
    others: Callable[[Path], list[dict[str, Any]]] | None = None,
) -> Path:
    """Write a checkpoint and remove those that it makes superfluous.

    The directory appears under its final name only when every byte is on the disk, so a killed or failing
    writer (a full disk included) leaves the checkpoints before it as they were.

    Args:
        run: the run directory. epoch: epochs finished.
        tensors: file stem to tensors by name. state: JSON values. replay: what the run remembers.
            What `run_replay.load` needs of it stands in the state as "replay".
        unplanned: steps of each actor and updates of the epoch that is going on; None for a planned checkpoint.
        others: called with the directory when the first learner's files are in it: lets the other learners `save_part`
            there, and returns what they did, to stand in the state as "ranks".
    """
    directory = run / "checkpoints"
    name = f"epoch-{epoch:06d}" + ("" if unplanned is None else f"-{unplanned[0]}-{unplanned[1]}")
    final, partial, aside = directory / name, directory / f".{name}.partial", directory / f".{name}.replaced"
    for left in (*directory.glob(".*.partial"), *directory.glob(".*.replaced")):  # by a writer that was killed
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for stem, group in tensors.items():
            save_file({k: v.detach().contiguous() for k, v in group.items()}, partial / f"{stem}.safetensors")
        saved = run_replay.save(replay, partial)
        if others is not None:
            state = {**state, "ranks": others(partial)}
        files = {path.name: _fingerprint(path) for path in sorted(partial.iterdir())}
        document = {"format": FORMAT, "epoch": epoch, "unplanned": unplanned, "files": files, "replay": saved, **state}
        (partial / "state.json").write_bytes(signed(document))
        for path in (*partial.iterdir(), partial):
            sync(path)
        if final.exists():
            os.rename(final, aside)
        os.rename(partial, final)
        sync(directory)
        shutil.rmtree(aside, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"{final}: could not be written ({error}); earlier checkpoints are untouched, free some space and "
            f"continue with: {resume_command(run)}"
        ) from error
    found = _complete(directory)
    planned = sorted(each for each in found if each.planned)
    for superfluous in (*planned[:-KEEP], *(each for each in found if not each.planned and each != max(found))):
        shutil.rmtree(found[superfluous])
    return final


def save_part(
    partial: Path, rank: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], replay: Replay
) -> dict[str, Any]:
    """Write the files of a learner but the first, which finishes the checkpoint; returns what it notes of this one."""
    try:
        for stem, group in tensors.items():
            save_file({k: v.detach().contiguous() for k, v in group.items()}, partial / f"{stem}-{rank}.safetensors")
        return {"replay": run_replay.save(replay, partial, rank), **state}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{partial}: could not be written by rank {rank} ({error})") from error


def resume_command(run: Path) -> str:
    """What continues a run, for a shell."""
    return f"twohot train --resume {shlex.quote(str(run))}"


def signed(document: dict[str, Any]) -> bytes:
    """A state as JSON whose last entry is the CRC-32 of all that stands before it."""
    body = json.dumps(document, indent=1).encode().removesuffix(b"\n}")
    return body + b',\n "crc32": "%08x"\n}\n' % zlib.crc32(body)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """state.json of a checkpoint, after it and every file have been compared with their checksums.

    Raises:
        CheckpointError: naming the file that is missing, truncated or changed, and what to do.
    """
    path = checkpoint / "state.json"
    if not path.is_file():
        raise CheckpointError(f"{checkpoint}: not a checkpoint (it has no state.json); {_advice(checkpoint)}")
    data = path.read_bytes()
    try:
        state = parse_json(data)
        version = state["format"]
    except (ValueError, KeyError, TypeError):
        version = FORMAT  # whatever it is, it has not its checksum
    if version == 1:
        raise CheckpointError(
            f"{checkpoint}: format 1, of version 0.1, whose state has no checksum; where nothing has changed it, add "
            f"one with: python -m twohot.runs.checkpoint {shlex.quote(str(checkpoint))}"
        )
    if version != FORMAT:
        raise CheckpointError(
            f"{checkpoint}: format {version!r}, this version reads {FORMAT}: use the version that wrote it, or "
            "start a new run"
        )
    signed = _SIGNED.fullmatch(data)
    if signed is None or zlib.crc32(signed[1]) != int(signed[2], 16):
        raise CheckpointError(f"{path}: corrupt (it lacks its own CRC-32); {_advice(checkpoint)}")
    with reading(checkpoint):
        for name, expected in state["files"].items():
            if name != Path(name).name or not name.endswith(".safetensors"):
                raise CheckpointError(f"{path}: expected names of safetensors files, got {name!r}")
            path = checkpoint / name
            found = _fingerprint(path) if path.is_file() else {"bytes": 0, "crc32": 0}
            if found != expected:
                raise CheckpointError(
                    f"{path}: corrupt (expected {expected['bytes']} bytes with CRC-32 {expected['crc32']:08x}, found "
                    f"{found['bytes']} with {found['crc32']:08x}); {_advice(checkpoint)}"
                )
    return state


def sign(checkpoint: Path) -> None:
    """Make a checkpoint of format 1, whose state has no checksum, one of this format.

    Raises:
        CheckpointError: for a checkpoint of another format.
    """
    path = checkpoint / "state.json"
    with reading(checkpoint):
        state = parse_json(path.read_bytes())
        if state["format"] != 1 or "crc32" in state:
            raise CheckpointError(f"{checkpoint}: expected format 1, got {state['format']!r}; it is as it was")
    with atomic_write(path) as partial:
        partial.write_bytes(signed({"unplanned": None, "continued": [], **state, "format": FORMAT}))


@contextmanager
def reading(checkpoint: Path) -> Iterator[None]:
    """Within, what does not fit together in a checkpoint is a CheckpointError that says what to do."""
    try:
        yield
    except (*MISFITS, SafetensorError) as error:
        if isinstance(error, TwohotError):
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(f"{checkpoint}: cannot be read ({what}); {_advice(checkpoint)}") from error


def _advice(checkpoint: Path) -> str:
    """How to go on without a checkpoint."""
    others = _complete(checkpoint.parent)
    mine = [position for position, path in others.items() if path == checkpoint]
    before = max((position for position in others if mine and position < mine[0]), default=None)
    which = "or from the beginning where there is none" if before is None else others[before].name
    return f"remove {shlex.quote(str(checkpoint))} to continue from the one before it, {which}"


def count(state: dict[str, Any], name: str) -> int:
    """A counter of a state. Raises ValueError for anything but a whole number from 0 on."""
    value = state[name]
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{name}: expected a whole number from 0 on, got {value!r}")
    return value


def read_tensors(checkpoint: Path, stem: str) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint, on the CPU."""
    return load_file(checkpoint / f"{stem}.safetensors")


def load_module(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put parameters and buffers back. Raises ValueError for one missing, one too many, and another shape or dtype."""
    current = module.state_dict()
    require_alike(tensors, {name: (value.shape, value.dtype) for name, value in current.items()})
    module.load_state_dict(tensors)


def require_same(saved: dict[str, Any], current: dict[str, Any], free: frozenset[str]) -> None:
    """Raise when two configurations differ in a setting whose dotted path is not in `free`, naming the first."""
    for path, a, b in differences(saved, current, free):
        raise CheckpointError(
            f"the checkpoint was made with {path} = {a!r}, this run has {b!r}: continue it with its own "
            "configuration, or start a new run"
        )


def differences(
    one: dict[str, Any], other: dict[str, Any], free: frozenset[str], where: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Dotted path and both values of each setting, if it is not in `free`, in which two configurations differ."""
    for key in sorted(set(one) | set(other)):
        path, a, b = f"{where}{key}", one.get(key), other.get(key)
        if path in free or a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, free, f"{path}.")
        elif not (isinstance(a, list | tuple) and isinstance(b, list | tuple) and list(a) == list(b)):
            yield path, a, b


def _fingerprint(path: Path) -> dict[str, int]:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            crc = zlib.crc32(chunk, crc)
    return {"bytes": path.stat().st_size, "crc32": crc}


if __name__ == "__main__":
    try:
        for given in sys.argv[1:] or sys.exit("usage: python -m twohot.runs.checkpoint CHECKPOINT..."):
            sign(Path(given))
    except (CheckpointError, OSError) as error:
        sys.exit(f"twohot: {error}")
