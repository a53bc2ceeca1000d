"""The names of 0.1, which work until 0.3 and say what they are called now."""

import numpy as np
import pytest

import twohot.errors
import twohot.replay
from twohot.replay import CorruptReplayError, Field, Mixture, Replay, Schema

SCHEMA = Schema(observation={"o": Field("float32", (2,))}, action=Field("int64"))


def filled(**options) -> Replay:
    replay = Replay.create(SCHEMA, capacity_steps=100, **options)
    ends = np.arange(5) == 4
    replay.add({"o": np.ones((6, 2), np.float32)}, np.zeros(5, np.int64), np.ones(5, np.float32), ends, ~ends & ends)
    return replay


def test_keywords():
    replay = filled()
    for source in (replay, Mixture([replay], [1])):
        with pytest.warns(
            DeprecationWarning, match="the argument ahead is now prefetch; 0.3 drops the old name"
        ) as caught:
            assert len(list(source.loader(2, 3, batches=3, ahead=1))) == 3
        assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="chunk_length"), pytest.warns(DeprecationWarning, match="overlap"):
        writer = replay.writer(1, piece_steps=3, overlap_steps=1)
    row, no = np.zeros(1, np.int64), np.zeros(1, bool)
    writer.begin({"o": np.ones((1, 2), np.float32)})
    for _ in range(3):
        writer.append(row, np.ones(1, np.float32), no, no, {"o": np.ones((1, 2), np.float32)})
    assert replay.lengths().tolist() == [5, 3]
    with pytest.raises(TypeError, match="ahead is the old name of prefetch; expected one of them, got both"):
        replay.loader(2, 3, batches=1, ahead=1, prefetch=1)


def test_corruption(tmp_path):
    for module in (twohot.errors, twohot.replay):
        with pytest.warns(DeprecationWarning, match="DamagedReplayError is now CorruptReplayError") as caught:
            assert module.DamagedReplayError is CorruptReplayError
        assert caught[0].filename == __file__
        with pytest.raises(AttributeError, match="no attribute 'Damaged'"):
            _ = module.Damaged
    filled(directory=tmp_path).close()
    data = next(tmp_path.glob("*.data"))
    data.write_bytes(b"no header" * 100)
    with pytest.raises(CorruptReplayError):
        Replay.open(tmp_path)
    with (
        pytest.warns(DeprecationWarning, match="the argument damage is now corrupt"),
        Replay.open(tmp_path, damage="skip") as replay,
    ):
        assert replay.stats().problems == 1


def test_compact(tmp_path):
    with (
        filled(directory=tmp_path) as replay,
        pytest.warns(DeprecationWarning, match="Replay.compact is now reclaim"),
    ):
        assert replay.compact() == 0
