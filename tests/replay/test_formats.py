"""Trajectories from and to the files of others: what was written is read, what is malformed is named."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest

from twohot.errors import TwohotError
from twohot.replay import Field, Replay, Schema
from twohot.replay.formats import (
    FormatError,
    amago_tasks,
    read_amago,
    read_minari,
    read_npz,
    schema_of,
    write_minari,
    write_npz,
)


def made(steps: int, seed: int = 0, task: int = 0):
    """A random trajectory, terminated for even seeds and truncated for odd ones."""
    stream = np.random.default_rng(seed)
    last = np.arange(steps) == steps - 1
    return {
        "observation": {
            "image": stream.integers(0, 256, (steps + 1, 4, 4, 3), dtype=np.uint8),
            "state": stream.standard_normal((steps + 1, 3)).astype(np.float16),
            "flag": stream.random(steps + 1) < 0.5,
        },
        "action": stream.integers(0, 5, steps).astype(np.int32),
        "reward": stream.standard_normal(steps).astype(np.float32),
        "terminated": last & (seed % 2 == 0),
        "truncated": last & (seed % 2 == 1),
        "task": task,
    }


def assert_same(actual, expected) -> None:
    assert actual.keys() == expected.keys()
    pairs = [(actual[name], expected[name]) for name in expected if name not in ("observation", "step")]
    for kind in ("observation", "step"):
        if kind in expected:
            assert actual[kind].keys() == expected[kind].keys()
            pairs += [(actual[kind][name], values) for name, values in expected[kind].items()]
    for left, right in pairs:
        np.testing.assert_array_equal(left, right, strict=True)


def stored(trajectories):
    """A replay of the trajectories."""
    trajectories = list(trajectories)
    replay = Replay.create(schema_of(trajectories[0]), capacity_steps=10_000)
    for trajectory in trajectories:
        replay.add(**trajectory)
    return replay


def test_the_schema_of_a_trajectory() -> None:
    fields = {"image": Field("uint8", (4, 4, 3)), "state": Field("float16", (3,)), "flag": Field("bool")}
    assert schema_of(made(5)) == Schema(fields, Field("int32"))


# Plain npz


@pytest.mark.parametrize("name", ["folder", "all.npz"])
def test_npz_gives_back_what_a_replay_holds(tmp_path, name: str) -> None:
    expected = [made(steps, seed, task=seed + 3) for seed, steps in enumerate((5, 1, 9))]
    replay = stored(expected)
    assert write_npz(tmp_path / name, (replay.get(index) for index in range(3))) == 3
    read = list(read_npz(tmp_path / name))
    assert len(read) == 3
    for actual, trajectory in zip(read, expected, strict=True):
        assert_same(actual, trajectory)
    again = stored(read)
    assert again.lengths().tolist() == [5, 1, 9]
    assert again.tasks().tolist() == [3, 4, 5]


@pytest.mark.parametrize("name", ["folder", "all.npz"])
def test_npz_keeps_other_step_fields(tmp_path, name: str) -> None:
    expected = [made(steps) | {"step": {"hint": np.random.rand(steps, 2), "at": np.arange(steps)}} for steps in (4, 2)]
    write_npz(tmp_path / name, expected)
    for actual, trajectory in zip(read_npz(tmp_path / name), expected, strict=True):
        assert_same(actual, trajectory)


def test_npz_of_other_people_needs_few_keys(tmp_path) -> None:
    last = np.arange(4) == 3
    columns = {"action": np.zeros((4, 2)), "reward": np.ones((4, 1)), "terminated": np.zeros(4, np.uint8)}
    big = np.arange(5, dtype=">f4")[:, None]
    np.savez(tmp_path / "one.npz", observation=np.asfortranarray(np.tile(big, 3)), **columns, note=np.array("text"))
    (read,) = read_npz(tmp_path)
    assert read["observation"]["observation"].flags.c_contiguous
    assert read["reward"].dtype == np.float32
    assert read["reward"].shape == (4,)
    assert read["task"] == 0
    np.testing.assert_array_equal(read["truncated"], last, strict=True)
    assert stored([read]).schema.observation["observation"] == Field("float32", (3,))


def test_only_the_fields_that_are_asked_for(tmp_path) -> None:
    write_npz(tmp_path / "some", [made(3)])
    (read,) = read_npz(tmp_path / "some", fields=["state"])
    assert list(read["observation"]) == ["state"]
    with pytest.raises(FormatError, match=r"000000000\.npz: no observation 'sound'; there are image, state, flag"):
        list(read_npz(tmp_path / "some", fields=["sound"]))


def columns_of(trajectory):
    columns = {f"observation/{name}": values for name, values in trajectory["observation"].items()}
    return columns | {name: trajectory[name] for name in ("action", "reward", "terminated", "truncated")}


BROKEN = {
    "no key 'reward'": {"reward": None},
    "reward: expected finite numbers, got nan": {"reward": np.float32([0, np.nan, 0, 0])},
    "reward: expected 4 numbers, got float32 of shape \\(3,\\)": {"reward": np.zeros(3, np.float32)},
    "reward: expected 4 numbers, got <U1": {"reward": np.array(list("abcd"))},
    "step 1 of 4 ends it": {"terminated": np.array([False, True, False, True])},
    "observation 'state': expected 5 rows, got shape \\(4, 3\\)": {"observation/state": np.zeros((4, 3))},
    "observation 'state': expected one of bool, .*; got complex64": {"observation/state": np.zeros(5, np.complex64)},
    "action: expected at least one step": {"action": np.zeros((0, 2), np.float32)},
    "action: objects, which only unpickling could read": {"action": np.array([{}, {}, {}, {}])},
    "task: expected one integer": {"task": np.zeros(2, int)},
    "task: expected 0 .. 2\\^31 - 1, got -1": {"task": np.int64(-1)},
    "step 'hint': expected 4 rows, got shape \\(5,\\)": {"step/hint": np.zeros(5)},
    "step 'at': expected 4 rows, got": {"length": np.array([4]), "step/at": np.zeros(3)},
    "length: expected a row of integers": {"length": np.array([4.0])},
    "action: expected 5 rows, got shape \\(4,\\)": {"length": np.array([2, 3])},
    "observation 'image': expected 6 rows": {"length": np.array([2, 2])},
    "task: expected 1 rows, got shape \\(\\)": {"length": np.array([4]), "task": np.int64(3)},
}


@pytest.mark.parametrize("message", BROKEN)
def test_malformed_npz_is_named(tmp_path, message: str) -> None:
    columns = columns_of(made(4)) | BROKEN[message]
    path = tmp_path / "bad.npz"
    np.savez(path, **{name: values for name, values in columns.items() if values is not None})
    with pytest.raises(FormatError, match=rf"bad\.npz.*{message}"):
        list(read_npz(path))


def test_no_observation_and_no_file(tmp_path) -> None:
    np.savez(tmp_path / "bad.npz", action=np.zeros(4), reward=np.zeros(4), terminated=np.zeros(4, bool))
    with pytest.raises(FormatError, match="expected at least one observation"):
        list(read_npz(tmp_path))
    with pytest.raises(FileNotFoundError, match="No such file"):
        list(read_npz(tmp_path / "none.npz"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no \.npz files"):
        list(read_npz(tmp_path / "empty"))


def test_damaged_archives_are_named(tmp_path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **columns_of(made(50)))
    whole = path.read_bytes()
    damaged = {"cut": whole[:-30], "noise": b"PK\x03\x04" + bytes(100), "empty": b"", "text": b"hello"}
    flipped = bytearray(whole)
    at = whole.index(b"action.npy") + 200
    flipped[at] ^= 0xFF
    damaged["flipped"] = bytes(flipped)
    for content in damaged.values():
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"bad\.npz: "):
            list(read_npz(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("action.npy", b"not an array")
    with pytest.raises(FormatError, match=r"bad\.npz: action: expected an array"):
        list(read_npz(path))
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(path)
    with pytest.raises(FormatError, match=r"expected an \.npz archive"):
        list(read_npz(path))


def test_nothing_is_overwritten(tmp_path) -> None:
    write_npz(tmp_path / "some", [made(3)])
    with pytest.raises(FileExistsError, match="choose another folder"):
        write_npz(tmp_path / "some", [made(3)])
    with pytest.raises(ValueError, match="expected at least one"):
        write_npz(tmp_path / "all.npz", [])


# The official AMAGO buffers


def amago_columns(trajectory, first_time: int = 0):
    """What the official code puts into a file: the steps of a trajectory, stacked over time (amago/hindsight.py)."""
    steps = len(trajectory["reward"])
    one_hot = np.eye(5, dtype=np.float32)[trajectory["action"]]
    previous_action = np.concatenate((np.zeros((1, 5), np.float32), one_hot))
    reward = np.concatenate((np.zeros(1, np.float32), trajectory["reward"]))
    return {
        "rl2s": np.concatenate((reward[:, None], previous_action), -1).astype(np.float32),
        "time_idxs": np.arange(first_time, first_time + steps + 1)[:, None],
        "rews": trajectory["reward"][:, None],
        "dones": trajectory["terminated"][:, None],
        "actions": one_hot,
        **{f"_OBS_KEY_{name}": values for name, values in trajectory["observation"].items()},
    }


@pytest.fixture
def buffer(tmp_path):
    """A buffer of three trajectories of two environments, one of them protected; the newest has the first name."""
    folders = [tmp_path / "buffer" / name for name in ("fifo", "protected")]
    for folder in folders:
        folder.mkdir(parents=True)
    expected = [made(5, 0), made(3, 1), made(7, 2)]
    np.savez(folders[1] / "Maze_00ff00ff_1700000001.25", **amago_columns(expected[0]))
    np.savez(folders[0] / "Maze_12345678_1700000002.5", **amago_columns(expected[1], first_time=40))
    np.savez_compressed(folders[0] / "Cart_0a0b0c0d_1700000003.0", **amago_columns(expected[2]))
    return tmp_path / "buffer", expected


def test_amago_buffers_are_read_in_the_order_of_their_times(buffer) -> None:
    path, expected = buffer
    assert amago_tasks(path) == {"Cart": 0, "Maze": 1}
    read = list(read_amago(path, discrete=True))
    for actual, trajectory, task in zip(read, expected, (1, 1, 0), strict=True):
        assert_same(actual, trajectory | {"task": task})
    assert stored(read).tasks().tolist() == [1, 1, 0]
    plain = next(read_amago(path, tasks={"Maze": 7, "Cart": 8}))
    assert plain["task"] == 7
    np.testing.assert_array_equal(plain["action"], np.eye(5, dtype=np.float32)[expected[0]["action"]], strict=True)


def test_amago_fields_and_single_files(buffer) -> None:
    path, expected = buffer
    file = path / "fifo" / "Maze_12345678_1700000002.5.npz"
    (read,) = read_amago(file, fields=["state"])
    np.testing.assert_array_equal(read["observation"]["state"], expected[1]["observation"]["state"], strict=True)
    assert list(read["observation"]) == ["state"]
    assert read["task"] == 0
    file = file.rename(path / "renamed.npz")
    assert amago_tasks(file) == {"": 0}
    with pytest.raises(FormatError, match="no number for the environment 'Cart' in tasks"):
        list(read_amago(path, tasks={"Maze": 1, "": 2}))


def test_amago_pickles_are_never_read(buffer) -> None:
    path, _ = buffer

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    pickled = path / "fifo" / "Maze_12345678_1700000009.0.traj"
    pickled.write_bytes(pickle.dumps(Trap()))
    for target in (path, pickled):
        with pytest.raises(FormatError, match=r"1700000009\.0\.traj.*pickle.*save_as='npz'"):
            next(read_amago(target))
    with pytest.raises(FileNotFoundError, match="found no"):
        next(read_amago(path / "none"))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("actions", None, "no key 'actions'; there are rl2s"),
        ("actions", np.full((3, 5), 0.2, np.float32), "expected one-hot rows"),
        ("actions", np.zeros(3, np.float32), "expected shape"),
        ("actions", np.array([[None]] * 3), "objects, which only unpickling could read"),
        ("time_idxs", np.arange(3)[:, None], "time_idxs: expected 4 consecutive numbers"),
        ("time_idxs", np.array([[0], [1], [1], [2]]), "time_idxs: expected 4 consecutive numbers"),
        ("rews", np.zeros((2, 1), np.float32), "reward: expected 3 numbers"),
        ("dones", np.array([[True], [False], [False]]), "step 0 of 3 ends it"),
        ("_OBS_KEY_state", np.zeros((3, 2), np.float32), "observation 'state': expected 4 rows"),
    ],
)
def test_malformed_amago_files_are_named(tmp_path, name: str, values, message: str) -> None:
    columns = amago_columns(made(3)) | {name: values}
    np.savez(tmp_path / "a_b_1.0.npz", **{key: value for key, value in columns.items() if value is not None})
    with pytest.raises(FormatError, match=rf"a_b_1\.0\.npz.*{message}"):
        list(read_amago(tmp_path, discrete=True))


# Minari


@pytest.fixture
def minari(monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    import minari

    return minari


def test_minari_gives_back_what_was_written(minari) -> None:
    expected = [made(3 + seed % 5, seed, task=seed) for seed in range(140)]
    replay = stored(expected)
    assert write_minari("mine/x-v0", (replay.get(index) for index in range(140)), author="me") == 140
    for actual, trajectory in zip(read_minari("mine/x-v0"), expected, strict=True):
        assert_same(actual, trajectory)
    dataset = minari.load_dataset("mine/x-v0")
    assert dataset.storage.FORMAT == "hdf5"
    picked = list(read_minari(dataset.filter_episodes(lambda episode: len(episode) == 3), fields=["state"]))
    assert [len(trajectory["reward"]) for trajectory in picked] == [3] * 28
    assert list(picked[0]["observation"]) == ["state"]
    with pytest.raises(ValueError, match="already exists"):
        write_minari("mine/x-v0", [made(3)])
    with pytest.raises(ValueError, match="expected at least one"):
        write_minari("mine/y-v0", [])
    with pytest.raises(FileNotFoundError):
        next(read_minari("mine/none-v0"))


def test_other_step_fields_enter_schemas_and_minari(minari) -> None:
    noted = made(5) | {"step": {"hint": np.random.rand(5, 2), "at": np.arange(5)}}
    assert schema_of(noted).step == {"hint": Field("float64", (2,)), "at": Field("int64")}
    write_minari("mine/noted-v0", [noted])
    (read,) = read_minari("mine/noted-v0")
    assert_same(read, noted)
    assert_same(stored([read]).get(0), noted)


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_minari_datasets_of_others(minari, tmp_path) -> None:
    from gymnasium import spaces

    number, text = spaces.Box(-1, 1, (2,), np.float64), spaces.Text(9)
    space = spaces.Dict({"deep": spaces.Dict({"left": number, "right": spaces.Tuple((number, number))}), "say": text})

    def episode(**changes):
        left = np.arange(8.0).reshape(4, 2) / 9
        columns = {
            "observations": {"deep": {"left": left, "right": (left + 0.1, left - 0.1)}, "say": ["a", "b", "c", "d"]},
            "actions": np.array([3, 1, 2]),
            "rewards": [0.1, 0.2, 0.3],
            "terminations": [False, False, False],
            "truncations": [False, False, False],
        }
        return minari.data_collector.EpisodeBuffer(**columns | changes)

    def dataset(name: str, action=None, **changes):
        options = {"observation_space": space, "action_space": action or spaces.Discrete(5)}
        return minari.create_dataset_from_buffers(f"theirs/{name}-v0", [episode(**changes)], **options)

    good = dataset("good")
    fields = ["deep/left", "deep/right/1"]
    for source in ("theirs/good-v0", good, tmp_path / "datasets" / "theirs" / "good-v0" / "data"):
        (read,) = read_minari(source, fields=fields)
        assert list(read["observation"]) == fields
        np.testing.assert_allclose(read["observation"]["deep/right/1"], np.arange(8.0).reshape(4, 2) / 9 - 0.1)
        np.testing.assert_array_equal(read["reward"], np.float32([0.1, 0.2, 0.3]), strict=True)
        assert read["truncated"].tolist() == [False, False, True]
        assert read["task"] == 0
    assert stored([read]).schema.action == Field("int64")
    with pytest.raises(FormatError, match=r"theirs/good-v0: episode 0: observation 'say': expected one of bool"):
        list(read_minari("theirs/good-v0"))
    pair = spaces.Tuple((spaces.Discrete(5), spaces.Discrete(5)))
    dataset("pair", pair, actions=(np.array([3, 1, 2]), np.array([3, 1, 2])))
    with pytest.raises(FormatError, match="actions: expected one array, got a tuple"):
        list(read_minari("theirs/pair-v0", fields=fields))
    dataset("early", terminations=[True, False, True])
    with pytest.raises(FormatError, match="step 0 of 3 ends it"):
        list(read_minari("theirs/early-v0", fields=fields))


def test_without_minari_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(TwohotError, match=r"pip install .*\[minari\]'"):
        next(read_minari("mine/x-v0"))
    with pytest.raises(TwohotError, match=r"pip install .*\[minari\]'"):
        write_minari("mine/x-v0", [made(3)])
