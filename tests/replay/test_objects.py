"""What users pass around: pickled, copied, hashed and compared; a replay of a directory in another process."""

import copy
import dataclasses
import multiprocessing
import pickle

import numpy as np
import pytest

from replay_crash import draw_and_add
from twohot.replay import Batch, Field, Mixture, Problem, Replay, ReplayStats, Schema

SCHEMA = Schema(
    {"image": Field("uint8", (4, 4), compression="lz4"), "state": Field("float32", (3,), nan=True)},
    Field("int64"),
    {"skill": Field("float16", (2,))},
)
OTHER_ORDER = Schema(dict(reversed(list(SCHEMA.observation.items()))), SCHEMA.action, SCHEMA.step)
COPIES = {
    "copied": copy.copy,
    "deep": copy.deepcopy,
    **{f"pickled {p}": lambda x, p=p: pickle.loads(pickle.dumps(x, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)},
}


def columns(steps=6):
    last = np.arange(steps) == steps - 1
    return {
        "observation": {"image": np.ones((steps + 1, 4, 4), np.uint8), "state": np.ones((steps + 1, 3), np.float32)},
        "action": np.arange(steps),
        "reward": np.ones(steps, np.float32),
        "terminated": last,
        "truncated": np.zeros(steps, bool),
        "step": {"skill": np.ones((steps, 2), np.float16)},
    }


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize(
    "value",
    [SCHEMA, SCHEMA.observation, SCHEMA.action, ReplayStats(*range(8)), Problem("a", "b")],
    ids=["schema", "fields", "field", "stats", "problem"],
)
def test_values_are_copied_compared_and_hashed(value, how):
    made = COPIES[how](value)
    assert made == value
    assert hash(made) == hash(value)
    assert {value: 1}[made] == 1
    assert repr(made) == repr(value)


def test_schemas_are_told_apart_by_what_they_hold():
    assert OTHER_ORDER == SCHEMA
    assert hash(OTHER_ORDER) == hash(SCHEMA)
    assert list(Schema.from_json(SCHEMA.to_json()).observation) == ["image", "state"]
    changed = dataclasses.replace(SCHEMA, action=Field("int32"))
    assert changed != SCHEMA
    assert len({SCHEMA, OTHER_ORDER, changed}) == 2
    assert dataclasses.asdict(SCHEMA)["observation"] == SCHEMA.observation
    with pytest.raises(TypeError):
        SCHEMA.observation["more"] = Field("int8")


def test_fields_in_another_order_are_told_by_name(tmp_path):
    one, other = (Replay.create(schema, capacity_steps=100) for schema in (SCHEMA, OTHER_ORDER))
    for replay in (one, other):
        replay.add(**columns())
    batch = Mixture([one, other], [1, 1]).sample(64, 3)
    assert (batch.observation["image"][:, :4] == 1).all()
    assert (batch.observation["state"][:, :4] == 1).all()
    other.save(tmp_path / "saved")
    assert Replay.load(tmp_path / "saved").schema == SCHEMA
    with Replay.create(OTHER_ORDER, capacity_steps=100, directory=tmp_path / "kept") as kept:
        kept.add(**one.get(0))
    with Replay.open(tmp_path / "kept") as kept:
        np.testing.assert_array_equal(kept.get(int(kept.ids()[0]))["observation"]["state"], np.ones((7, 3)))


@pytest.mark.parametrize(
    ("given", "name"),
    [(np.float32, "float32"), (np.dtype("uint8"), "uint8"), (np.dtype("<i8"), "int64"), (np.bool_, "bool")],
)
def test_dtypes_of_numpy_are_names(given, name):
    field = Field(given)
    assert field.dtype == name
    assert type(field.dtype) is str
    assert field == Field(name)
    assert hash(field) == hash(Field(name))
    schema = Schema({"x": field}, field)
    assert Schema.from_json(schema.to_json()) == schema
    Replay.create(schema, capacity_steps=3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Field(np.dtype(">f4")),
        lambda: Field(float),
        lambda: Field(None),
        lambda: Field(np.complex64),
        lambda: Field("float32", 3.5),
        lambda: Field("float32", "34"),
        lambda: Field("float32", (2.7,)),
        lambda: Field("float32", None),
        lambda: Field("float32", (2**70,)),
        lambda: Field("float32", nan="no"),
        lambda: Field("float32", compression=None),
        lambda: Schema({"x": "float32"}, Field("int64")),
        lambda: Schema({"x": Field("int8")}, "int64"),
        lambda: Schema(None, Field("int64")),
        lambda: Schema([Field("int8")], Field("int64")),
        lambda: Schema({"\ud800": Field("int8")}, Field("int64")),
        lambda: Schema({"a\0b": Field("int8")}, Field("int64")),
        lambda: Schema({3: Field("int8")}, Field("int64")),
        lambda: Schema({"x": Field("int8")}, Field("int64"), {"reward": Field("int8")}),
    ],
)
def test_what_is_no_field_or_schema_says_so(make):
    with pytest.raises((TypeError, ValueError), match=r"expected|has 'reward' already"):
        make()


@pytest.mark.parametrize("mode", ["read", "append", "write"])
@pytest.mark.parametrize("how", COPIES)
def test_a_replay_of_a_directory_is_opened_again(tmp_path, mode, how):
    with Replay.create(SCHEMA, capacity_steps=100, directory=tmp_path / "kept") as kept:
        kept.add(**columns())
    options = {"capacity_steps": 70, "seed": 5, "threads": 1, "corrupt": "skip"}
    with Replay.open(tmp_path / "kept", mode, **options) as replay, COPIES[how](replay) as other:
        assert other.schema == replay.schema
        assert other.directory == replay.directory
        assert other._capacity == replay._capacity
        np.testing.assert_array_equal(other.random_state, replay.random_state)
        if mode == "read":
            np.testing.assert_array_equal(other.sample(8, 3).start, replay.sample(8, 3).start)
            with pytest.raises(RuntimeError, match="opened for reading"):
                other.add(**columns())
        else:
            other.add(**columns())


def test_a_spawned_process_gets_a_replay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Replay.create(SCHEMA, capacity_steps=100, directory="kept", seed=3) as replay:
        replay.add(**columns())
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        expected = pickle.loads(pickle.dumps(replay)).sample(16, 3).start.tolist()
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")  # a relative path means the same directory all the while
        process = context.Process(target=draw_and_add, args=(replay, theirs, columns(4)))
        process.start()
        theirs.close()  # so that its death ends the connection
        drawn = ours.recv()
        process.join()
        assert process.exitcode == 0
        assert drawn == expected
        replay.refresh()
        assert sorted(replay.lengths().tolist()) == [4, 6]


def test_what_cannot_be_sent_says_so(tmp_path):
    replay = Replay.create(SCHEMA, capacity_steps=100)
    replay.add(**columns())
    for how in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"a replay in memory cannot be copied.*directory="):
            how(replay if how is copy.copy else Mixture([replay], [1]))
        with pytest.raises(TypeError, match="a writer cannot be copied"):
            how(replay.writer(1))
        with pytest.raises(TypeError, match="generator"):
            how(replay.loader(1, 1, batches=1))
    kept = Replay.create(SCHEMA, capacity_steps=100, directory=tmp_path / "kept")
    kept.close()
    with pytest.raises(RuntimeError, match="closed"):
        pickle.dumps(kept)


@pytest.mark.parametrize("how", ["deep", "pickled 5"])
def test_a_mixture_of_directories_goes_on_where_it_was(tmp_path, how):
    kept = [Replay.create(SCHEMA, capacity_steps=100, directory=tmp_path / name, seed=2) for name in "ab"]
    for replay in kept:
        replay.add(**columns())
    mixture = Mixture(kept, [1, 3], seed=4)
    mixture.sample(5, 2)
    other = COPIES[how](mixture)
    np.testing.assert_array_equal(other.weights, mixture.weights)
    np.testing.assert_array_equal(other.sample(32, 2).start, mixture.sample(32, 2).start)


@pytest.mark.parametrize("how", ["deep", "pickled 5"])
@pytest.mark.parametrize("torch", [False, True])
def test_a_copied_batch_is_filled_by_itself(how, torch):
    replay = Replay.create(SCHEMA, capacity_steps=100)
    replay.add(**columns())
    batch = replay.sample(2, 3, out=replay.batch(2, 3, torch=torch))
    other = COPIES[how](batch)
    assert isinstance(other, Batch)
    replay.clear()
    replay.add(**{**columns(), "reward": np.full(6, 7, np.float32)})
    replay.sample(2, 3, out=other)
    assert (np.asarray(other.reward) == 7).all()
    assert (np.asarray(batch.reward) == 1).all()


@pytest.mark.parametrize("torch", [False, True])
def test_columns_that_a_learner_binds_anew_do_not_hide_later_ones(torch):
    """A loop that normalises what it was given must see the next window, not the one that it had bound."""
    replay = Replay.create(SCHEMA, capacity_steps=1000)
    for value in range(10):
        replay.add(**{**columns(4), "reward": np.full(4, value + 1, np.float32)})
    twin = Replay.create(SCHEMA, capacity_steps=1000)
    for id in replay.ids():
        twin.add(**replay.get(id))
    for batch in replay.loader(4, 4, batches=12, torch=torch):
        expected = twin.sample(4, 4)
        np.testing.assert_array_equal(np.asarray(batch.reward), expected.reward)
        np.testing.assert_array_equal(np.asarray(batch.observation["image"]), expected.observation["image"])
        batch.reward = batch.reward * 2
        batch.observation["image"] = batch.observation["image"] / 255
    out = replay.batch(4, 4, torch=torch)
    for _ in range(3):
        replay.sample(4, 4, out=out)
        np.testing.assert_array_equal(np.asarray(out.reward), twin.sample(4, 4).reward)
        out.reward = out.reward * 2
    out.observation["image"] = out.observation["image"] / 255
    with pytest.raises(ValueError, match="observation 'image': expected a C-contiguous uint8 array"):
        replay.sample(4, 4, out=out)
