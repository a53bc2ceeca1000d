"""The replay, case by case; `test_replay_properties.py` has random sequences and how samples are distributed."""

import subprocess
import sys
import threading
from dataclasses import fields

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from twohot.replay import DTYPES, Batch, Field, Replay, Schema

E = 3
SCHEMA = Schema({"state": Field("float32", (4,)), "image": Field("uint8", (2, 2, 3))}, Field("int64"))


def observe(rows, seed=0):
    generator = np.random.default_rng(seed)
    return {
        "state": generator.standard_normal((rows, 4)).astype(np.float32),
        "image": generator.integers(0, 256, (rows, 2, 2, 3), dtype=np.uint8),
    }


def step(rows, seed=0, end=False):
    generator = np.random.default_rng(seed)
    return {
        "action": generator.integers(1, 9, rows),
        "reward": generator.standard_normal(rows).astype(np.float32),
        "terminated": np.full(rows, end),
        "truncated": np.zeros(rows, bool),
        "observation": observe(rows, seed + 1),
    }


def demonstration(steps, seed=0):
    columns = step(steps, seed)
    columns["terminated"][-1] = True
    return columns | {"observation": observe(steps + 1, seed)}


def filled(lengths=(5, 1, 12, 30, 8), **options):
    replay = Replay.create(SCHEMA, **({"capacity_steps": 1000, "seed": 3} | options))
    for task, length in enumerate(lengths):
        replay.add(**demonstration(length, seed=task), task=task)
    return replay


def leaves(batch):
    found = {}
    for field in fields(Batch):
        value = getattr(batch, field.name)
        is_dict = isinstance(value, dict)
        found |= {f"{field.name}/{name}": item for name, item in value.items()} if is_dict else {field.name: value}
    return found


def copy(batch):
    return {name: np.asarray(value).copy() for name, value in leaves(batch).items()}


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def test_a_finished_trajectory_is_stored_as_written():
    replay = Replay.create(SCHEMA, capacity_steps=100)
    writer = replay.writer(E)
    first, steps = observe(E), [step(E, seed) for seed in range(3)]
    writer.begin(first, task=np.array([4, 5, 6], np.int32))
    steps[1]["terminated"][2] = steps[2]["truncated"][0] = True
    for index, part in enumerate(steps):
        writer.append(**part, mask=np.array([True, True, index < 2]))
    assert replay.tasks().tolist() == [6, 4]
    assert replay.stats().open_trajectories == 1
    stored = replay.get(0)
    np.testing.assert_array_equal(stored["action"], [part["action"][2] for part in steps[:2]])
    np.testing.assert_array_equal(stored["observation"]["state"][0], first["state"][2])
    np.testing.assert_array_equal(stored["observation"]["image"][2], steps[1]["observation"]["image"][2])
    assert stored["terminated"].tolist() == [False, True]
    assert replay.get(1)["truncated"].tolist() == [False, False, True]
    expected = [np.float64([part["reward"][e] for part in steps[:n]]).sum() for e, n in ((2, 2), (0, 3))]
    np.testing.assert_allclose(replay.returns(), expected, rtol=1e-15)


def test_cut_keeps_steps_and_drops_the_rest():
    replay = Replay.create(SCHEMA, capacity_steps=100)
    writer = replay.writer(E)
    writer.begin(observe(E))
    writer.append(**step(E), mask=np.array([True, False, True]))
    writer.cut()
    assert replay.lengths().tolist() == [1, 1]
    assert replay.get(0)["truncated"].tolist() == [True]
    assert replay.get(0)["terminated"].tolist() == [False]
    assert replay.stats().open_trajectories == 0
    writer.begin(observe(E))
    writer.discard()
    writer.cut()
    assert replay.stats().trajectories == 2
    assert replay.stats().open_trajectories == 0


def test_discard_drops_only_what_the_mask_says():
    replay = Replay.create(SCHEMA, capacity_steps=100)
    writer = replay.writer(E)
    writer.begin(observe(E))
    steps = step(E)
    writer.append(**steps)
    lost = np.array([False, True, False])
    writer.discard(lost)
    assert replay.stats().open_trajectories == 2
    writer.begin(observe(E), mask=lost)
    writer.cut()
    rewards = sorted(replay.get(index)["reward"].tolist() for index in range(2))
    assert replay.lengths().tolist() == [1, 1]
    assert rewards == sorted([[steps["reward"][0]], [steps["reward"][2]]])


def test_long_trajectories_survive_the_growth_of_their_memory():
    replay = Replay.create(SCHEMA, capacity_steps=1000)
    writer = replay.writer(2)
    rows = [observe(2, seed) for seed in range(201)]
    for _ in range(2):
        writer.begin(rows[0])
        for row in rows[1:]:
            writer.append(**(step(2) | {"observation": row}))
        writer.cut()
    for trajectory in range(4):
        images = np.stack([row["image"][trajectory % 2] for row in rows])
        np.testing.assert_array_equal(replay.get(trajectory)["observation"]["image"], images, strict=True)


def test_begin_and_append_in_the_wrong_state_store_nothing():
    replay = Replay.create(SCHEMA, capacity_steps=100)
    writer = replay.writer(E)
    writer.begin(observe(E), mask=np.array([False, True, False]))
    with pytest.raises(RuntimeError, match="environment 1 has an open trajectory"):
        writer.begin(observe(E))
    with pytest.raises(RuntimeError, match="environment 0 has no open trajectory"):
        writer.append(**step(E, end=True))
    assert replay.stats().trajectories == 0
    assert replay.stats().open_trajectories == 1
    writer.append(**step(E, end=True), mask=np.array([False, True, False]))
    assert replay.lengths().tolist() == [1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_is_an_error(bad):
    replay = Replay.create(SCHEMA, capacity_steps=100)
    writer = replay.writer(E)
    writer.begin(observe(E))
    part = step(E, end=True)
    part["reward"][1] = bad
    with pytest.raises(ValueError, match="reward of environment 1 is not finite"):
        writer.append(**part)
    assert replay.stats().trajectories == 0
    writer.append(**part, mask=np.array([True, False, True]))
    assert replay.lengths().tolist() == [1, 1]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_nan_is_an_error_where_it_arises(dtype):
    schema = Schema({"fine": Field("int8"), "state": Field(dtype, (5,))}, Field(dtype, (2,)))
    replay = Replay.create(schema, capacity_steps=100)
    writer = replay.writer(E)
    observation = {"fine": np.zeros(E, np.int8), "state": np.full((E, 5), np.inf, dtype)}
    writer.begin(observation)
    poisoned = observation["state"].copy()
    poisoned[2, 4] = np.nan
    flags = (np.zeros(E, np.float32), np.ones(E, bool), np.zeros(E, bool))
    with pytest.raises(ValueError, match="observation 'state' of environment 2 is NaN"):
        writer.append(np.zeros((E, 2), dtype), *flags, {**observation, "state": poisoned})
    action = np.zeros((E, 2), dtype)
    action[1] = np.nan
    with pytest.raises(ValueError, match="action of environment 1 is NaN"):
        writer.append(action, *flags, observation)
    assert replay.stats().trajectories == 0
    assert replay.stats().open_trajectories == E
    writer.append(action, *flags, {**observation, "state": poisoned}, mask=np.array([True, False, False]))
    assert replay.stats().trajectories == 1


def corrupt(**changes):
    part = step(E)
    for name, value in changes.items():
        if name in part["observation"]:
            part["observation"][name] = value
        else:
            part[name] = value
    return part


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        (corrupt(action=np.zeros(E, np.int32)), ValueError, r"action: expected .*int64.*\[3\], got int32"),
        (corrupt(action=np.zeros(E, ">i8")), ValueError, "action: expected .*int64"),
        (corrupt(action=np.zeros(E, np.uint64)), ValueError, "got uint64"),
        (corrupt(reward=np.zeros(E)), ValueError, "reward: expected .*float32.*got float64"),
        (corrupt(reward=np.zeros((E, 1), np.float32)), ValueError, r"reward: .*\[3\], got float32 of shape \[3, 1\]"),
        (corrupt(reward=[0.0] * E), TypeError, "reward: expected .*got list"),
        (corrupt(truncated=np.zeros(E, np.uint8)), ValueError, "truncated: expected .*bool.*got uint8"),
        (corrupt(terminated=np.zeros(2 * E, bool)[::2]), ValueError, "terminated: .*not C-contiguous"),
        (corrupt(state=np.zeros((E, 5), np.float32)), ValueError, r"observation 'state': .*\[3, 4\].*\[3, 5\]"),
        (corrupt(state=np.zeros((4, E), np.float32).T), ValueError, "observation 'state': .*not C-contiguous"),
        (corrupt(state=np.zeros((E + 1, 4), np.float32)), ValueError, "observation 'state'"),
        (corrupt(state=np.zeros(16 * E + 1, np.uint8)[1:].view("f4").reshape(E, 4)), ValueError, "not aligned"),
        (corrupt(image=None), TypeError, "observation 'image': .*got NoneType"),
        (corrupt(observation={"state": observe(E)["state"]}), ValueError, "observation: 'image' is missing"),
        (corrupt(observation=observe(E) | {"more": 0}), ValueError, "observation: 'more' is not in the schema"),
        (corrupt(mask=np.ones(E, np.uint8)), ValueError, "mask: expected .*bool"),
        (corrupt(mask=np.ones(E + 1, bool)), ValueError, "mask: expected"),
    ],
)
def test_arrays_are_never_converted(part, error, message):
    replay = Replay.create(SCHEMA, capacity_steps=100)
    writer = replay.writer(E)
    writer.begin(observe(E))
    with pytest.raises(error, match=message):
        writer.append(**part)
    writer.cut()
    assert replay.stats().trajectories == 0


def test_tasks_are_int32():
    writer = Replay.create(SCHEMA, capacity_steps=100).writer(E)
    with pytest.raises(ValueError, match=r"task: expected .*int32.*got int64"):
        writer.begin(observe(E), task=np.zeros(E, np.int64))


def test_the_oldest_leave_first():
    replay = filled([10, 20, 30], capacity_steps=60)
    replay.add(**demonstration(15))
    assert replay.lengths().tolist() == [30, 15]
    assert (replay.stats().evicted_trajectories, replay.stats().evicted_steps) == (2, 30)
    replay.add(**demonstration(15))
    assert replay.lengths().tolist() == [30, 15, 15]
    with pytest.raises(KeyError, match="trajectory 1 is not stored"):
        replay.get(1)
    with pytest.raises(KeyError):
        replay.get(5)
    assert len(replay.get(2)["reward"]) == 30


def test_capacity_in_bytes():
    one = filled([10]).stats().bytes
    assert one == 64 * 3 + 64 * 3 + 64 * 2 + 64 + 64 + 64
    replay = filled([10] * 7, capacity_steps=None, capacity_bytes=3 * one + 1)
    assert replay.stats().trajectories == 3
    assert replay.stats().bytes == 3 * one


def test_a_trajectory_beyond_the_whole_capacity_is_an_error():
    replay = Replay.create(SCHEMA, capacity_steps=4)
    writer = replay.writer(E)
    replay.add(**demonstration(2))
    with pytest.raises(ValueError, match=r"5 steps exceeds .* of 4 steps, which holds at most 4.*nothing was stored"):
        replay.add(**demonstration(5))
    assert replay.lengths().tolist() == [2]
    writer.begin(observe(E))
    for seed in range(4):
        writer.append(**step(E, seed))
    with pytest.raises(ValueError, match=r"trajectory of environment 0 holds 4 steps.*whole capacity"):
        writer.append(**step(E, 4))
    assert replay.lengths().tolist() == [2]
    writer.cut()
    assert replay.lengths().tolist() == [4]
    np.testing.assert_array_equal(replay.get(3)["reward"], [step(E, seed)["reward"][2] for seed in range(4)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity_steps": None}, "got none"),
        ({"capacity_steps": 0}, "at least one step"),
        ({"capacity_steps": -3}, "at least one step"),
        ({"capacity_bytes": 100}, r"at least one step \(384 bytes\), got 1000 steps and 100 bytes"),
        ({"capacity_bytes": -1}, "at least one step"),
        ({"threads": 0}, "threads, got 0"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        filled([], **options)


@pytest.mark.parametrize("dtype", ["bfloat16", "complex64", "float", "<f4", ""])
def test_unknown_dtypes(dtype):
    with pytest.raises(ValueError, match="expected one of bool, uint8"):
        Field(dtype)


def test_bad_schemas():
    with pytest.raises(ValueError, match="extents of at least 1"):
        Field("uint8", (3, 0))
    with pytest.raises(ValueError, match="at least one field"):
        Schema({}, Field("int64"))
    with pytest.raises(ValueError, match="non-empty strings"):
        Schema({"": Field("int64")}, Field("int64"))
    with pytest.raises(ValueError, match=r"2\^32"):
        Replay.create(Schema({"huge": Field("uint8", (2**31, 2**31))}, Field("int64")), capacity_steps=1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_goes_through(dtype):
    replay = Replay.create(Schema({"value": Field(dtype, (3,))}, Field(dtype)), capacity_steps=10, threads=1)
    values = (np.arange(15).reshape(5, 3) % 7).astype(dtype)
    replay.add({"value": values}, values[:4, 1].copy(), np.zeros(4, "f4"), np.arange(4) == 3, np.zeros(4, bool))
    for torch in (False, True):
        batch = replay.sample(1, 4, out=replay.batch(1, 4, torch=torch))
        np.testing.assert_array_equal(np.asarray(batch.observation["value"])[0], values)
        np.testing.assert_array_equal(np.asarray(batch.previous_action)[0, 1:], values[:4, 1])


def test_added_trajectories_are_checked():
    replay = filled([])
    for change, message in (
        ({"terminated": np.zeros(4, bool)}, "step 3 of 4 is not"),
        ({"truncated": np.array([False, True, False, False])}, "step 1 of 4 is"),
        ({"reward": np.array([0, np.nan, 0, 0], "f4")}, "reward of step 1 is not finite"),
        ({"observation": observe(4)}, r"observation 'state': .*\[5, 4\]"),
        ({"action": np.array(3)}, "one row for each step"),
    ):
        with pytest.raises(ValueError, match=message):
            replay.add(**(demonstration(4) | change))
    poisoned = demonstration(4)
    poisoned["observation"]["state"][4, 0] = np.nan
    with pytest.raises(ValueError, match="observation 'state' is NaN in row 4"):
        replay.add(**poisoned)
    empty = {name: value[:0] for name, value in step(4).items() if name != "observation"}
    with pytest.raises(ValueError, match="at least 1 step"):
        replay.add(observe(1), **empty)
    assert replay.stats().trajectories == 0


def test_sampling_errors():
    with pytest.raises(RuntimeError, match="replay is empty"):
        filled([]).sample(1, 1)
    replay = filled()
    before = replay.random_state
    for batch_size, length in ((0, 1), (1, 0), (-1, 3)):
        with pytest.raises(ValueError, match=">= 1"):
            replay.sample(batch_size, length)
    with pytest.raises(ValueError, match=r"by: expected one of 'trajectory', 'step'.*; got 'uniform'"):
        replay.sample(1, 1, by="uniform")
    with pytest.raises(ValueError, match=r"observation 'state': .*\[4, 6, 4\], got float32 of shape \[4, 7, 4\]"):
        replay.sample(4, 5, out=replay.batch(4, 6))
    with pytest.raises(ValueError, match="torch=True"):
        replay.batch(1, 1, pin_memory=True)
    frozen = replay.batch(2, 2)
    frozen.mask.flags.writeable = False
    with pytest.raises(ValueError, match=r"mask: .*read-only"):
        replay.sample(2, 2, out=frozen)
    np.testing.assert_array_equal(replay.random_state, before)


@pytest.mark.parametrize("length", [1, 11, 12, 13, 40])
def test_windows_around_the_length_of_a_trajectory(length):
    columns = demonstration(12, seed=5)
    replay = filled([], threads=1)
    replay.add(**columns, task=9)
    batch = replay.sample(64, length)
    assert set(batch.start) == set(range(max(1, 12 - length + 1)))
    real = min(length, 12)
    for b in range(64):
        start = batch.start[b]
        assert batch.mask[b].tolist() == [True] * real + [False] * (length - real)
        np.testing.assert_array_equal(batch.action[b, :real], columns["action"][start : start + real])
        for name in SCHEMA.observation:
            np.testing.assert_array_equal(
                batch.observation[name][b, : real + 1], columns["observation"][name][start : start + real + 1]
            )
            assert not batch.observation[name][b, real + 1 :].any()
        actions, rewards = np.append(0, columns["action"]), np.append(np.float32(0), columns["reward"])
        np.testing.assert_array_equal(batch.previous_action[b, : real + 1], actions[start : start + real + 1])
        np.testing.assert_array_equal(batch.previous_reward[b, : real + 1], rewards[start : start + real + 1])
        assert batch.time[b, : real + 1].tolist() == list(range(start, start + real + 1))
        assert batch.terminated[b].sum() == (start + real == 12)
        for name in ("previous_action", "previous_reward", "time"):
            assert not getattr(batch, name)[b, real + 1 :].any()
        for name in ("action", "reward", "terminated", "truncated"):
            assert not getattr(batch, name)[b, real:].any()
    assert set(batch.task) == {9}


LARGE = (1200, 90)  # above the 4 MB from which several threads pack


@pytest.mark.parametrize("by", ["trajectory", "step"])
@pytest.mark.parametrize("sizes", [(16, 9), LARGE])
def test_batches_depend_on_the_seed_and_not_on_threads_or_old_content(by, sizes):
    seen = []
    for threads in (1, 2, 4):
        replay = filled(threads=threads)
        batch = replay.batch(*sizes)
        for value in leaves(batch).values():
            value.view(np.uint8).fill(0xFF if value.dtype != bool else 1)
        for _ in range(3):
            replay.sample(*sizes, by=by, out=batch)
        seen.append(copy(batch))
    assert sum(value.nbytes for value in seen[0].values()) > 4 << 20 or sizes != LARGE
    assert_equal(seen[0], seen[1])
    assert_equal(seen[0], seen[2])
    assert np.isfinite(seen[0]["observation/state"]).all()
    other = copy(filled(seed=4).sample(*sizes, by=by))
    assert (other["trajectory"] != seen[0]["trajectory"]).any()


def test_the_random_state_repeats_batches():
    replay = filled()
    state = replay.random_state
    assert (state.dtype, state.shape) == (np.uint64, (4,))
    first = copy(replay.sample(8, 5))
    assert (replay.random_state != state).any()
    replay.random_state = state
    assert_equal(first, copy(replay.sample(8, 5)))
    with pytest.raises(ValueError, match="non-zero"):
        replay.random_state = np.zeros(4, np.uint64)


def test_torch_batches_share_memory_with_what_is_written():
    replay, twin = filled(), filled()
    batch = replay.batch(6, 10, torch=True)
    assert type(batch.reward).__module__ == "torch"
    assert replay.sample(6, 10, out=batch) is batch
    assert_equal(copy(batch), copy(twin.sample(6, 10)))
    replay.sample(6, 10, out=batch)
    assert_equal(copy(batch), copy(twin.sample(6, 10)))


def test_numpy_alone_is_enough():
    code = "import sys, twohot.replay; sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_clear_keeps_ids_open_trajectories_and_counts():
    replay = filled([2, 3])
    writer = replay.writer(E)
    writer.begin(observe(E))
    replay.clear()
    assert replay.stats().bytes == replay.stats().steps == replay.stats().evicted_trajectories == 0
    assert replay.stats().open_trajectories == E
    writer.append(**step(E, end=True))
    assert sorted(set(replay.sample(50, 1).trajectory)) == [2, 3, 4]
    assert sorted(set(replay.sample(50, 1, by="step").trajectory)) == [2, 3, 4]


def test_an_abandoned_writer_leaves_nothing_open():
    replay = filled([])
    writer = replay.writer(E)
    writer.begin(observe(E))
    assert replay.stats().open_trajectories == E
    del writer
    assert replay.stats().open_trajectories == 0


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name == "twohot-replay-loader"]


@pytest.mark.parametrize(("batches", "prefetch"), [(0, 2), (1, 2), (2, 1), (11, 1), (11, 4)])
@pytest.mark.parametrize("torch", [False, True])
def test_a_loader_yields_what_sample_returns(batches, prefetch, torch):
    replay, twin = filled(), filled()
    memories = set()
    for batch in replay.loader(4, 7, batches=batches, by="step", prefetch=prefetch, torch=torch):
        assert_equal(copy(batch), copy(twin.sample(4, 7, by="step")))
        memories.add(np.asarray(batch.reward).ctypes.data)
    assert len(memories) <= prefetch + 1
    np.testing.assert_array_equal(replay.random_state, twin.random_state)
    assert not loader_threads()


def test_a_yielded_batch_stays_until_the_next():
    replay = filled()
    loader = replay.loader(4, 7, batches=6, prefetch=2)
    for batch in loader:
        before = copy(batch)
        for thread in loader_threads():
            thread.join(0.02)
        assert_equal(before, copy(batch))


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_loader_closed_early_ends_its_thread(taken):
    replay = filled()
    loader = replay.loader(4, 7, batches=100)
    for _ in range(taken):
        next(loader)
    loader.close()
    assert not loader_threads()
    assert next(loader, None) is None


def test_an_abandoned_loader_ends_its_thread():
    loader = filled().loader(4, 7, batches=100)
    next(loader)
    del loader
    assert not loader_threads()


def test_a_loader_raises_what_its_thread_raised():
    with pytest.raises(RuntimeError, match="replay is empty"):
        next(filled([]).loader(1, 1, batches=1))
    assert not loader_threads()
    replay = filled()
    loader = replay.loader(4, 7, batches=100, prefetch=1)
    next(loader)
    replay.clear()
    with pytest.raises(RuntimeError, match="replay is empty"):
        for _ in loader:
            pass
    assert not loader_threads()
    with pytest.raises(ValueError, match=">= 1"):
        replay.loader(0, 1, batches=1)
    with pytest.raises(ValueError, match="prefetch: expected an integer >= 1"):
        replay.loader(1, 1, batches=1, prefetch=0)


def test_a_saved_replay_goes_on_as_if_it_had_not_been_saved(tmp_path):
    replay = filled([5, 9, 1, 12, 30, 8], capacity_steps=62)
    replay.sample(3, 4)
    path = tmp_path / "replay.safetensors"
    replay.save(path)
    replay.save(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    loaded = Replay.load(path, threads=1)
    assert loaded.schema == replay.schema
    assert replay.stats().evicted_trajectories == 1
    for _ in range(3):
        assert loaded.stats() == replay.stats()
        for name in ("lengths", "tasks", "returns"):
            np.testing.assert_array_equal(getattr(loaded, name)(), getattr(replay, name)())
        assert_equal(copy(loaded.sample(20, 6, by="step")), copy(replay.sample(20, 6, by="step")))
        assert loaded.add(**demonstration(7)) == replay.add(**demonstration(7))
    smaller = Replay.load(path, capacity_steps=40)
    assert smaller.lengths().tolist() == [30, 8]
    assert smaller.stats().evicted_trajectories == 4


@pytest.mark.parametrize("lengths", [[], [3]])
def test_saving_an_empty_replay(tmp_path, lengths):
    replay = filled(lengths, capacity_bytes=10**6)
    replay.clear()
    replay.save(tmp_path / "replay")
    loaded = Replay.load(tmp_path / "replay")
    assert loaded.stats() == replay.stats()
    assert loaded.add(**demonstration(2)) == len(lengths)


def test_files_that_are_no_replay(tmp_path):
    path = tmp_path / "replay"
    filled().save(path)
    content = path.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], content[:5], b"", b"\x93NUMPY" + content):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path} cannot be loaded as a replay"):
            Replay.load(path)
    save_file({"reward": np.zeros(3)}, path)
    with pytest.raises(ValueError, match=f"{path} .*expected the format twohot.saved-replay/3, got None"):
        Replay.load(path)
    path.write_bytes(content)
    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    for change in (
        {"action": tensors["action"][:-1]},
        {"length": tensors["length"] * 0},
        {"id": tensors["id"] + 1},
        {"reward": tensors["reward"].astype(np.float64)},
        {"terminated": tensors["terminated"][::-1].copy()},
        {"random_state": tensors["random_state"] * 0},
    ):
        save_file(tensors | change, path, metadata=metadata)
        with pytest.raises(ValueError, match=f"{path} cannot be loaded"):
            Replay.load(path)
    for broken in ({"replay": "{"}, {"replay": "{}"}, {"replay": "[]"}):
        save_file(tensors, path, metadata=metadata | broken)
        with pytest.raises(ValueError, match=f"{path} cannot be loaded"):
            Replay.load(path)
    with pytest.raises(FileNotFoundError):
        Replay.load(tmp_path / "absent")


def test_a_failed_save_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "replay"
    filled([3]).save(path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        filled([4]).save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["replay"]
    assert Replay.load(path).lengths().tolist() == [3]


def test_writers_and_samplers_run_at_once():
    """Every row of a trajectory carries one number, so that a torn read shows."""
    schema = Schema({"value": Field("int32", (64,))}, Field("int32"))
    replay = Replay.create(schema, capacity_steps=400, threads=2)
    failures, stop = [], threading.Event()

    def write(offset):
        try:
            writer, number = replay.writer(4), offset
            generator = np.random.default_rng(offset)
            while not stop.is_set():
                number += 10
                rows = {"value": np.full((4, 64), number, np.int32)}
                writer.begin(rows, task=np.full(4, number, np.int32))
                for _ in range(generator.integers(1, 20)):
                    zeros = np.zeros(4, bool)
                    writer.append(np.full(4, number, np.int32), np.zeros(4, np.float32), zeros, zeros, rows)
                writer.cut()
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(offset,)) for offset in range(2)]
    for thread in writers:
        thread.start()
    while replay.stats().trajectories < 4:
        pass
    batch = replay.batch(800, 24)
    for _ in range(100):
        replay.sample(800, 24, by="step", out=batch)
        real = batch.mask
        assert (batch.action[real] == np.broadcast_to(batch.task[:, None], real.shape)[real]).all()
        assert (batch.observation["value"][:, :-1][real] == batch.action[real][:, None]).all()
    stop.set()
    for thread in writers:
        thread.join()
    assert not failures
    assert replay.stats().evicted_trajectories > 100
    assert replay.stats().steps <= 400
