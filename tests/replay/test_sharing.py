"""Directories in several hands: the format before, going back, what others remove, and making one twice."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from replay_crash import SCHEMA, columns
from twohot.replay import CorruptReplayError, Field, Replay, Schema

BEFORE = Path(__file__).with_name("format_2")


def narrow(number, length):
    """A trajectory of the directory that the format before has written, whose rows have two values."""
    value = columns(number, length)["observation"]["value"][:, :2]
    return columns(number, length) | {"observation": {"value": np.ascontiguousarray(value)}}


def contents(replay):
    """Numbers of the stored trajectories, each of which is as it was written."""
    assert replay.verify() == []
    table = replay.table()
    for trajectory, number, length in zip(table["id"], table["task"], table["length"], strict=True):
        stored, expected = replay.get(int(trajectory)), narrow(int(number), int(length))
        np.testing.assert_array_equal(stored["observation"]["value"], expected["observation"]["value"])
        np.testing.assert_array_equal(stored["action"], expected["action"])
    return table["task"].tolist()


@pytest.fixture
def before(tmp_path):
    return shutil.copytree(BEFORE, tmp_path / "replay")


def test_the_format_before_is_read_and_changed_by_nobody_who_reads(before):
    content = {path.name: path.read_bytes() for path in before.iterdir()}
    with Replay.open(before) as replay:
        assert contents(replay) == [101, 100, 200, 102]
        assert replay.ids().tolist() == [1, 0, 1 << 40, 2]
    assert {path.name: path.read_bytes() for path in before.iterdir()} == content


def test_the_format_before_goes_on_in_this_one(before):
    reader = Replay.open(before)
    with Replay.open(before, "append") as replay:
        assert json.loads((before / "replay.json").read_text())["format"] == "twohot.replay/3"
        replay.add(**narrow(103, 2))
    reader.refresh()
    with Replay.open(before) as fresh:
        assert contents(reader) == contents(fresh) == [101, 100, 200, 102, 103]
    position = {"00000000-00000000": 1, "00000001-00000000": 1}
    with Replay.open(before, "append", position=position) as replay:
        assert contents(replay) == [100, 200]
        replay.add(**narrow(104, 2))
    assert Replay.repair(before) == []
    reader.refresh()
    assert contents(reader) == [100, 200, 104]


def test_a_format_to_come_is_named(before):
    path = before / "replay.json"
    path.write_text(path.read_text().replace("twohot.replay/2", "twohot.replay/4"))
    with pytest.raises(CorruptReplayError, match=r"expected the format twohot.replay/3, got 'twohot.replay/4'"):
        Replay.open(before)


def test_going_back_is_for_who_may_write(tmp_path):
    replay = Replay.create(SCHEMA, capacity_steps=100, directory=tmp_path)
    replay.add(**columns(1, 2))
    position = replay.position()
    replay.add(**columns(2, 2))
    replay.close()
    with pytest.raises(ValueError, match='position: expected mode "append" or "write"'):
        Replay.open(tmp_path, position=position)
    with pytest.raises(ValueError, match="mode: expected one of"):
        Replay.open(tmp_path, "create")
    assert Replay.open(tmp_path).tasks().tolist() == [1, 2]
    assert Replay.open(tmp_path, "append", position=position).tasks().tolist() == [1]


def test_what_was_removed_is_an_error_with_a_sentence(tmp_path):
    """Until it refreshes, a reader has what it had; then it has what is there, and a loader goes on through both."""
    learner = Replay.create(SCHEMA, capacity_steps=100, directory=tmp_path, segment_bytes=3000)
    learner.add(**columns(1, 30))
    reader = Replay.open(tmp_path, capacity_steps=10_000)
    old = int(reader.ids()[0])
    batches = reader.loader(4, 5, batches=40)
    for number in range(2, 12):
        learner.add(**columns(number, 30))
        assert next(batches).mask.all()
    reader.refresh()
    assert set(learner.ids()) <= set(reader.ids())
    with pytest.raises(
        KeyError, match="is not stored: it never was, or it has left the replay, or its file was removed"
    ):
        reader.get(old)
    assert sum(batch.mask.all() for batch in batches) == 30
    assert reader.stats().steps == reader.lengths().sum()


def test_of_two_that_make_a_replay_one_has_it(tmp_path, monkeypatch):
    """Though both have seen that there was none."""
    monkeypatch.setattr("twohot.replay.store.exists", lambda directory: False)
    first = Replay.create(SCHEMA, capacity_steps=100, directory=tmp_path)
    with pytest.raises(FileExistsError, match="holds a replay already"):
        Replay.create(Schema({"x": Field("float32")}, Field("int32")), capacity_steps=100, directory=tmp_path)
    first.add(**columns(1, 2))
    assert Replay.open(tmp_path).tasks().tolist() == [1]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".data", ".journal", ".json"]


def test_a_new_replay_takes_in_no_trajectories_of_another(tmp_path):
    with Replay.create(SCHEMA, capacity_steps=100, directory=tmp_path) as replay:
        replay.add(**columns(1, 2))
    (tmp_path / "replay.json").unlink()
    with pytest.raises(FileExistsError, match="holds trajectories without a description"):
        Replay.create(SCHEMA, capacity_steps=100, directory=tmp_path)


def test_what_several_have_written_is_saved_and_loaded(tmp_path):
    schema = Schema({"x": Field("float32")}, Field("int32"))
    ends = np.array([True])
    with Replay.create(schema, capacity_steps=100, directory=tmp_path / "replay") as replay:
        for mode in ("append", "write"):
            with Replay.open(tmp_path / "replay", mode) as writer:
                writer.add({"x": np.zeros(2, np.float32)}, np.zeros(1, np.int32), np.ones(1, np.float32), ends, ~ends)
        replay.refresh()
        replay.save(tmp_path / "saved")
        loaded = Replay.load(tmp_path / "saved")
        assert loaded.ids().tolist() == replay.ids().tolist()
