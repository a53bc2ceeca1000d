"""Random sequences of calls on a replay in a directory, in several hands, against a Python model."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from native_model import DirectoryModel
from twohot.replay import Field, Replay, Schema

SCHEMA = Schema({"value": Field("int32", (3,))}, Field("int32"), {"more": Field("uint8")})
CAPACITY = 30


def columns(number, length):
    steps = number * 100 + np.arange(length, dtype=np.int32)
    return {
        "observation": {"value": np.repeat(number * 100 + np.arange(length + 1, dtype=np.int32), 3).reshape(-1, 3)},
        "action": steps,
        "reward": np.full(length, number, np.float32),
        "terminated": steps == steps[-1],
        "truncated": np.zeros(length, bool),
        "step": {"more": (steps % 251).astype(np.uint8)},
        "task": number,
    }


class DirectoryMachine(RuleBasedStateMachine):
    """An owner that appends and evicts, one that only writes, and readers; the task of a trajectory is its number."""

    @initialize(on_disk=st.booleans(), segment_bytes=st.sampled_from([300, 2000, 1 << 20]))
    def create(self, on_disk, segment_bytes):
        self.place = Path(tempfile.mkdtemp()) / "replay" if on_disk else None
        self.options = {"segment_bytes": segment_bytes, "threads": 1}
        self.replay = Replay.create(SCHEMA, capacity_steps=CAPACITY, seed=1, directory=self.place, **self.options)
        self.model, self.other, self.number = DirectoryModel(CAPACITY), None, 0

    def teardown(self):
        if getattr(self, "place", None) is not None:
            shutil.rmtree(self.place.parent)

    def next(self, length):
        self.number += 1
        return columns(self.number, length)

    @rule(length=st.integers(1, 12), protect=st.sampled_from([False, False, False, True]))
    def add(self, length, protect):
        trajectory = self.next(length)
        if self.model.takes(length):
            self.replay.add(**trajectory, protect=protect)
            self.model.add(self.number, length, protect)
        else:
            with pytest.raises(ValueError, match="does not fit beside the protected ones"):
                self.replay.add(**trajectory, protect=protect)

    @rule(length=st.integers(1, 12), cut=st.booleans())
    def write(self, length, cut):
        if not self.model.takes(length):
            return
        trajectory = self.next(length)
        writer = self.replay.writer(1)
        value, flags = trajectory["observation"]["value"], np.zeros(1, bool)
        writer.begin({"value": value[:1]}, task=np.full(1, self.number, np.int32))
        for t in range(length):
            ends = np.full(1, t + 1 == length and not cut)
            rows = (trajectory["action"][t : t + 1], trajectory["reward"][t : t + 1], ends, flags)
            writer.append(*rows, {"value": value[t + 1 : t + 2]}, step={"more": trajectory["step"]["more"][t : t + 1]})
        writer.cut()
        self.model.add(self.number, length, False)

    @precondition(lambda self: self.place is not None)
    @rule(length=st.integers(1, 12))
    def write_elsewhere(self, length):
        if self.other is None:
            self.other = Replay.open(self.place, "write", **self.options)
        self.other.add(**self.next(length))
        self.replay.refresh()
        self.model.add(self.number, length, False)

    @precondition(lambda self: self.other is not None)
    @rule()
    def close_elsewhere(self):
        self.other.close()
        self.other = None

    @precondition(lambda self: self.place is not None)
    @rule()
    def reopen(self):
        """What was evicted may come back with files that were not removed yet, as the oldest."""
        self.replay.close()
        with pytest.raises(RuntimeError, match="closed"):
            self.replay.stats()
        self.replay = Replay.open(self.place, "append", seed=1, **self.options)
        numbers = self.replay.tasks().tolist()
        assert self.model.has_read(numbers)
        self.model.reopen(numbers)

    @precondition(lambda self: self.place is not None)
    @rule()
    def read(self):
        with Replay.open(self.place) as reader:
            assert reader.verify() == []
            assert self.model.has_read(reader.tasks().tolist())
            with pytest.raises(RuntimeError, match="opened for reading"):
                reader.add(**columns(1, 1))

    @precondition(lambda self: self.place is not None)
    @rule()
    def reclaim(self):
        assert self.replay.reclaim() >= 0

    @precondition(lambda self: self.model.numbers())
    @rule(data=st.data(), priority=st.sampled_from([0.0, 0.5, 3.0, 8.0]))
    def set_priority(self, data, priority):
        number = data.draw(st.sampled_from(self.model.numbers()))
        place = self.model.numbers().index(number)
        assert self.replay.set_priorities([self.replay.ids()[place], -7], [priority, 1.0]) == 1
        self.model.set_priority(number, priority)

    @precondition(lambda self: self.model.numbers())
    @rule(
        by=st.sampled_from(["trajectory", "step", "recency", "priority", "task"]),
        length=st.integers(1, 9),
        lookahead=st.integers(0, 2),
    )
    def sample(self, by, length, lookahead):
        if by == "priority" and not any(self.model.priorities()):
            with pytest.raises(RuntimeError, match="all priorities are 0"):
                self.replay.sample(1, 1, by=by)
            return
        batch = self.replay.sample(4, length, by=by, lookahead=lookahead)
        for b in range(4):
            number, start = int(batch.task[b]), int(batch.start[b])
            assert number in self.model.numbers()
            assert by != "priority" or self.model.priorities()[self.model.numbers().index(number)] > 0
            real = min(self.model.length(number) - start, length + lookahead)
            expected = number * 100 + start + np.arange(real + 1)
            assert batch.observation["value"][b, : real + 1, 2].tolist() == expected.tolist()
            assert batch.action[b, :real].tolist() == expected[:-1].tolist()
            assert batch.step["more"][b, :real].tolist() == (expected[:-1] % 251).tolist()
            assert not batch.observation["value"][b, real + 1 :].any()

    @invariant()
    def equal_contents(self):
        table = self.replay.table()
        assert table["task"].tolist() == self.model.numbers()
        assert table["length"].tolist() == [self.model.length(number) for number in self.model.numbers()]
        assert table["priority"].tolist() == self.model.priorities()
        assert table["protected"].tolist() == self.model.protected()
        assert len(set(table["id"])) == len(table["id"])


DirectoryMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestDirectoryMachine = DirectoryMachine.TestCase
