"""Odd arguments of the replay: an error that says what was expected, and never a binding's list of signatures."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from twohot.replay import Field, Mixture, Replay, Schema
from twohot.reports.replay_plot import table

SCHEMA = Schema({"x": Field("float32", (2,))}, Field("int32"))
ERRORS = (TypeError, ValueError, KeyError, FileNotFoundError)
INTEGERS = (
    None,
    "3",
    b"3",
    1.5,
    2.0,
    float("nan"),
    float("inf"),
    True,
    np.True_,
    [3],
    (),
    {},
    2**64,
    -(2**64),
    np.array([3]),
)
"""Given where an integer is expected."""
TEXTS = (None, 3, 1.5, True, b"step", ["step"], "nonsense", "", np.array(["step", "step"]))
"""Given where one of a few words is expected."""


def columns(steps=4):
    last = np.arange(steps) == steps - 1
    return {
        "observation": {"x": np.ones((steps + 1, 2), np.float32)},
        "action": np.arange(steps, dtype=np.int32),
        "reward": np.ones(steps, np.float32),
        "terminated": last,
        "truncated": np.zeros(steps, bool),
    }


def filled():
    replay = Replay.create(SCHEMA, capacity_steps=100)
    for _ in range(3):
        replay.add(**columns())
    return replay


def state_of(replay):
    return replay.random_state.tolist(), replay.stats(), replay.table()["priority"].tolist()


def check(call, value):
    """Whether a call with an odd value ends in a sentence of ours."""
    try:
        call(value)
    except ERRORS as error:
        message = str(error)
        assert not re.search(r"incompatible|signature|__init__|_native|std::|object at 0x", message), message
        return len(message) > 10
    return False


ROWS = {"x": np.ones((2, 2), np.float32)}
FLAGS = np.zeros(2, bool)


def step(**changes):
    given = {
        "action": np.zeros(2, np.int32),
        "reward": np.ones(2, np.float32),
        "terminated": FLAGS,
        "truncated": FLAGS,
        "observation": ROWS,
    }
    return given | changes


def begun(replay):
    writer = replay.writer(2)
    writer.begin(ROWS)
    return writer


INTEGER_CALLS = {
    "capacity_steps": lambda r, v: Replay.create(SCHEMA, capacity_steps=v, capacity_bytes=-1 if v is None else None),
    "capacity_bytes": lambda r, v: Replay.create(SCHEMA, capacity_bytes=v),
    "capacity_trajectories": lambda r, v: Replay.create(SCHEMA, capacity_trajectories=v),
    "segment_bytes": lambda r, v: Replay.create(SCHEMA, capacity_steps=9, segment_bytes=v),
    "seed": lambda r, v: Replay.create(SCHEMA, capacity_steps=9, seed=v),
    "threads": lambda r, v: Replay.create(SCHEMA, capacity_steps=9, threads=v),
    "environments": lambda r, v: r.writer(v),
    "chunk_length": lambda r, v: r.writer(2, chunk_length=0 if v is None else v),
    "overlap": lambda r, v: r.writer(2, chunk_length=9, overlap=v),
    "task": lambda r, v: r.add(**columns(), task=v),
    "batch_size of batch": lambda r, v: r.batch(v, 3),
    "batch_size": lambda r, v: r.sample(v, 3),
    "length": lambda r, v: r.sample(3, v),
    "lookahead": lambda r, v: r.sample(3, 3, lookahead=v),
    "relabelled length": lambda r, v: r.sample(3, v, relabel=lambda drawn: None),
    "loader batch_size": lambda r, v: r.loader(v, 3, batches=1),
    "loader length": lambda r, v: r.loader(3, v, batches=1),
    "loader lookahead": lambda r, v: r.loader(3, 3, batches=1, lookahead=v),
    "batches": lambda r, v: r.loader(3, 3, batches=v),
    "prefetch": lambda r, v: r.loader(3, 3, batches=1, prefetch=v),
    "get": lambda r, v: r.get(v),
    "random_state": lambda r, v: setattr(r, "random_state", [v, 1, 1, 1]),
    "mixture seed": lambda r, v: Mixture([r], [1], seed=v),
    "mixture batch_size": lambda r, v: Mixture([r], [1]).sample(v, 3),
    "mixture length": lambda r, v: Mixture([r], [1]).sample(3, v),
    "mixture loader": lambda r, v: Mixture([r], [1]).loader(3, v, batches=1),
}


@pytest.mark.parametrize("name", INTEGER_CALLS)
def test_what_is_no_integer_in_range_is_refused(name):
    replay = filled()
    before = state_of(replay)
    for value in INTEGERS:
        assert check(lambda given: INTEGER_CALLS[name](replay, given), value), value
    assert state_of(replay) == before


OTHER_CALLS = {
    "by": (lambda r, v: r.sample(2, 2, by=v), TEXTS),
    "window": (lambda r, v: r.sample(2, 2, window=v), TEXTS),
    "pad": (lambda r, v: r.sample(2, 2, pad=v), TEXTS),
    "half_life": (
        lambda r, v: r.sample(2, 2, half_life=v),
        ("1", [1], True, np.nan, np.inf, -1, 0, 1j, np.array([1, 2])),
    ),
    "out": (lambda r, v: r.sample(2, 2, out=v), ({}, 3, "x", [])),
    "out of a mixture": (
        lambda r, v: Mixture([r], [1]).sample(2, 2, out=v),
        ({}, 3, [], filled().batch(3, 2), filled().batch(1, 2), filled().batch(2, 3)),
    ),
    "relabel": (lambda r, v: r.sample(2, 2, relabel=v), (3, "x", lambda drawn: drawn, lambda drawn: drawn.reward)),
    "pin_memory": (lambda r, v: r.batch(2, 2, pin_memory=v), (True,)),
    "schema": (lambda r, v: Replay.create(v, capacity_steps=9), (None, {}, "x", Field("int8"))),
    "durable": (lambda r, v: Replay.create(SCHEMA, capacity_steps=9, durable=v), (None, "no", 1, [])),
    "keep_evicted": (lambda r, v: Replay.create(SCHEMA, capacity_steps=9, keep_evicted=v), (None, "no", 0)),
    "directory": (lambda r, v: Replay.create(SCHEMA, capacity_steps=9, directory=v), (3, 1.5, [], "a\0b")),
    "open": (lambda r, v: Replay.open(v), (None, 3, [], "no/where", b"no/where", Path("no/where"), "a\0b")),
    "repair": (lambda r, v: Replay.repair(v), (None, 3, "no/where")),
    "save": (lambda r, v: r.save(v), (None, 3, [])),
    "load": (lambda r, v: Replay.load(v), (None, 3, "no/where")),
    "protect": (lambda r, v: r.add(**columns(), protect=v), (None, "no", 1)),
    "observation": (
        lambda r, v: r.add(**{**columns(), "observation": v}),
        (None, [], "x", np.zeros(3), {3: np.zeros(3)}),
    ),
    "step": (lambda r, v: r.add(**columns(), step=v), ([], "x", {"y": np.zeros(4)})),
    **{
        name: (
            lambda r, v, name=name: r.add(**{**columns(), name: v}),
            (None, 3, "abcd", [1, 2, 3, 4], np.zeros((4, 4)), {}),
        )
        for name in ("action", "reward", "terminated", "truncated")
    },
    "begin": (lambda r, v: r.writer(2).begin(v), (None, [], {}, {"x": [1, 2]}, {"x": None}, {"y": np.zeros(2)})),
    "mask": (lambda r, v: r.writer(2).begin(ROWS, mask=v), (3, [True, False], np.ones(2), np.ones((2, 1), bool))),
    "tasks": (lambda r, v: r.writer(2).begin(ROWS, task=v), (3, [1, 2], np.ones(2), np.ones(2, np.int64))),
    "append": (lambda r, v: begun(r).append(**step(observation=v)), (None, [], {}, {"x": 3})),
    "reward of append": (lambda r, v: begun(r).append(**step(reward=v)), (None, 1.0, [1, 1], np.ones(2))),
    "step of append": (lambda r, v: begun(r).append(**step(step=v)), (3, [], {"y": np.zeros(2)})),
    "discard": (lambda r, v: begun(r).discard(v), (3, "x", [True, False], np.ones(3, bool))),
    "ids": (
        lambda r, v: r.set_priorities(v, np.ones(np.shape(v))),
        ([1.5], ["1"], [None], [True], [np.nan], np.array([2**64 - 1], np.uint64), [[0, 1], [2]], {}),
    ),
    "priorities": (
        lambda r, v: r.set_priorities([0, 1], v),
        (None, [1], [[1, 2]], ["1", "2"], [np.nan, 1], [-1, 1], [1, 1j], [True, False], "ab"),
    ),
    "pairs": (lambda r, v: r.set_priorities(np.zeros((2, 3), int), v), (np.ones((3, 2)), np.ones(6))),
    "random_state": (
        lambda r, v: setattr(r, "random_state", v),
        (None, 3, [1, 2, 3], [0] * 4, "abcd", np.ones(4), [1] * 5),
    ),
    "files": (lambda r, v: r.reclaim(v), ("abc", b"abc", [3], [None])),
    "replays": (lambda r, v: Mixture(v, [1]), ([], [None], [3], ["x"])),
    "weights": (lambda r, v: Mixture([r], v), (None, [], [0], [-1], [np.nan], ["x"], [[1]], [1, 1], {}, [1j])),
    "state of a mixture": (lambda r, v: setattr(Mixture([r], [1]), "random_state", v), (None, 3, {}, [], "x")),
    "table": (lambda r, v: table(v), (None, 3, Mixture([filled()], [1]))),
}


@pytest.mark.parametrize("name", OTHER_CALLS)
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
def test_other_odd_arguments_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, values = OTHER_CALLS[name]
    replay = filled()
    before = replay.stats(), replay.table()["priority"].tolist()
    for value in values:
        assert check(lambda given: call(replay, given), value), value
    assert (replay.stats(), replay.table()["priority"].tolist()) == before


@pytest.mark.parametrize("value", [None, 3, b"read", "rw", "", True])
def test_modes_and_positions(tmp_path, value):
    with Replay.create(SCHEMA, capacity_steps=9, directory=tmp_path / "kept") as replay:
        replay.add(**columns())
    for option in ("mode", "corrupt", "position"):
        if (option, value) != ("position", None):
            assert check(lambda given: Replay.open(tmp_path / "kept", **{option: given}), value), option  # noqa: B023
    for position in ({"x": "y"}, {3: 3}, {"x": 1.5}):
        assert check(lambda given: Replay.open(tmp_path / "kept", position=given), position)


def test_integers_of_numpy_are_integers():
    for kind in (np.int32, np.int64, np.uint8):
        replay = Replay.create(SCHEMA, capacity_steps=kind(100), seed=kind(3), threads=kind(1))
        assert replay.add(**columns(), task=kind(2), protect=np.True_) == 0
        batch = replay.sample(kind(2), kind(3), lookahead=kind(1), half_life=kind(2))
        assert batch.reward.shape == (2, 4)
        assert len(replay.get(kind(0))["reward"]) == 4
        assert len(list(replay.loader(kind(2), kind(3), batches=kind(2), prefetch=kind(1)))) == 2
        assert replay.set_priorities(np.array([0], kind), np.array([2], kind)) == 1
        assert replay.set_priorities([], []) == 0
        assert replay.set_priorities(kind(0), 0.5) == 1
        replay.writer(kind(2), chunk_length=kind(9), overlap=kind(1))
    with pytest.raises(KeyError, match="trajectory 99 is not stored"):
        replay.get(99)
    assert replay.set_priorities([99], [1.0]) == 0


def test_every_random_state_comes_back():
    replay = filled()
    for state in ([2**64 - 1, 5, 2**63, 1], np.array([2**64 - 1, 5, 2**63, 1], np.uint64)):
        replay.random_state = state
        assert replay.random_state.tolist() == [2**64 - 1, 5, 2**63, 1]


def test_an_overlap_needs_chunks():
    with pytest.raises(ValueError, match="overlap: expected chunk_length with it, got 5 alone"):
        filled().writer(2, overlap=5)


@pytest.mark.parametrize("name", [b"caf\xe9", "zwei Wörter", b"\xff\xfe", "$x_1$ [red]"])
def test_directories_of_any_name(tmp_path, name):
    """Names need not be UTF-8; errors of the system and of corruption name them all the same."""
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + os.fsencode(name)))
    for given in (place, str(place), os.fsencode(place)):
        with Replay.create(SCHEMA, capacity_steps=100, directory=given) as replay:
            replay.add(**columns())
            position = replay.position()
            replay.add(**columns())
        with Replay.open(given) as replay:
            assert replay.stats().trajectories == 2
            with pytest.raises(RuntimeError, match=re.escape(str(place))):
                replay.add(**columns())
        with Replay.open(given, "append", position=position) as replay:
            assert replay.stats().trajectories == 1
        with pytest.raises(FileExistsError):
            Replay.create(SCHEMA, capacity_steps=100, directory=given)
        (journal,) = place.glob("*.journal")
        content = bytearray(journal.read_bytes())
        content[150] ^= 1
        journal.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(place))):
            Replay.open(given)
        with Replay.open(given, corrupt="skip") as replay:
            assert replay.verify()[0].file == str(journal)
        assert all(problem.file.startswith(str(place)) for problem in Replay.repair(given))
        for file in sorted(place.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        place.rmdir()


def test_a_relabelled_batch_takes_what_was_bound():
    replay = filled()

    def anew(drawn):
        drawn.reward = drawn.reward + 2
        drawn.observation = {"x": drawn.observation["x"] * 5}

    batch = replay.sample(4, 4, relabel=anew)
    assert (batch.reward == 3).all()
    assert (batch.observation["x"] == 5).all()


RELABELS = {
    "length: expected|'length' as it was": lambda drawn: drawn.length.__setitem__(0, 2),
    "'id' as it was": lambda drawn: drawn.id.__setitem__(0, 99),
    "ends it, as it did": lambda drawn: (drawn.terminated.fill(False), drawn.truncated.fill(False))[0],
    "reward: expected a C-contiguous float32": lambda drawn: setattr(drawn, "reward", drawn.reward.astype(np.float64)),
    "finite rewards": lambda drawn: drawn.reward.fill(np.inf),
    "'x' is NaN": lambda drawn: drawn.observation["x"].fill(np.nan),
    "inside of their trajectories": lambda drawn: drawn.start.fill(4),
    "observation: expected a dict": lambda drawn: setattr(drawn, "observation", None),
    "got 'more'": lambda drawn: "more",
}


@pytest.mark.parametrize("message", RELABELS)
def test_what_relabel_must_leave_is_checked(message):
    with pytest.raises((ValueError, TypeError), match=message):
        filled().sample(2, 2, relabel=RELABELS[message])


@pytest.mark.parametrize("b", [-1, 2, 10**6])
def test_trajectories_beyond_the_drawn_ones(b):
    def look(drawn):
        for rows in (drawn.step_rows, drawn.observation_rows):
            with pytest.raises(IndexError, match="expected a trajectory from 0 to 1"):
                rows(b)

    filled().sample(2, 2, relabel=look)


# Loaders


class Stop(Exception):
    pass


def failing(drawn):
    raise Stop("of relabel")


def test_an_exception_of_relabel_comes_with_its_own_lines():
    with pytest.raises(Stop) as caught:
        list(filled().loader(2, 2, batches=9, relabel=failing))
    assert caught.traceback[-1].name == "failing"


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, MemoryError])
def test_interruptions_of_relabel_reach_the_consumer(raised):
    def interrupted(drawn):
        raise raised

    with pytest.raises(raised):
        list(filled().loader(2, 2, batches=9, relabel=interrupted))
