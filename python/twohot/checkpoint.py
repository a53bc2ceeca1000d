"""Checkpoints: a directory of safetensors and JSON, complete or absent, checked before it is read.

checkpoints/epoch-000010/
    agent.safetensors  optimizer.safetensors  random.safetensors
    replay.safetensors where the replay is in memory
    state.json         counters, configuration, and the size and CRC-32 of each file
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from twohot import run_replay
from twohot.errors import TwohotError
from twohot.files import sync
from twohot.replay import Replay

FORMAT = 1
KEEP = 2


class CheckpointError(TwohotError, ValueError):
    """A checkpoint that is missing, damaged, or made with another configuration."""


def latest(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    found = _complete(run / "checkpoints")
    return found[-1] if found else None


def _complete(directory: Path) -> list[Path]:
    """Checkpoints by epoch, oldest first."""
    named = [path for path in directory.glob("epoch-*") if path.name.removeprefix("epoch-").isdecimal()]
    return sorted(named, key=lambda path: int(path.name.removeprefix("epoch-")))


def save(run: Path, epoch: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], replay: Replay) -> Path:
    """Write a checkpoint and remove all but the newest two.

    The directory appears under its final name only when every byte is on the disk, so a killed or failing
    writer (a full disk included) leaves the checkpoints before it as they were.

    Args:
        run: the run directory. epoch: epochs finished.
        tensors: file stem to tensors by name. state: JSON values. replay: what the run remembers.
            What `run_replay.load` needs of it stands in the state as "replay".
    """
    directory = run / "checkpoints"
    final, partial = directory / f"epoch-{epoch:06d}", directory / f".epoch-{epoch:06d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for stem, group in tensors.items():
            save_file({k: v.detach().contiguous() for k, v in group.items()}, partial / f"{stem}.safetensors")
        saved = run_replay.save(replay, partial)
        files = {path.name: _fingerprint(path) for path in sorted(partial.iterdir())}
        document = {"format": FORMAT, "epoch": epoch, "files": files, "replay": saved, **state}
        (partial / "state.json").write_text(json.dumps(document, indent=1))
        for path in (*partial.iterdir(), partial):
            sync(path)
        aside = directory / f".{final.name}.replaced"
        shutil.rmtree(aside, ignore_errors=True)
        if final.exists():
            os.rename(final, aside)
        os.rename(partial, final)
        sync(directory)
        shutil.rmtree(aside, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"{final}: could not be written ({error}); earlier checkpoints are untouched, free some space and "
            f"continue with: twohot train --resume {run}"
        ) from error
    for old in _complete(directory)[:-KEEP]:
        shutil.rmtree(old)
    return final


def read_state(checkpoint: Path) -> dict[str, Any]:
    """state.json of a checkpoint, after every file has been checked against it.

    Raises:
        CheckpointError: naming the file that is missing, truncated or changed, and what to do.
    """
    advice = f"remove {checkpoint} to continue from the one before it, if there is one"
    try:
        state = json.loads((checkpoint / "state.json").read_text())
        files = state["files"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        raise CheckpointError(f"{checkpoint}: not a checkpoint (state.json is missing or damaged); {advice}") from None
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{checkpoint}: format {state.get('format')!r}, this version reads {FORMAT}")
    for name, expected in files.items():
        path = checkpoint / name
        found = _fingerprint(path) if path.is_file() else {"bytes": 0, "crc32": 0}
        if found != expected:
            raise CheckpointError(
                f"{path}: damaged (expected {expected['bytes']} bytes with CRC-32 {expected['crc32']:08x}, found "
                f"{found['bytes']} with {found['crc32']:08x}); {advice}"
            )
    return state


def read_tensors(checkpoint: Path, stem: str) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint, on the CPU."""
    return load_file(checkpoint / f"{stem}.safetensors")


def require_same(saved: dict[str, Any], current: dict[str, Any], free: frozenset[str], where: str = "") -> None:
    """Raise when two configurations differ in a setting whose dotted path is not in `free`, naming the first."""
    for key in sorted(set(saved) | set(current)):
        path = f"{where}{key}"
        a, b = saved.get(key), current.get(key)
        if path in free or a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            require_same(a, b, free, f"{path}.")
            continue
        if isinstance(a, list | tuple) and isinstance(b, list | tuple) and list(a) == list(b):
            continue
        raise CheckpointError(
            f"the checkpoint was made with {path} = {a!r}, this run has {b!r}: continue it with its own "
            "configuration, or start a new run"
        )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts of every parameter, by "<index>.<name>"."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _fingerprint(path: Path) -> dict[str, int]:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            crc = zlib.crc32(chunk, crc)
    return {"bytes": path.stat().st_size, "crc32": crc}
