"""Recorded numbers in the columns of an agent: what its environment shows of them, or a sentence; never others."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from twohot import envs
from twohot.data.offline import load_mixture, load_offline
from twohot.data.offline_columns import OfflineError, Recorded, action_column, cast
from twohot.envs.wrappers.actions import common_action_space, pad_actions
from twohot.replay import Field, Replay, Schema
from twohot.spaces import space_from_json, space_to_json


def steps(**columns):
    """A trajectory of two steps."""
    return {
        "observation": {"observation": np.zeros((3, 1))},
        "action": np.array([0, 1]),
        "reward": np.zeros(2),
        "terminated": np.array([False, True]),
        "truncated": np.zeros(2, bool),
        **columns,
    }


def saved(path, **columns):
    """The source of a file with that trajectory."""
    one = steps(**columns)
    named = {f"observation/{name}": values for name, values in one.pop("observation").items()}
    np.savez(path / "a.npz", **named, **one)
    return f"npz:{path / 'a.npz'}"


def stored(data):
    (id,) = data.replay.ids()
    return data.replay.get(id)


class Recorder(gym.Env):
    """Shows what it is told to, and remembers what it is done to."""

    render_mode = None
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.done = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.rows = iter(self.shown)
        return next(self.rows), {}

    def step(self, action):
        self.done.append(np.array(action))
        return next(self.rows), 0.0, False, False, {}


OBSERVATIONS = {
    "from -1": (spaces.Discrete(3, start=-1), [-1, 0, 1]),
    "from 1": (spaces.Discrete(3, start=1), [1, 2, 3]),
    "from 1, of which few were seen": (spaces.Discrete(5, start=1), [1, 2, 1]),
    "from 0": (spaces.Discrete(4), [0, 3, 1]),
    "several": (spaces.MultiDiscrete([3, 2]), [[0, 1], [2, 0], [1, 1]]),
    "several from elsewhere": (spaces.MultiDiscrete([3, 2], start=[1, -1]), [[1, -1], [3, 0], [2, 0]]),
    "bits": (spaces.MultiBinary(3), [[0, 1, 1], [1, 0, 0], [0, 0, 0]]),
    "integers": (spaces.Box(-5, 5, (2,), np.int64), [[-5, 5], [0, 1], [2, -3]]),
    "numbers": (spaces.Box(-5, 5, (2,), np.float64), [[-5, 5], [0, 1], [2.5, -3]]),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observations_are_those_that_the_environment_shows(tmp_path, name):
    space, shown = OBSERVATIONS[name]
    rows = np.array(shown, space.dtype)
    members = {"observation_space": space, "shown": list(rows)}
    gym.register("Recorder-v0", entry_point=type("Own", (Recorder,), members))
    try:
        actors = envs.make_vector("gym", ("Recorder-v0",), environments=1, workers=0)
        expected = [actors.reset(seed=0)[0][0], *(actors.step(np.zeros(1, np.int64))[0][0] for _ in range(2))]
    finally:
        del gym.registry["Recorder-v0"]
    source = saved(tmp_path, observation={"observation": rows})
    given = {"observation_space": actors.single_observation_space}
    data = load_offline(source, recorded_observation_space=space, **given)
    np.testing.assert_array_equal(stored(data)["observation"]["observation"][:, :-4], np.array(expected)[:, :-4])
    # Without the space of the recording: as it shows them, or not at all; where choices begin cannot be seen in few.
    if "few" in name:
        return
    if name not in ("from 0", "numbers", "integers", "bits"):
        with pytest.raises(OfflineError):
            load_offline(source, **given)
    else:
        data = load_offline(source, **given)
        np.testing.assert_array_equal(stored(data)["observation"]["observation"][:, :-4], np.array(expected)[:, :-4])


ACTIONS = {
    "from 0": (spaces.Discrete(3), [2, 0]),
    "from 1": (spaces.Discrete(3, start=1), [3, 1]),
    "from -1": (spaces.Discrete(3, start=-1), [-1, 1]),
    "several": (spaces.MultiDiscrete([3, 2]), [[2, 0], [0, 1]]),
    "several from elsewhere": (spaces.MultiDiscrete([3, 2], start=[1, -1]), [[3, -1], [1, 0]]),
    "bits": (spaces.MultiBinary(3), [[0, 1, 1], [1, 0, 0]]),
    "numbers": (spaces.Box(np.array([-2, 0]), np.array([2, 10]), dtype=np.float64), [[-2, 10], [1, 2.5]]),
    "numbers in a place": (spaces.Box(np.array([-2, 3]), np.array([2, 3]), dtype=np.float64), [[-2, 3], [1, 3]]),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_do_to_the_environment_what_was_recorded(tmp_path, name):
    space, taken = ACTIONS[name]
    rows = np.array(taken, space.dtype)
    source = saved(tmp_path, action=rows)
    members = {"observation_space": spaces.Box(0, 1, (1,)), "shown": [0] * 3, "action_space": space}
    env = type("Own", (Recorder,), members)()
    common = common_action_space([space])
    data = load_offline(source, action_space=common, recorded_action_space=space)
    assert load_offline(source, recorded_action_space=space).action_space == common
    played = pad_actions(env, common)
    played.reset()
    for action in stored(data)["action"]:
        played.step(action)
    np.testing.assert_allclose(np.array(env.done), rows, rtol=1e-6)
    if name in ("from 0", "several", "bits"):
        np.testing.assert_array_equal(stored(load_offline(source, action_space=common))["action"], rows)
    else:
        with pytest.raises(OfflineError):
            load_offline(source, action_space=common)


def test_bounds_as_large_as_numbers_are():
    space = spaces.Box(-1.7e308, 1.7e308, (1,), np.float64)
    rows = action_column(np.array([[-1.7e308], [0.85e308]]), spaces.Box(-1, 1, (1,)), Recorded(action=space))
    np.testing.assert_allclose(rows, [[-1], [0.5]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
def test_one_hot_actions_are_choices_where_choices_are_wanted(tmp_path, dtype):
    source = saved(tmp_path, action=np.eye(4, dtype=dtype)[[3, 1]])
    data = load_offline(source, action_space=spaces.Discrete(5))
    np.testing.assert_array_equal(stored(data)["action"], np.array([3, 1], np.int32), strict=True)
    with pytest.raises(OfflineError, match=r"expected Discrete\(3\), got 1 to 3"):
        load_offline(source, action_space=spaces.Discrete(3))
    soft = saved(tmp_path, action=np.full((2, 4), 0.25, np.float32))
    with pytest.raises(OfflineError, match="action: expected integers"):
        load_offline(soft, action_space=spaces.Discrete(4))


def test_an_amago_buffer_of_one_hot_rows_is_of_choices(tmp_path):
    columns = {"time_idxs": np.arange(3)[:, None], "rews": np.zeros((2, 1)), "dones": np.zeros((2, 1), bool)}
    for name, rows in (("hot", np.eye(3, dtype=np.float32)[[2, 0]]), ("soft", np.full((2, 3), 0.5, np.float32))):
        np.savez(tmp_path / f"{name}.npz", **columns, actions=rows, _OBS_KEY_observation=np.zeros((3, 2)))
    data = load_offline(f"amago:{tmp_path / 'hot.npz'}")
    assert data.action_space == spaces.Discrete(3)
    assert stored(data)["action"].tolist() == [2, 0]
    assert load_offline(f"amago:{tmp_path / 'soft.npz'}").action_space == spaces.Box(-1, 1, (3,), np.float32)


BIG = 2**24
REFUSED = {
    "observation 'observation': .*1e\\+39 as float64": {"observation": {"observation": np.full((3, 1), 1e39)}},
    "observation 'observation': .*16777217 as int64": {"observation": {"observation": np.full((3, 2), BIG + 1)}},
    "observation 'tokens': .*2147483648 as int64": {"observation": {"tokens": np.full((3, 2), 2**31)}},
    "observation 'tokens': .*as int64": {"observation": {"tokens": np.full((3, 2), -(2**31) - 1)}},
    "observation 'grid': .*as uint64": {"observation": {"grid": np.full((3, 2, 2), 2**64 - 1, np.uint64)}},
    "observation 'observation': expected choices from 0 to below 65536, got 0 to 1700000000": {
        "observation": {"observation": np.array([0, 1_700_000_000, 5])}
    },
    "observation 'observation': expected choices from 0.*got -1 to 1": {
        "observation": {"observation": np.array([-1, 0, 1])}
    },
    "observation 'x' is NaN|observation 'observation' is NaN": {
        "observation": {"observation": np.full((3, 1), np.nan)}
    },
    "action: expected choices from 0.*got -1 to 0": {"action": np.array([-1, 0])},
    "action: expected choices .*got 0 to 5000000000": {"action": np.array([0, 5_000_000_000])},
    "action: expected choices .*as uint64|got 0 to 18446744073709551615": {
        "action": np.array([0, 2**64 - 1], np.uint64)
    },
    "action: expected numbers from": {"action": np.array([[0.5], [np.nan]])},
    "action: expected numbers from .*inf": {"action": np.array([[0.5], [np.inf]])},
    "complex64": {"action": np.zeros(2, np.complex64)},
    "observation 'action_mask': expected .*got 0 to 2": {
        "observation": {"observation": np.zeros((3, 1)), "action_mask": np.array([[0, 2]] * 3)}
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_numbers_that_would_be_others_are_refused(tmp_path, message):
    with pytest.raises(ValueError, match=message):
        load_offline(saved(tmp_path, **REFUSED[message]))


@pytest.mark.parametrize(("multiplier", "reward"), [(1e30, 1e9), (1e300, 1e-3), (-1e39, 1.0)])
def test_rewards_that_a_multiplier_makes_too_large(tmp_path, multiplier, reward):
    with pytest.raises(OfflineError, match=r"trajectory 0: reward: expected numbers that float32 holds"):
        load_offline(saved(tmp_path, reward=np.full(2, reward)), reward_multiplier=multiplier)


@pytest.mark.parametrize("multiplier", [np.nan, np.inf, "3", None, True, 1j])
def test_multipliers_that_are_none(tmp_path, multiplier):
    with pytest.raises((TypeError, ValueError), match="reward_multiplier: expected a"):
        load_offline(saved(tmp_path), reward_multiplier=multiplier)


def test_numbers_at_the_ends_stay():
    for values, dtype in (
        (np.array([2**31 - 1, -(2**31)]), np.int32),
        (np.array([3.4028234e38, -3.4028234e38, np.inf, 1e-45]), np.float32),
        (np.array([BIG, -BIG]), np.float32),
        (np.array([65504.0, np.nan]), np.float16),
        (np.array([True, False]), np.float32),
        (np.zeros(0), np.int8),
    ):
        np.testing.assert_array_equal(cast("x", values, np.dtype(dtype)), values.astype(dtype), strict=True)
    for values, dtype in ((np.array([0.5]), np.int32), (np.array([300]), np.uint8), (np.array([65520.0]), np.float16)):
        with pytest.raises(ValueError, match="x: expected numbers that"):
            cast("x", values, np.dtype(dtype))


def test_numbers_beyond_a_given_space(tmp_path):
    """Integers that the agent takes for an index are held against its bounds."""
    source = saved(tmp_path, observation={"tokens": np.array([[0, 1], [5, 2], [9, 3]])})
    given = {"tokens": spaces.Box(0, 9, (3,), np.int32), "context": spaces.Box(-np.inf, np.inf, (4,), np.float32)}
    rows = stored(load_offline(source, observation_space=spaces.Dict(given)))
    assert rows["observation"]["tokens"].tolist() == [[0, 1, 0], [5, 2, 0], [9, 3, 0]]
    given["tokens"] = spaces.Box(0, 8, (3,), np.int32)
    with pytest.raises(OfflineError, match=r"observation 'tokens': expected Box.*got 0 to 9"):
        load_offline(source, observation_space=spaces.Dict(given))


def test_masks_stay_bits(tmp_path):
    mask = np.array([[1, 0], [0, 1], [1, 1]])
    for dtype in (np.int8, bool, np.int64):
        source = saved(tmp_path, observation={"observation": np.zeros((3, 1)), "action_mask": mask.astype(dtype)})
        data = load_offline(source)
        assert data.observation_space["action_mask"] == spaces.MultiBinary(2)
        np.testing.assert_array_equal(stored(data)["observation"]["action_mask"], mask.astype(np.int8), strict=True)


@pytest.mark.parametrize(
    ("dtype", "shape", "values", "space"),
    [
        ("int32", (), [0, 7], spaces.Discrete(3)),
        ("int32", (), [-1, 0], spaces.Discrete(3)),
        ("int32", (), [-1, 0], None),
        ("int32", (2,), [[0, 0], [1, 5]], spaces.MultiDiscrete([2, 3])),
        ("int8", (2,), [[0, 0], [1, 2]], spaces.MultiBinary(2)),
        ("float32", (2,), [[0, 0], [1, 1.5]], spaces.Box(-1, 1, (2,), np.float32)),
    ],
)
def test_a_replay_that_is_opened_as_it_is_has_actions_of_the_space(tmp_path, dtype, shape, values, space):
    schema = Schema({"observation": Field("float32", (3,))}, Field(dtype, shape))
    with Replay.create(schema, capacity_steps=10, directory=tmp_path / "kept") as replay:
        rows = {"observation": np.zeros((3, 3), np.float32)}
        one = steps(observation=rows, action=np.array(values, dtype), reward=np.zeros(2, np.float32))
        replay.add(**one)
        np.testing.assert_array_equal(replay.actions(), one["action"], strict=True)
    with pytest.raises(OfflineError, match="action: expected"):
        load_offline(tmp_path / "kept", action_space=space)


def test_a_field_that_a_directory_lacks(tmp_path):
    schema = Schema({"a": Field("float64", (3,))}, Field("int64"))
    with Replay.create(schema, capacity_steps=10, directory=tmp_path / "kept") as replay:
        replay.add(**steps(observation={"a": np.zeros((3, 3))}, reward=np.zeros(2, np.float32)))
    with pytest.raises(OfflineError, match="no observation 'b'; there are a"):
        load_offline(tmp_path / "kept", fields=("b",))


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_minari_knows_where_choices_start(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    observation = spaces.Dict({"a": spaces.Discrete(4, start=-1), "b": spaces.MultiDiscrete([2, 3], start=[5, 0])})
    action = spaces.Discrete(3, start=1)
    episode = minari.data_collector.EpisodeBuffer(
        observations={"a": np.array([-1, 0, 1]), "b": np.array([[5, 2], [6, 0], [5, 1]])},
        actions=np.array([1, 2]),
        rewards=np.zeros(2),
        terminations=np.array([False, True]),
        truncations=np.zeros(2, bool),
    )
    minari.create_dataset_from_buffers("mine/x-v0", [episode], observation_space=observation, action_space=action)
    data = load_offline("minari:mine/x-v0")
    rows = stored(data)
    np.testing.assert_array_equal(rows["observation"]["a"], np.eye(4)[[0, 1, 2]])
    np.testing.assert_array_equal(rows["observation"]["b"], [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0], [1, 0, 0, 1, 0]])
    assert data.action_space == spaces.Discrete(3)
    assert rows["action"].tolist() == [0, 1]
    both = load_mixture(["minari:mine/x-v0"] * 2, [1, 1])
    assert both.action_space == spaces.Discrete(3)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=-1),
        spaces.Discrete(3),
        spaces.MultiDiscrete([3, 2], start=[1, -1]),
        spaces.MultiDiscrete([3, 2]),
        spaces.Dict({"a": spaces.Discrete(2, start=7)}),
    ],
)
def test_spaces_keep_their_start_as_json(space):
    assert space_from_json(space_to_json(space)) == space
