"""Checkpoints: complete or absent, checked before they are read."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from twohot.replay import Field, Replay, Schema
from twohot.runs import checkpoint
from twohot.runs.checkpoint import CheckpointError


@pytest.fixture
def replay() -> Replay:
    return Replay.create(Schema(observation={"x": Field("float32", (2,))}, action=Field("int32")), capacity_steps=10)


def write(run: Path, epoch: int, replay: Replay) -> Path:
    return checkpoint.save(run, epoch, {"agent": {"w": torch.full((3,), float(epoch))}}, {"answer": 42}, replay)


def test_round_trip_and_only_the_newest_two_stay(tmp_path: Path, replay: Replay) -> None:
    assert checkpoint.latest(tmp_path) is None
    for epoch in (1, 2, 3):
        path = write(tmp_path, epoch, replay)
    assert checkpoint.latest(tmp_path) == path
    assert sorted(p.name for p in path.parent.iterdir()) == ["epoch-000002", "epoch-000003"]
    state = checkpoint.read_state(path)
    assert (state["answer"], state["epoch"]) == (42, 3)
    assert checkpoint.read_tensors(path, "agent")["w"].tolist() == [3.0] * 3


@pytest.mark.parametrize("name", ["agent.safetensors", "replay.safetensors"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damage_is_named(tmp_path: Path, replay: Replay, name: str, damage: str) -> None:
    file = write(tmp_path, 1, replay) / name
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        data[-1] ^= 1
        file.write_bytes(data if damage == "flip" else data[:-1])
    with pytest.raises(CheckpointError, match=rf"{name}: corrupt .* remove .* to continue from the one before"):
        checkpoint.read_state(file.parent)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"files": {}}', '{"format": 99, "files": {}}'])
def test_a_foreign_or_torn_state_is_refused(tmp_path: Path, replay: Replay, text: str | None) -> None:
    path = write(tmp_path, 1, replay)
    (path / "state.json").unlink() if text is None else (path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=str(path)):
        checkpoint.read_state(path)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, replay: Replay, monkeypatch) -> None:
    first = write(tmp_path, 1, replay)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(replay, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left .* earlier checkpoints are untouched"):
        write(tmp_path, 2, replay)
    assert [path.name for path in first.parent.iterdir()] == [first.name]
    checkpoint.read_state(first)


def test_an_unfinished_write_is_no_checkpoint(tmp_path: Path, replay: Replay) -> None:
    first = write(tmp_path, 1, replay)
    (first.parent / ".epoch-000002.partial").mkdir()
    assert checkpoint.latest(tmp_path) == first
    assert write(tmp_path, 2, replay).is_dir()
    assert not (first.parent / ".epoch-000002.partial").exists()


def test_another_configuration_is_refused_by_name() -> None:
    saved = {"epochs": 1, "agent": {"width": 8, "heads": 2}, "tasks": ("a", "b")}
    checkpoint.require_same(saved, {"epochs": 9, "agent": {"width": 8, "heads": 2}, "tasks": ["a", "b"]}, {"epochs"})
    with pytest.raises(CheckpointError, match=r"agent\.width = 8, this run has 16"):
        checkpoint.require_same(saved, {**saved, "agent": {"width": 16, "heads": 2}}, frozenset())
    with pytest.raises(CheckpointError, match="tasks"):
        checkpoint.require_same(saved, {**saved, "tasks": ["a"]}, frozenset())


def test_files_hold_no_code(tmp_path: Path, replay: Replay) -> None:
    path = write(tmp_path, 1, replay)
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}
    json.loads((path / "state.json").read_text())
