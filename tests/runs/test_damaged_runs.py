"""Corrupt and hostile files of a run: each ends in one sentence, wherever it is read."""

from __future__ import annotations

import copy
import json
import math
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import twohot.errors
from small import quiet, with_epochs
from twohot import Agent
from twohot.cli import main as cli
from twohot.config import TrainConfig
from twohot.config.files import from_json, to_json
from twohot.errors import CorruptRunError, TwohotError
from twohot.reports.evaluation import evaluation_section
from twohot.reports.report import write_report
from twohot.reports.results import read_run
from twohot.runs import checkpoint
from twohot.runs.checkpoint import CheckpointError
from twohot.training.epoch import Epoch
from twohot.training.train import Session, resume, train

EPOCHS = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(with_epochs(EPOCHS), run, quiet())
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy of a trained run; to resume it is to restore it, and no more."""
    monkeypatch.setattr(Session, "loop", lambda self, *how: None)
    return Path(shutil.copytree(whole, tmp_path / "run"))


def read(run: Path) -> None:
    """What a report reads, without the figures."""
    evaluation_section(read_run(run).evaluation)


READERS: dict[str, Callable[[Path], Any]] = {
    "resume": lambda run: resume(run, quiet(), epochs=EPOCHS + 1),
    "act": Agent.from_checkpoint,
    "report": read,
}


def sentence(read: Callable[[], Any]) -> str:
    """What an error for a user's eyes says; empty where there is none."""
    try:
        read()
    except (TwohotError, OSError) as error:
        return str(error)
    return ""


WHO_READS = {
    "config.json": ("resume", "report"),
    "run.json": ("resume", "report"),
    "metrics.jsonl": ("report",),
    "evaluation.json": ("report",),
    "checkpoints/epoch-000002/state.json": ("resume", "act"),
    "checkpoints/epoch-000002/agent.safetensors": ("resume", "act"),
    "checkpoints/epoch-000002/optimizer.safetensors": ("resume", "act"),
    "checkpoints/epoch-000002/random.safetensors": ("resume", "act"),
    "checkpoints/epoch-000002/replay.safetensors": ("resume", "act"),
}


def place_of(data: bytes) -> int:
    return len(data) // 2


INFINITE = b'{"a": 1e999}\n'
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: place_of(data)],
    "zeros": lambda data: bytes(len(data)),
    "not UTF-8": lambda data: b"\xff\xfe" + data,
    "a byte amidst": lambda data: data[: place_of(data)] + b"\x00" + data[place_of(data) :],
    "nested": lambda data: b"[" * 100_000,
    "nested objects": lambda data: b'{"a":' * 500 + b"1" + b"}" * 500 + b"\n",
    "another kind": lambda data: b"[1, 2]\n",
    "a text": lambda data: b'"\\ud800"\n',
    "infinite": lambda data: re.sub(rb'"trials": \d+', b'"trials": 1e999', data) if b'"trials"' in data else INFINITE,
    "a huge header": lambda data: (2**62).to_bytes(8, "little") + data[8:],
}


BENIGN = {*(("metrics.jsonl", damage) for damage in ("empty", "half", "zeros", "nested")), ("config.json", "infinite")}
"""A last row without its end is a torn one, and a configuration may hold an infinity."""


def test_the_old_name_of_the_error_warns() -> None:
    with pytest.warns(DeprecationWarning, match="DamagedRunError is now CorruptRunError; 0.3 drops the old name"):
        assert twohot.errors.DamagedRunError is CorruptRunError


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", WHO_READS)
def test_a_corrupt_file_ends_in_one_sentence(run: Path, name: str, damage: str) -> None:
    file = run / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    for reader in WHO_READS[name]:
        said = sentence(lambda reader=reader: READERS[reader](run))
        assert "\n" not in said
        assert said or (name, damage) in BENIGN


@pytest.mark.parametrize("name", WHO_READS)
def test_what_is_no_file_ends_in_one_sentence(run: Path, name: str) -> None:
    file = run / name
    for make in (file.mkdir, lambda: file.symlink_to("nowhere"), lambda: os.mkfifo(file)):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
        make()
        for reader in WHO_READS[name]:
            sentence(lambda reader=reader: READERS[reader](run))  # of run.json and evaluation.json there may be none


def test_every_flipped_bit_of_a_state_is_noticed(run: Path) -> None:
    path = run / "checkpoints/epoch-000002"
    good = (path / "state.json").read_bytes()
    generator = random.Random(0)
    for bit in (*generator.sample(range(8 * len(good)), 300), *range(8 * len(good) - 8 * 24, 8 * len(good))):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        (path / "state.json").write_bytes(flipped)
        with pytest.raises(CheckpointError):
            checkpoint.read_state(path)


@pytest.mark.parametrize("stem", ["agent", "optimizer", "random", "replay"])
def test_every_flipped_bit_of_another_file_is_noticed(run: Path, stem: str) -> None:
    file = run / f"checkpoints/epoch-000002/{stem}.safetensors"
    good = file.read_bytes()
    for bit in random.Random(1).sample(range(8 * len(good)), 20):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=f"{stem}.safetensors: corrupt .* or from the beginning"):
            checkpoint.read_state(file.parent)


def places(value: Any, before: tuple = ()) -> Iterator[tuple]:
    """The path of every value within a JSON value; of a list, of the first two."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*before, key)
        yield from places(inner, (*before, key))


ODD = [None, True, -1, 2**70, 10**400, 1e300, "x", "\ud800", [], {}, [[]], {"a": 1}, [1, 2, 3], "../../etc/passwd", 0]
LACKING = object()


def with_value(document: Any, place: tuple, value: Any) -> Any:
    document = copy.deepcopy(document)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    if value is LACKING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return document


@pytest.mark.parametrize("name", ["run.json", "evaluation.json", "config.json", "checkpoints/epoch-000002/state.json"])
def test_odd_values_anywhere_end_in_one_sentence_at_most(run: Path, name: str) -> None:
    """Some of them a run may well hold; none is a traceback. A state has its checksum, as if it were meant."""
    file, state = run / name, name.endswith("state.json")
    document = json.loads(file.read_bytes())
    document.pop("crc32", None)
    odd = [(place, value) for place in places(document) for value in (*ODD, LACKING)]
    for place, value in random.Random(2).sample(odd, min(len(odd), 150)):
        changed = with_value(document, place, value)
        file.write_bytes(checkpoint.signed(changed) if state else json.dumps(changed).encode())
        for reader in WHO_READS[name]:
            assert "\n" not in sentence(lambda reader=reader: READERS[reader](run)), (place, value)


UNPLANNED = {"steps": 60, "updates": 2, "sums": {"loss/total": torch.tensor(3.0)}}
"""As of an epoch in which two updates were looked at."""
CURRENT = {
    "trials": [[0, 1, False, [0.5], [13], [False]]],
    "counts": {"loss/total": 2},
    "clock": {"collect": 0.5, "sample": 0.1, "update": 0.2},
    "seconds": 0.8,
}


@pytest.mark.parametrize(
    "changed",
    [
        *({name: value} for name in ("steps", "updates") for value in (-1, 0.5, "x", None, True)),
        *({"counts": {"loss/total": value}} for value in (0, 3, -1, 2**70, "x", None)),
        {"counts": {}},
        {"sums": {"loss/another": torch.tensor(1.0)}, "counts": {"loss/another": 1}},
        {"sums": {"loss/total": torch.tensor(float("nan"))}},
        {"sums": {"loss/total": torch.ones(3)}},
        *({"clock": {"collect": 1.0, "update": value}} for value in (0, -1, 5e-324, "x", None)),
        *({"trials": [[0, 1, False, *arrays]]} for arrays in (([0.5], [13]), (["x"], [1], [True]))),
        {"trials": [[0, 1, False, [0.5], [13], [False]], [1, 1, False, [0.5, 1.0], [13, 14], [False, True]]]},
    ],
    ids=str,
)
def test_an_epoch_that_cannot_end_is_refused_where_it_is_read(changed: dict[str, Any]) -> None:
    def read(changed: dict[str, Any]) -> Epoch:
        given, current = UNPLANNED | changed, CURRENT | changed
        return Epoch.from_json(current, given["steps"], given["updates"], given["sums"], with_epochs(1).environment)

    assert read({}).means() == {"loss/total": 1.5}
    with pytest.raises((KeyError, TypeError, ValueError)):
        read(changed)


@pytest.mark.parametrize("value", [-1, 0.5, True, None, "1", 2**63])
def test_a_counter_is_a_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match="updates: expected a whole number from 0 on, got"):
        checkpoint.count({"updates": value}, "updates")


@pytest.mark.parametrize("name", ["../run/x.safetensors", "/etc/passwd", "agent.safetensors/..", "x", ""])
def test_a_state_names_files_of_its_own_directory_only(run: Path, name: str) -> None:
    path = run / "checkpoints/epoch-000002"
    state = json.loads((path / "state.json").read_text())
    del state["crc32"]
    state["files"][name] = {"bytes": 1, "crc32": 1}
    (path / "state.json").write_bytes(checkpoint.signed(state))
    with pytest.raises(CheckpointError, match="expected names of safetensors files"):
        checkpoint.read_state(path)


@pytest.mark.parametrize("change", ["shape", "dtype", "missing", "more"])
@pytest.mark.parametrize("stem", ["agent", "optimizer"])
def test_tensors_that_do_not_fit_are_named(run: Path, stem: str, change: str) -> None:
    path = run / "checkpoints/epoch-000002"
    file = path / f"{stem}.safetensors"
    tensors = checkpoint.read_tensors(path, stem)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    value = tensors.pop(name)
    tensors |= {
        "shape": {name: value[:1].clone()},
        "dtype": {name: value.double()},
        "more": {name: value, "9999.step": value.clone()},
    }.get(change, {})
    tensors |= {"9999.step": value.clone()} if change == "more" else {}
    checkpoint.save_file(tensors, file)
    state = json.loads((path / "state.json").read_text())
    del state["crc32"]
    state["files"][file.name] = checkpoint._fingerprint(file)
    (path / "state.json").write_bytes(checkpoint.signed(state))
    with pytest.raises(CheckpointError, match=r"cannot be read \(ValueError: (tensor|parameter) .*; remove"):
        READERS["resume"](run)


def test_another_format_is_refused_by_its_number(run: Path) -> None:
    (run / "checkpoints/epoch-000002/state.json").write_text('{"format": 3, "files": {}}')
    with pytest.raises(CheckpointError, match="format 3, this version reads 2"):
        Agent.from_checkpoint(run)


def test_the_format_of_before_is_signed_and_then_read(run: Path) -> None:
    """Its state has no checksum and is that of a planned checkpoint."""
    path = run / "checkpoints/epoch-000002"
    state = json.loads((path / "state.json").read_text()) | {"format": 1}
    for name in ("unplanned", "continued", "crc32"):
        del state[name]
    (path / "state.json").write_text(json.dumps(state, indent=1))
    for name in ("resume", "act"):
        said = sentence(lambda read=READERS[name]: read(run))
        assert said.endswith(f"add one with: python -m twohot.runs.checkpoint {path}")
    checkpoint.sign(path)
    for name in ("resume", "act"):
        READERS[name](run)
    with pytest.raises(CheckpointError, match="expected format 1, got 2; it is as it was"):
        checkpoint.sign(path)


@pytest.mark.parametrize("line", [b'{"kind": "update"}', b"\xff", b"[" * 100_000, b"{}", b""])
def test_a_whole_last_row_that_is_none_is_no_torn_one(run: Path, line: bytes) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(TwohotError, match=r"metrics\.jsonl, line \d+, is not a metrics row"):
        read_run(run)


@pytest.mark.parametrize("value", [1e308, -1e308, 5e-324, 0, 2**62])
def test_numbers_at_the_ends_of_their_range_are_drawn(run: Path, value: float) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row["metrics"] = {
            name: [value] * len(old) if isinstance(old, list) else value for name, old in row["metrics"].items()
        }
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report(run)


def test_the_command_line_says_it_in_one_line(run: Path, capsys) -> None:
    (run / "evaluation.json").write_text('{"tasks": [{"kind": "evaluation"}]}')
    assert cli.main(["report", str(run)]) == 1
    (run / "checkpoints/epoch-000002/state.json").write_bytes(b"\xff")
    assert cli.main(["train", "--resume", str(run)]) == 1
    assert cli.main(["evaluate", str(run)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("twohot: ") for line in lines] == [True] * 3


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), -1, 2**70, 10**400, -1e300])
def test_numbers_that_no_configuration_may_have(number: float) -> None:
    """A float setting takes no NaN, and no setting takes what cannot be counted."""
    document = json.loads(json.dumps(to_json(TrainConfig())))
    for place in places(document):
        if type(_at(document, place)) in (int, float):
            changed = with_value(document, place, number)
            said = sentence(lambda changed=changed: from_json(TrainConfig, changed))
            assert said or not (math.isnan(number) or (isinstance(number, int) and number >= 2**63)), place
            assert "\n" not in said


def _at(document: Any, place: tuple) -> Any:
    for key in place:
        document = document[key]
    return document
