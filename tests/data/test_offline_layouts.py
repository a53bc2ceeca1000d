"""Recordings of every layout, convention and action are what an environment shows an agent, and played as they were."""

import numpy as np
import pytest
from gymnasium import spaces

import layout_suite
from tests.data.test_offline_numbers import saved, stored
from twohot import envs
from twohot.data.offline import load_offline
from twohot.data.offline_columns import OfflineError, Recorded
from twohot.envs.observations import ObservationReader, as_parts
from twohot.envs.wrappers.actions import BoxScale
from twohot.replay import Field, Replay, Schema
from twohot.spaces import as_dict_space


def leaves(space, value, name=""):
    """(name, array) of each part, as a dataset of Minari names them."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        items = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in items:
            yield from leaves(part, value[key], f"{name}/{key}" if name else str(key))
    else:
        yield name or "observation", np.asarray(value, space.dtype)


def recorded(tmp_path, space, values, **columns):
    rows = [dict(leaves(space, value)) for value in values]
    return saved(tmp_path, observation={name: np.stack([row[name] for row in rows]) for name in rows[0]}, **columns)


@pytest.mark.parametrize("one_vector", [True, False])
@pytest.mark.parametrize("name", layout_suite.names())
def test_a_recording_is_what_the_environment_shows(tmp_path, name, one_vector):
    own, action = layout_suite.space_of(name), layout_suite.ACTIONS[name.rpartition("-")[2]]
    values = [layout_suite.observation_at(name, time) for time in range(3)]
    reader = ObservationReader(own, action, "here", one_vector=one_vector)
    taken = np.stack([action.low, action.high] if isinstance(action, spaces.Box) else [action.sample()] * 2)
    data = load_offline(
        recorded(tmp_path, own, values, action=taken),
        observation_space=as_dict_space(reader.space),
        action_space=envs.common_action_space([action]),
        recorded_observation_space=own,
        recorded_action_space=action,
        context_features=False,
    )
    rows = stored(data)["observation"]
    shown = [as_parts(reader.read(value)) for value in values]
    assert rows.keys() == shown[0].keys()
    for part, column in rows.items():
        np.testing.assert_array_equal(column, np.stack([each[part] for each in shown]), strict=True)


SEEN = {
    "an image [C, H, W]": ({"x": spaces.Box(0, 255, (3, 16, 20), np.uint8)}, (16, 20, 3)),
    "an image [H, W]": ({"x": spaces.Box(0, 255, (5, 6), np.uint8)}, (5, 6, 1)),
    "a grid [H, W]": ({"grid": spaces.Box(0, 9, (5, 6), np.int64)}, (5, 6, 1)),
    "bytes named grid": ({"grid": spaces.Box(0, 9, (3, 16, 20), np.uint8)}, (3, 16, 20)),
    "a grid of bits": ({"grid": spaces.MultiBinary((5, 6))}, (5, 6, 1)),
    "a nested mask": ({"x": spaces.Dict({"action_mask": spaces.MultiBinary(2)})}, (2,)),
    "a mask of floats": ({"action_mask": spaces.Box(0, 1, (2,), np.float32)}, (2,)),
    "a mask of choices": ({"action_mask": spaces.MultiDiscrete([2, 2])}, (2,)),
}


@pytest.mark.parametrize("name", SEEN)
def test_without_the_space_of_the_recording(tmp_path, name):
    parts, shape = SEEN[name]
    own = spaces.Dict({**parts, "state": spaces.Box(0, 1, (2,))})
    own.seed(0)
    values = [own.sample() for _ in range(3)]
    for value in values:
        if name == "a mask of floats":
            value["action_mask"] = value["action_mask"].round()
    reader = ObservationReader(own, spaces.Discrete(2), "here")
    source = recorded(tmp_path, own, values)
    for given in (None, reader.space):
        data = load_offline(source, observation_space=given, context_features=False)
        rows = stored(data)["observation"]
        for part in reader.space.spaces:
            np.testing.assert_array_equal(rows[part], np.stack([reader.read(value)[part] for value in values]))
        assert shape in [space.shape for space in data.observation_space.values()]


BITS = np.ones((3, 4), np.int8)
REFUSED = {
    "action_space says how many": {"action_mask": BITS[:, :3], "action": np.array([[0, 1], [1, 0]])},
    "expected one action_mask, got several: a/action_mask, b/action_mask": {
        "a/action_mask": BITS,
        "b/action_mask": BITS,
    },
    "observation 'x/action_mask': expected 0 or 1 .*got 0.5 to 0.5": {"x/action_mask": np.full((3, 2), 0.5)},
    r"expected tokens \[T\], which its name promises, got \(2, 2\)": {"tokens": np.ones((3, 2, 2), int)},
    r"expected a grid \[H, W\] or \[H, W, C\], which": {"grid": np.ones((3, 2), int)},
    "observation 'tokens': expected Box.*got -1 to -1": {"tokens": -np.ones((3, 2), int)},
}


@pytest.mark.parametrize("message", REFUSED)
def test_recordings_that_no_environment_shows_are_refused(tmp_path, message):
    columns = dict(REFUSED[message])
    action = columns.pop("action", np.array([0, 1]))
    with pytest.raises(OfflineError, match=message):
        load_offline(saved(tmp_path, observation={"state": np.zeros((3, 1)), **columns}, action=action))


def test_a_mask_says_how_many_choices_there_are(tmp_path):
    source = saved(tmp_path, observation={"state": np.zeros((3, 1)), "action_mask": BITS})
    assert load_offline(source).action_space == spaces.Discrete(4)


def test_a_replay_with_a_mask_is_opened_as_it_is(tmp_path):
    schema = Schema({"x": Field("float32", (2,)), "action_mask": Field("int8", (4,))}, Field("int32"))
    with Replay.create(schema, capacity_steps=10, directory=tmp_path / "kept") as replay:
        ends = np.array([False, True])
        rows = {"x": np.zeros((3, 2), np.float32), "action_mask": BITS}
        replay.add(rows, np.array([0, 1], np.int32), np.zeros(2, np.float32), ends, ends & False)
    data = load_offline(tmp_path / "kept")
    assert data.observation_space["action_mask"] == spaces.MultiBinary(4)
    assert (data.replay.directory, data.action_space) == (tmp_path / "kept", spaces.Discrete(4))
    with pytest.raises(OfflineError, match=r"kept: observation 'action_mask': expected one of the shape \(3,\)"):
        load_offline(tmp_path / "kept", action_space=spaces.Discrete(3))


BOXES = [(0, 1, np.int8), (-3, 7, np.int16), (0, 255, np.uint8), (-(2**15), 2**15 - 1, np.int16), (5, 5, np.int64)]


@pytest.mark.parametrize(("low", "high", "dtype"), [*BOXES, (0, 2**16 - 1, np.uint16), (0, 1, bool)])
def test_integer_actions_are_played_as_they_were_recorded(tmp_path, low, high, dtype):
    """Each in its share, at any size, the bounds at -1 and 1; and a given space may be all that its dtype holds."""
    box = spaces.Box(low, high, (2,), dtype)
    taken = np.arange(int(low), int(high) + 1).astype(dtype)
    taken = np.stack([taken, taken[::-1]], 1)
    counts = len(taken)
    ends = np.arange(counts) == counts - 1
    columns = {"action": taken, "reward": np.zeros(counts), "terminated": ends, "truncated": ends & False}
    source = saved(tmp_path, observation={"observation": np.zeros((counts + 1, 1))}, **columns)
    data = load_offline(source, recorded_action_space=box)
    assert data.action_space == spaces.Box(-1, 1, (2,), np.float32)
    actions = stored(data)["action"]
    np.testing.assert_array_equal(BoxScale(box)(actions), taken, strict=True)
    if counts > 1:
        assert actions[[0, -1]].tolist() == [[-1, 1], [1, -1]]


def test_integers_that_float32_does_not_tell_apart(tmp_path):
    box = spaces.Box(0, 2**31 - 1, (1,), np.int32)
    with pytest.raises(OfflineError, match=r"action: expected integers of Box.*got 1$"):
        load_offline(saved(tmp_path, action=np.array([[0], [1]])), recorded_action_space=box)
    with pytest.raises(OfflineError, match=r"action: expected integers of Box.*got 0\.5$"):
        load_offline(saved(tmp_path, action=np.array([[0], [0.5]])), recorded_action_space=box)


def test_what_is_left_out_of_a_vector_moves_nothing(tmp_path):
    """One vector is made of a whole observation; without a part, all behind it would stand elsewhere."""
    own = spaces.Dict({"a": spaces.Box(0, 1, (1,)), "b": spaces.Discrete(3), "c": spaces.Box(0, 1, (2,))})
    source = recorded(tmp_path, own, [own.sample() for _ in range(3)])
    vector = {"observation_space": spaces.Box(-np.inf, np.inf, (10,)), "recorded_observation_space": own}
    assert stored(load_offline(source, **vector))["observation"]["observation"].shape == (3, 10)
    with pytest.raises(OfflineError, match="do not fit"):
        load_offline(source, fields=("b", "c"), **vector)


def test_spaces_that_say_nothing_are_those_of_a_dataset_alone():
    full = spaces.Box(0, 255, (2,), np.uint8)
    assert Recorded.of(full, full) == Recorded({"observation": full}, full)
    assert Recorded.of(full, full).telling() == Recorded()


def test_one_number_that_is_known_to_be_one(tmp_path):
    own = spaces.Dict({"x": spaces.Box(-5, 70000, (), np.int64), "y": spaces.Box(0, 1, (2,))})
    rows = {"x": np.array([-5, 3, 70000]), "y": np.zeros((3, 2))}
    data = load_offline(saved(tmp_path, observation=rows), recorded_observation_space=own)
    assert stored(data)["observation"]["x"].ravel().tolist() == [-5, 3, 70000]
