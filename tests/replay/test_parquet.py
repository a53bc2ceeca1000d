"""Exports for Hugging Face datasets and in LeRobot's format, read back column by column.

Their own readers read them in an environment of their own: `make read-exports`.
"""

import io
import json

import numpy as np
import pytest

from twohot.replay import Replay
from twohot.replay.formats import FormatError, schema_of, write_datasets, write_lerobot
from twohot.replay.formats import parquet as module
from twohot.replay.formats.parquet import _Statistics

parquet = pytest.importorskip("pyarrow.parquet")


def trajectory(length, task, *, seed=0, **observation):
    """Of an image, a vector, a grid and a number, with step fields."""
    stream = np.random.default_rng((seed, length, task))
    rows = length + 1
    seen = {
        "image": stream.integers(0, 256, (rows, 6, 5, 3), dtype=np.uint8),
        "joints": stream.standard_normal((rows, 4), np.float32),
        "nested/grid": stream.integers(0, 9, (rows, 2, 3)).astype(np.int32),
        "height": stream.standard_normal(rows, np.float32),
    }
    return {
        "observation": observation or seen,
        "action": stream.standard_normal((length, 1), np.float32),
        "reward": stream.standard_normal(length, np.float32),
        "terminated": np.arange(length) == (length - 1 if length % 2 else -1),
        "truncated": np.arange(length) == (-1 if length % 2 else length - 1),
        "task": task,
        "step": {"logits/a": stream.standard_normal((length, 3), np.float32)},
    }


TRAJECTORIES = [trajectory(length, task) for length, task in ((5, 3), (2, 0), (7, 3))]


def read(path):
    """The columns of a file, or of files in order, as lists."""
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    tables = [parquet.read_table(file).to_pydict() for file in files]
    return {name: [value for table in tables for value in table[name]] for name in tables[0]}


@pytest.mark.parametrize("size", [1, module._BYTES])
def test_datasets_have_every_number(size, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BYTES", size)
    assert write_datasets(tmp_path / "new", iter(TRAJECTORIES)) == 3
    assert len(list((tmp_path / "new" / "data").iterdir())) == (3 if size == 1 else 1)
    found = read(tmp_path / "new" / "data")
    assert found["task"] == [3, 0, 3]
    for index, each in enumerate(TRAJECTORIES):
        columns = {f"observation/{name}": array for name, array in each["observation"].items()}
        columns |= {name: each[name] for name in ("action", "reward", "terminated", "truncated")}
        columns |= {"step/logits/a": each["step"]["logits/a"]}
        assert {*columns, "task"} == set(found)
        for name, array in columns.items():
            np.testing.assert_array_equal(np.array(found[name][index], array.dtype), array, name)


@pytest.mark.parametrize("size", [1, module._BYTES])
def test_lerobot_has_every_step(size, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(module, "_BYTES", size)
    assert write_lerobot(tmp_path, iter(TRAJECTORIES), fps=10, tasks={3: "open the door"}) == 3
    found, about = read(tmp_path / "data"), json.loads((tmp_path / "meta" / "info.json").read_text())
    assert set(found) == set(about["features"])
    assert (about["total_episodes"], about["total_frames"], about["total_tasks"]) == (3, 14, 2)
    assert about["splits"] == {"train": "0:3"}

    def joined(pick):
        return np.concatenate([pick(each) for each in TRAJECTORIES])

    expected = {
        "observation.joints": joined(lambda each: each["observation"]["joints"][:-1]),
        "observation.nested.grid": joined(lambda each: each["observation"]["nested/grid"][:-1]),
        "observation.height": joined(lambda each: each["observation"]["height"][:-1]),
        "action": joined(lambda each: each["action"][:, 0]),
        "next.reward": joined(lambda each: each["reward"]),
        "next.terminated": joined(lambda each: each["terminated"]),
        "next.done": joined(lambda each: each["terminated"] | each["truncated"]),
        "step.logits.a": joined(lambda each: each["step"]["logits/a"]),
        "timestamp": joined(lambda each: np.arange(len(each["reward"]), dtype=np.float32) / np.float32(10)),
        "frame_index": joined(lambda each: np.arange(len(each["reward"]))),
        "episode_index": np.repeat([0, 1, 2], [5, 2, 7]),
        "task_index": np.repeat([0, 1, 0], [5, 2, 7]),
        "index": np.arange(14),
    }
    for name, array in expected.items():
        np.testing.assert_array_equal(np.array(found[name], array.dtype), array, name)
        feature = about["features"][name]
        assert (feature["dtype"], tuple(feature["shape"])) == (str(array.dtype), array.shape[1:] or (1,)), name
    images = [np.array(Image.open(io.BytesIO(each["bytes"]))) for each in found["observation.images.image"]]
    whole = joined(lambda each: each["observation"]["image"][:-1])
    np.testing.assert_array_equal(images, whole)
    assert about["features"]["observation.images.image"]["shape"] == [6, 5, 3]

    episodes = read(tmp_path / "meta" / "episodes")
    assert episodes["length"] == [5, 2, 7]
    assert episodes["tasks"] == [["open the door"], ["task 0"], ["open the door"]]
    assert (episodes["dataset_from_index"], episodes["dataset_to_index"]) == ([0, 5, 7], [5, 7, 14])
    for index, length in enumerate(episodes["length"]):
        place = {"chunk_index": episodes["data/chunk_index"][index], "file_index": episodes["data/file_index"][index]}
        rows = read(tmp_path / about["data_path"].format(**place))["episode_index"]
        assert rows.count(index) == length
    assert read(tmp_path / "meta" / "tasks.parquet") == {"task_index": [0, 1], "task": ["open the door", "task 0"]}
    statistics = json.loads((tmp_path / "meta" / "stats.json").read_text())
    for name, array in (*list(expected.items())[:8], ("observation.images.image", whole / 255)):
        axes = (0, 1, 2) if name.endswith("image") else 0
        mine = statistics[name]
        assert mine["count"] == [14]
        for kind, value in (("min", array.min(axes)), ("max", array.max(axes))):
            np.testing.assert_array_equal(np.ravel(mine[kind]), np.ravel(value).astype(np.float64), name)
        # A difference of means of squares, each below 64: eps of those in the variance.
        error = np.square(mine["std"]).ravel() - array.var(axes, dtype=np.float64).ravel()
        assert np.abs(error).max() <= 64 * 14 * np.finfo(np.float64).eps
        mean = np.ravel(mine["mean"]) - np.ravel(array.mean(axes, dtype=np.float64))
        assert np.abs(mean).max() <= 8 * 14 * np.finfo(np.float64).eps
        assert np.shape(mine["mean"]) == ((3, 1, 1) if name.endswith("image") else array.shape[1:] or (1,))


def test_a_lone_vector_is_the_state(tmp_path):
    write_lerobot(tmp_path, [trajectory(3, 0, observation=np.zeros((4, 2), np.float32))])
    assert "observation.state" in read(tmp_path / "data")


def test_deviations_survive_an_offset():
    statistics, times = _Statistics(image=False), 1.7e9 + 0.05 * np.arange(100)
    for part in np.split(times, 4):
        statistics.add(part)
    found = statistics.summary()
    assert found["std"] == pytest.approx([times.std()], rel=1e-6)
    assert found["mean"] == pytest.approx([times.mean()], rel=1e-15)


def test_what_cannot_be_written_is_said(tmp_path):
    other = {**TRAJECTORIES[0], "reward": TRAJECTORIES[0]["reward"], "step": {}}
    for write in (write_datasets, write_lerobot):
        with pytest.raises(ValueError, match="at least one, got none"):
            write(tmp_path / "empty", [])
        with pytest.raises(ValueError, match="expected equal columns"):
            write(tmp_path / "two", [TRAJECTORIES[0], other])
        (tmp_path / "full").mkdir(exist_ok=True)
        (tmp_path / "full" / "file").touch()
        with pytest.raises(FileExistsError, match="holds something"):
            write(tmp_path / "full", TRAJECTORIES)
    with pytest.raises(ValueError, match="fps: expected at least 1"):
        write_lerobot(tmp_path / "fps", TRAJECTORIES, fps=0)
    vector = np.zeros((4, 2), np.float32)
    with pytest.raises(FormatError, match="two columns have one name"):
        write_lerobot(tmp_path / "names", [trajectory(3, 0, **{"a/b": vector, "a.b": vector})])
    with pytest.raises(FormatError, match="at most 5 dimensions"):
        write_lerobot(tmp_path / "deep", [trajectory(3, 0, deep=np.zeros((4, 1, 2, 1, 2, 1, 2), np.float32))])


def test_the_command_writes_both(tmp_path, capsys):
    from twohot.cli.main import main

    with Replay.create(schema_of(TRAJECTORIES[0]), capacity_steps=100, directory=tmp_path / "replay") as replay:
        for each in TRAJECTORIES:
            replay.add(**each)
    directory = str(tmp_path / "replay")
    assert main(["replay", "export", "datasets", directory, str(tmp_path / "one")]) == 0
    options = ["--fps", "5", "--tasks", "zero", "one", "two", "three"]
    assert main(["replay", "export", "lerobot", directory, str(tmp_path / "two"), *options]) == 0
    assert capsys.readouterr().out.count("wrote 3 trajectories") == 2
    assert read(tmp_path / "one" / "data")["task"] == [3, 0, 3]
    assert json.loads((tmp_path / "two" / "meta" / "info.json").read_text())["fps"] == 5
    assert read(tmp_path / "two" / "meta" / "tasks.parquet")["task"] == ["three", "zero"]
