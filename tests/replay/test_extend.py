"""Trajectories that leave a replay and enter another, all at once."""

import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

from twohot.replay import DTYPES, Field, Replay, Schema

SCHEMA = Schema({"state": Field("float32", (3,))}, Field("int64"), {"logit": Field("float32", nan=True)})


def trajectory(length, number=0, schema=SCHEMA):
    """Numbers that follow from `number` and their place."""

    def column(field, rows):
        size = int(np.prod((rows, *field.shape)))
        return ((np.arange(size) * 7 + 31 * number) % 2**7).reshape(rows, *field.shape).astype(field.dtype)

    ended = np.arange(length) == length - 1
    return {
        "observation": {name: column(field, length + 1) for name, field in schema.observation.items()},
        "action": column(schema.action, length),
        "reward": column(Field("float32"), length) - 50,
        "terminated": ended & (number % 2 == 0),
        "truncated": ended & (number % 2 == 1),
        "task": number - 2,
        "step": {name: column(field, length) for name, field in schema.step.items()},
    }


def together(trajectories):
    """The columns of trajectories as `add` takes them, as `extend` does."""
    count = len(trajectories)
    result = {
        name: np.concatenate([each[name] for each in trajectories])
        for name in ("action", "reward", "terminated", "truncated")
    }
    for kind in ("observation", "step"):
        names = trajectories[0][kind]
        result[kind] = {name: np.concatenate([each[kind][name] for each in trajectories]) for name in names}
    return result | {
        "length": np.array([len(each["action"]) for each in trajectories]),
        "task": np.array([each["task"] for each in trajectories], np.int32),
        "origin": np.zeros(count, np.int64),
        "protected": np.zeros(count, bool),
    }


def leaves(columns):
    """Arrays by their names, those of dicts by name/name."""
    found = {}
    for name, value in columns.items():
        found |= (
            {f"{name}/{each}": array for each, array in value.items()} if isinstance(value, dict) else {name: value}
        )
    return found


def assert_equal(left, right):
    left, right = leaves(left), leaves(right)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name, strict=True)


def contents(replay):
    """All that a replay says of what it stores."""
    return [replay.get(number) for number in replay.ids().tolist()], replay.table(), replay.stats()


def assert_same_contents(left, right):
    for mine, theirs in zip(left[0], right[0], strict=True):
        assert_equal(mine, theirs)
    assert_equal(left[1], right[1])
    assert left[2] == right[2]


def filled(lengths=(4, 1, 7), **options):
    replay = Replay.create(SCHEMA, **({"capacity_steps": 100, "seed": 3} | options))
    for number, length in enumerate(lengths):
        replay.add(**trajectory(length, number))
    return replay


def test_drained_columns_are_those_that_were_added():
    added = [trajectory(length, number) for number, length in enumerate((4, 1, 7))]
    replay = filled()
    replay.add(**trajectory(2, 9), protect=True)
    columns = replay.drain()
    expected = together([trajectory(2, 9), *added])  # the protected ones first
    expected["protected"][0] = True
    assert_equal(columns, expected)
    assert all(array.flags.owndata and array.flags.writeable for array in leaves(columns).values())


def test_what_is_drained_is_gone_and_all_else_goes_on():
    replay, twin = filled(capacity_steps=9), filled(capacity_steps=9)
    for each in (replay, twin):
        each.random_state = np.arange(1, 5, dtype=np.uint64)
        each.add(**trajectory(1, 5), protect=True)
        each.set_priorities(each.ids(), np.full(len(each), 3.0))
    writer = replay.writer(2)
    writer.begin({"state": np.zeros((2, 3), np.float32)})
    assert replay.drain()["length"].tolist() == [1, 1, 7]
    stats = replay.stats()
    assert (stats.trajectories, stats.protected_trajectories, stats.steps, stats.bytes) == (0, 0, 0, 0)
    assert (stats.evicted_trajectories, stats.evicted_steps, stats.open_trajectories) == (1, 4, 2)
    np.testing.assert_array_equal(replay.random_state, twin.random_state)
    zeros, steps = np.zeros(2, np.float32), {"logit": np.zeros(2, np.float32)}
    ended = np.ones(2, bool)
    writer.append(np.zeros(2, np.int64), zeros, ended, ~ended, {"state": np.ones((2, 3), np.float32)}, step=steps)
    assert replay.ids().tolist() == [4, 5]
    assert replay.table()["priority"].tolist() == [1, 1]
    with pytest.raises(KeyError):
        replay.get(0)


@pytest.mark.parametrize("target", ["memory", "directory"])
@pytest.mark.parametrize("compression", ["", "lz4", "zstd"])
def test_every_dtype_comes_through_another_process_memory(tmp_path, compression, target):
    observation = {name: Field(name, (2, 3), compression=compression) for name in DTYPES}
    schema = Schema(observation, Field("float64", (2,)), {f"s{name}": Field(name) for name in DTYPES})
    source, added = (Replay.create(schema, capacity_steps=1000, seed=3) for _ in range(2))
    directory = tmp_path / "d" if target == "directory" else None
    replay = Replay.create(schema, capacity_steps=1000, seed=3, directory=directory)
    for number, length in enumerate((1, 30, 2, 300)):
        for each in (source, added):
            each.add(**trajectory(length, number, schema), protect=number == 2)
    buffers = []
    data = pickle.dumps(source.drain(), protocol=5, buffer_callback=buffers.append)
    assert len(data) < 4000  # none of the columns
    shared = [bytes(each.raw()) for each in buffers]  # read-only, as an object store has it
    columns = pickle.loads(data, buffers=shared)
    assert not any(array.flags.writeable for array in leaves(columns).values())
    assert replay.extend(columns) == 4
    assert replay.stats() == added.stats()
    for mine, theirs in zip(contents(replay)[0], contents(added)[0], strict=True):
        assert_equal(mine, theirs)
    for name in ("protected", "origin", "return"):
        np.testing.assert_array_equal(replay.table()[name], added.table()[name])
    for by in ("trajectory", "step"):
        mine, theirs = replay.sample(20, 9, by=by), added.sample(20, 9, by=by)
        np.testing.assert_array_equal(mine.start, theirs.start)
        for name in DTYPES:
            np.testing.assert_array_equal(mine.observation[name], theirs.observation[name])
    if directory is not None:
        assert replay.verify() == []
        before = contents(replay)[0]
        replay.close()
        with Replay.open(directory) as again:
            for mine, theirs in zip(contents(again)[0], before, strict=True):
                assert_equal(mine, theirs)


def test_chunks_keep_their_times():
    source, replay = Replay.create(SCHEMA, capacity_steps=100), Replay.create(SCHEMA, capacity_steps=100)
    writer = source.writer(1, chunk_length=4, overlap=2)
    row = np.zeros(1, np.float32)
    writer.begin({"state": np.zeros((1, 3), np.float32)})
    for t in range(10):
        done = np.array([t == 9])
        observation = {"state": np.full((1, 3), t, np.float32)}
        writer.append(np.array([t]), row, done, ~done & done, observation, step={"logit": row})
    before = contents(source)
    columns = source.drain()
    assert columns["origin"].tolist() == [0, 2, 4, 6]
    replay.extend(columns)
    assert_same_contents(contents(replay), before)
    times = replay.sample(200, 3).time
    assert times.max() == 10


def test_nothing_comes_and_goes():
    replay = filled([])
    columns = replay.drain()
    assert_equal(columns, {name: _first(value, 0) for name, value in together([trajectory(1)]).items()})
    assert replay.extend(columns) == 0
    assert replay.stats().trajectories == 0


def _first(value, rows):
    return {name: array[:rows] for name, array in value.items()} if isinstance(value, dict) else value[:rows]


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(
    "capacity",
    [{"capacity_steps": 20}, {"capacity_trajectories": 3}, {"capacity_steps": None, "capacity_bytes": 3000}],
)
def test_the_oldest_leave_as_if_added_one_by_one(tmp_path, on_disk, capacity):
    """Also those of the same call, where all of them do not fit at once."""
    replays = [
        filled([], **{"capacity_steps": 1000, **capacity}, directory=tmp_path / str(place) if on_disk else None)
        for place in range(2)
    ]
    random = np.random.default_rng(0)
    for round in range(12):
        given = [trajectory(int(length), round * 10 + i) for i, length in enumerate(random.integers(1, 15, round))]
        if not given:
            continue
        columns = together(given)
        columns["protected"][:] = protected = [round == 3 and i == 1 for i in range(len(given))]
        assert replays[0].extend(columns) == len(given)
        for each, protect in zip(given, protected, strict=True):
            replays[1].add(**each, protect=protect)
        assert_same_contents(*map(contents, replays))
    assert replays[0].stats().evicted_trajectories > 30
    assert replays[0].stats().protected_trajectories == 1
    for by in ("trajectory", "step", "recency", "priority", "task"):
        mine, theirs = (each.sample(30, 5, by=by) for each in replays)
        np.testing.assert_array_equal(mine.trajectory, theirs.trajectory)
        np.testing.assert_array_equal(mine.start, theirs.start)


def changed(name, change):
    columns = together([trajectory(length, number) for number, length in enumerate((4, 1, 7))])
    home, _, inner = name.partition("/")
    if inner:
        columns[home] = {**columns[home], inner: change(columns[home][inner])}
    else:
        columns[home] = change(columns[home])
    return columns


def put(place, value):
    def change(array):
        array = array.copy()
        array[place] = value
        return array

    return change


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def without(name):
    columns = changed("task", lambda array: array)
    del columns[name]
    return columns


BAD = {
    "length: a row too few": (changed("length", put(2, 8)), r"observation 'state': .*\[16, 3\], got .*\[15, 3\]"),
    "length: a row too many": (changed("length", put(2, 6)), r"observation 'state': .*\[14, 3\], got .*\[15, 3\]"),
    "length: one that lies": (changed("length", put([0, 2], [5, 6])), "trajectory 0: .* step 3 of 5 is"),
    "length: none": (changed("length", put(1, 0)), "length: expected at least 1 step.*; got 0"),
    "length: negative": (changed("length", put([0, 1], [6, -1])), "length: expected at least 1 step.*; got -1"),
    "length: enormous": (changed("length", put(slice(3), 2**62)), "length: expected .*; got 4611686018427387904"),
    "length: overflowing": (
        changed("length", put(slice(3), 2**63 - 1)),
        "length: expected .*; got 9223372036854775807",
    ),
    "length: one less": (changed("length", lambda array: array[:2]), r"task: .*\[2\], got int32 of shape \[3\]"),
    "length: int32": (changed("length", np.int32), "length: expected .*int64.*got int32"),
    "length: a number": (changed("length", lambda _: np.array(12)), "length: expected one row for each trajectory"),
    "length: two axes": (changed("length", lambda array: array[:, None]), r"length: .*of shape \[3\]"),
    "task: int64": (changed("task", np.int64), "task: expected .*int32.*got int64"),
    "origin: negative": (changed("origin", put(1, -1)), "trajectory 1: expected steps at times from 0"),
    "origin: late": (changed("origin", put(2, 2**31 - 7)), "trajectory 2: .* got 7 from 2147483641 on"),
    "protected: uint8": (changed("protected", np.uint8), "protected: expected .*bool.*got uint8"),
    "action: dtype": (changed("action", np.int32), "action: expected .*int64.*got int32"),
    "action: byte order": (changed("action", lambda array: array.astype(">i8")), "action: expected .*int64.*got >i8"),
    "action: rows": (changed("action", lambda array: array[:-1]), r"action: .*of shape \[12\], got .*\[11\]"),
    "action: strides": (
        changed("action", lambda array: np.repeat(array, 2)[::2]),
        "action: .*not C-contiguous; numpy.ascontiguousarray",
    ),
    "observation: strides": (changed("observation/state", np.asfortranarray), "'state': .*not C-contiguous"),
    "observation: alignment": (changed("observation/state", unaligned), "'state': .*not aligned"),
    "observation: shape": (changed("observation/state", lambda array: array[:, :2].copy()), "'state': expected"),
    "observation: NaN": (changed("observation/state", put((5, 1), np.nan)), "trajectory 1: .*'state' is NaN in row 0"),
    "observation: unknown": (changed("observation", lambda home: {**home, "x": 1}), "'x' is not in the schema"),
    "observation: missing": (changed("observation", lambda _: {}), "'state' is missing"),
    "step: rows": (changed("step/logit", lambda array: array[1:]), r"step 'logit': .*\[12\], got float32 of shape"),
    "step: missing": (changed("step", lambda _: {}), "step: 'logit' is missing"),
    "reward: infinite": (changed("reward", put(11, np.inf)), "trajectory 2: reward of step 6 is not finite"),
    "reward: NaN": (changed("reward", put(0, np.nan)), "trajectory 0: reward of step 0 is not finite; nothing was"),
    "unfinished": (changed("truncated", put(4, False)), "trajectory 1: .*step 0 of 1 is not"),
    "finished before": (changed("terminated", put(6, True)), "trajectory 2: .*step 1 of 7 is;"),
    "larger than the capacity": (together([trajectory(2), trajectory(101, 1)]), "101 steps exceeds the whole capacity"),
    **{
        f"{name} is missing": (without(name), f"'{name}' is missing") for name in ("step", "length", "origin", "reward")
    },
    "ids": ({**together([trajectory(1)]), "id": np.arange(1)}, "columns: 'id' is not in the schema"),
}


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_bad_columns_leave_the_replay_as_it_was(tmp_path, name, on_disk):
    columns, message = BAD[name]
    replay = filled(directory=tmp_path / "d" if on_disk else None)
    before = contents(replay)
    with pytest.raises(ValueError, match=message):
        replay.extend(columns)
    assert_same_contents(contents(replay), before)
    assert replay.extend(replay.drain() if not on_disk else together([trajectory(4, 7)])) > 0


@pytest.mark.parametrize(
    "columns", [None, [], changed("length", list), changed("action", list), changed("task", lambda _: 3)]
)
def test_what_is_no_array_is_a_type_error(columns):
    replay = filled()
    with pytest.raises(TypeError, match="expected"):
        replay.extend(columns)
    assert len(replay) == 3


def test_slices_are_read_where_they_are():
    """Rows of larger arrays, of which no more is read than is theirs."""
    replay, given = filled([]), [trajectory(length, number) for number, length in enumerate((4, 1, 7))]
    columns = {
        name: {each: _embedded(array) for each, array in value.items()} if isinstance(value, dict) else _embedded(value)
        for name, value in together(given).items()
    }
    replay.extend(columns)
    assert_same_contents(contents(replay), contents(filled()))


def _embedded(array):
    larger = np.concatenate([array[:1], array, array[-1:]])
    larger.flags.writeable = False
    return larger[1:-1]


def test_who_may_do_what(tmp_path):
    columns = together([trajectory(3), trajectory(5, 1)])
    with filled([], directory=tmp_path / "d") as replay:
        with pytest.raises(RuntimeError, match="in a directory cannot be drained"):
            replay.drain()
        with Replay.open(tmp_path / "d", "write") as actor:
            assert actor.extend(columns) == 2
        replay.refresh()
        assert replay.lengths().tolist() == [3, 5]
        with Replay.open(tmp_path / "d") as reader, pytest.raises(RuntimeError, match="opened for reading"):
            reader.extend(columns)
        position = replay.position()
        replay.extend(columns)
    with Replay.open(tmp_path / "d", "append", position=position) as replay:
        assert replay.lengths().tolist() == [3, 5]
    replay = filled()
    replay.close()
    for call in (replay.drain, lambda: replay.extend(columns)):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_writers_and_drains_lose_nothing_and_double_nothing():
    """Two writers, two that drain, and who passes it all on to a learner, who sees all of a call or none of it."""
    source, learner = (Replay.create(SCHEMA, capacity_steps=10**6) for _ in range(2))
    failures, writing = [], [True, True]
    environments, rounds = 3, 150

    def write(place):
        try:
            writer = source.writer(environments)
            random = np.random.default_rng(place)
            for round in range(rounds):
                tasks = np.arange(environments, dtype=np.int32) + environments * (round + rounds * place)
                rows = {"state": np.repeat(tasks[:, None], 3, 1).astype(np.float32)}
                writer.begin(rows, task=tasks)
                length = random.integers(1, 12)
                for t in range(length):
                    ended = np.full(environments, t == length - 1)
                    reward = np.zeros(environments, np.float32)
                    writer.append(tasks.astype(np.int64), reward, ended, ended & False, rows, step={"logit": reward})
        except BaseException as error:
            failures.append(error)
        finally:
            writing[place] = False

    def carry():
        try:
            more = True
            while more:
                more = any(writing)
                learner.extend(source.drain())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(place,)) for place in range(2)]
    threads += [threading.Thread(target=carry) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(writing):
        held = learner.tasks() // environments
        assert (np.unique(held, return_counts=True)[1] == environments).all()  # those that one append finished
    for thread in threads:
        thread.join()
    assert not failures
    assert len(source) == 0
    assert sorted(learner.tasks().tolist()) == list(range(2 * rounds * environments))
    for number in learner.ids().tolist():
        stored = learner.get(number)
        assert (stored["observation"]["state"] == stored["task"]).all()
        assert (stored["action"] == stored["task"]).all()


MEMORY = """
import resource
import numpy as np
from twohot.replay import Field, Replay, Schema

replay = Replay.create(Schema({"o": Field("uint8", (1 << 20,))}, Field("int8")), capacity_steps=1000)
rows = np.zeros((201, 1 << 20), np.uint8)
ended = np.arange(200) == 199
replay.add({"o": rows}, np.zeros(200, np.int8), np.zeros(200, np.float32), ended, ended & False)
del rows
pages = int(open("/proc/self/statm").read().split()[0])
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (50 << 20), limits[1]))
try:
    replay.drain()
except MemoryError:
    resource.setrlimit(resource.RLIMIT_AS, limits)
    assert len(replay.drain()["reward"]) == 200
    print("kept")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by what Linux counts")
def test_nothing_is_lost_where_memory_is_short():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False)
    assert done.stdout == "kept\n", done.stderr
