"""W&B (offline) and trackio themselves, where they are installed; `test_writers.py` has what they are told."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import twohot
from small import with_epochs

pytestmark = pytest.mark.filterwarnings("default")  # theirs


def scalars(run: twohot.Run) -> list[dict]:
    """What each row comes to."""
    return [
        {"environment_steps": row.environment_steps, "updates": row.updates, "seconds": row.seconds}
        | {name: value for name, value in row.metrics.items() if not isinstance(value, list)}
        for row in run.rows
    ]


def trained_and_resumed(run: Path, writer: str) -> twohot.Run:
    """Two epochs, and then one more."""
    callbacks = [lambda end: {"epoch": end.epoch}]
    twohot.train(with_epochs(2), run=run, writers=[writer], callbacks=callbacks, quiet=True)
    return twohot.train(resume=run, epochs=3, writers=[writer], callbacks=callbacks, quiet=True)


def records(path: Path) -> Iterator[bytes]:
    """The records of a file of W&B's: seven bytes, then LevelDB's log format in blocks of 32 KiB."""
    data, at, parts = path.read_bytes(), 7, b""
    while at < len(data):
        left = 2**15 - at % 2**15
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def test_wandb_offline(tmp_path: Path, monkeypatch) -> None:
    wandb = pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    run = trained_and_resumed(tmp_path / "run", "wandb")
    wandb.teardown()  # its other process writes the last records when it ends
    logged, begun, exits = [], [], []
    for file in sorted((run.path / "wandb").glob("offline-run-*/*.wandb")):
        for data in records(file):
            record = Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                begun.append(record.run)
            elif kind == "exit":
                exits.append(record.exit.exit_code)
            elif kind == "history":
                items = {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
                }
                logged.append({name: value for name, value in items.items() if not name.startswith("_")})
    assert logged == scalars(run)
    assert exits == [0, 0]
    assert {(each.run_id, each.project, each.display_name) for each in begun} == {(begun[0].run_id, "twohot", "run")}
    config = {each.key: json.loads(each.value_json) for each in begun[-1].config.update if each.key != "_wandb"}
    assert config == json.loads((run.path / "config.json").read_text())


def test_trackio_in_its_local_database(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    run = trained_and_resumed(tmp_path / "run", "trackio")
    (name,) = SQLiteStorage.get_runs("twohot")
    logged = [
        {key: value for key, value in entry.items() if key not in ("timestamp", "step")}
        for entry in SQLiteStorage.get_logs("twohot", name)
    ]
    assert logged == scalars(run)
