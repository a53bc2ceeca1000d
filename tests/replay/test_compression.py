"""Compressed fields: the same batches in less memory, on disk too, and damage that is seen."""

import numpy as np
import pytest

from twohot.replay import CorruptReplayError, Field, Replay, Schema

CODECS = ["lz4", "zstd"]
SHAPE = (32, 32, 3)


def schema(codec):
    observation = {"image": Field("uint8", SHAPE, compression=codec), "state": Field("float32", (3,))}
    return Schema(observation, Field("int64"), {"mask": Field("bool", (500,), compression=codec)})


def trajectory(steps, seed):
    """Noise, so that no two rows are alike, in a corner of otherwise regular images."""
    random = np.random.default_rng(seed)
    image = np.full((steps + 1, *SHAPE), seed % 256, np.uint8)
    image[:, :8, :8] = random.integers(256, size=(steps + 1, 8, 8, 3))
    return {
        "observation": {"image": image, "state": random.normal(size=(steps + 1, 3)).astype(np.float32)},
        "action": np.arange(steps),
        "reward": random.normal(size=steps).astype(np.float32),
        "terminated": np.arange(steps) == steps - 1,
        "truncated": np.zeros(steps, bool),
        "step": {"mask": random.random((steps, 500)) < 0.1},
        "task": seed,
    }


# A group has 21 images: lengths around it, and one and many groups.
TRAJECTORIES = [trajectory(steps, seed) for seed, steps in enumerate((1, 5, 19, 20, 21, 22, 41, 42, 100))]


def filled(codec, directory=None, threads=2):
    replay = Replay.create(schema(codec), capacity_steps=1000, directory=directory, seed=3, threads=threads)
    for each in TRAJECTORIES:
        replay.add(**each)
    return replay


def assert_same(left, right):
    for name in ("image", "state"):
        np.testing.assert_array_equal(left.observation[name], right.observation[name], err_msg=name)
    np.testing.assert_array_equal(left.step["mask"], right.step["mask"])
    for name in ("action", "reward", "time", "mask", "previous_action", "trajectory", "start"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("on_disk", [False, True])
def test_batches_are_those_of_the_plain_store(tmp_path, codec, on_disk):
    plain = filled("")
    packed = filled(codec, tmp_path / "replay" if on_disk else None)
    assert packed.stats().bytes < plain.stats().bytes / 3
    for length in (1, 7, 21, 60, 120):
        for options in ({}, {"pad": "left", "lookahead": 2, "window": "end"}):
            assert_same(packed.sample(40, length, **options), plain.sample(40, length, **options))
    for mine, theirs in zip(packed.ids().tolist(), plain.ids().tolist(), strict=True):
        left, right = packed.get(mine), plain.get(theirs)
        np.testing.assert_array_equal(left["observation"]["image"], right["observation"]["image"])
        np.testing.assert_array_equal(left["step"]["mask"], right["step"]["mask"])
    if on_disk:
        packed.close()
        with Replay.open(tmp_path / "replay", seed=3) as again:
            assert again.verify() == []
            assert_same(again.sample(40, 30), filled("").sample(40, 30))


@pytest.mark.parametrize("codec", CODECS)
def test_writers_and_large_batches(codec):
    """Trajectories of two environments that a writer collects, and a batch that several threads unpack."""
    plain, packed = (Replay.create(schema(name), capacity_steps=1000, seed=1) for name in ("", codec))
    first, second = trajectory(150, 1), trajectory(150, 2)

    def rows(kind, name, t):
        return np.stack([each[kind][name][t] for each in (first, second)])

    for replay in (plain, packed):
        writer = replay.writer(2)
        writer.begin({name: rows("observation", name, 0) for name in ("image", "state")})
        for t in range(150):
            parts = (np.stack([each[name][t] for each in (first, second)]) for name in ("action", "reward"))
            flags = np.full(2, t == 149)
            observation = {name: rows("observation", name, t + 1) for name in ("image", "state")}
            writer.append(*parts, flags, np.zeros(2, bool), observation, step={"mask": rows("step", "mask", t)})
    assert_same(packed.sample(64, 100), plain.sample(64, 100))


def test_capacity_counts_compressed_bytes():
    one = filled("lz4").stats().bytes
    replay = Replay.create(schema("lz4"), capacity_bytes=2 * one)
    for _ in range(3):
        for each in TRAJECTORIES:
            replay.add(**each)
    stats = replay.stats()
    assert one < stats.bytes <= 2 * one
    assert stats.evicted_trajectories > 0


@pytest.mark.parametrize("codec", CODECS)
def test_damage_is_seen_and_crashes_nothing(tmp_path, codec):
    """Bytes are changed under an open replay: sampling raises or gives other numbers, verify names the file."""
    replay = filled(codec, tmp_path / "replay")
    (data,) = (tmp_path / "replay").glob("*.data")
    random, messages = np.random.default_rng(0), []
    whole = data.read_bytes()
    for _ in range(60):
        with data.open("r+b") as file:
            for at in random.integers(256, len(whole), size=8).tolist():
                file.seek(at)
                file.write(bytes([int(random.integers(256))]))
        try:
            replay.sample(30, 50)
            for index in replay.ids().tolist():
                replay.get(index)
        except CorruptReplayError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all("cannot be decompressed" in message for message in messages)
    assert any(str(data) in str(problem) for problem in replay.verify())


def test_a_damaged_table_of_columns_is_seen(tmp_path):
    replay = filled("lz4", tmp_path / "replay")
    (data,) = (tmp_path / "replay").glob("*.data")
    for value in (1, 63, 192, 2**31, 2**63, 2**64 - 1):
        with data.open("r+b") as file:
            file.seek(256)  # behind the header and the first record
            file.write(value.to_bytes(8, "little"))
        with pytest.raises(CorruptReplayError, match="cannot be decompressed"):
            replay.get(int(replay.ids()[0]))


def test_bad_compression():
    with pytest.raises(ValueError, match=r"compression: expected one of '', 'lz4', 'zstd'; got 'gzip'"):
        Field("uint8", compression="gzip")
    with pytest.raises(ValueError, match="an action cannot be compressed"):
        Replay.create(Schema({"x": Field("uint8")}, Field("uint8", compression="lz4")), capacity_steps=1)
