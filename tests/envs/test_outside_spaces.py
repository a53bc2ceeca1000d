"""What is not in the space that an environment declares is a sentence, in every way of playing; nothing is bent."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from twohot import envs
from twohot.envs import registry
from twohot.envs.observations import as_parts
from twohot.envs.suites import frozen_lake

THREE = spaces.Box(0, 1, (3,), np.float32)
PICTURE = spaces.Box(0, 255, (16, 18, 3), np.uint8)
MASK = spaces.Dict({"a": THREE, "in": spaces.Dict({"action_mask": spaces.Box(0, 1, (2,), np.int8)})})
NESTED = spaces.Dict({"a": THREE, "b": spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2)))})


def mask(values):
    return {"a": np.zeros(3, np.float32), "in": {"action_mask": values}}


def nested(**changes):
    return {"a": np.zeros(3, np.float32), "b": (1, np.zeros(2, np.int8))} | changes


# space, what comes, and what the sentence says
OUTSIDE = {
    "shorter": (THREE, np.ones(1, np.float32), "shape \\(3,\\) in the observation"),
    "a number for a vector": (THREE, 1.0, "shape \\(3,\\)"),
    "another shape of the same size": (THREE, np.ones((3, 1), np.float32), "got float32 of shape \\(3, 1\\)"),
    "a vector for a number": (spaces.Box(0, 1, ()), np.ones(1, np.float32), "shape \\(\\)"),
    "text": (THREE, np.array(["1", "2", "3"]), "numbers of shape"),
    "complex": (THREE, np.ones(3, complex), "got complex128"),
    "ragged": (THREE, [1.0, [2.0, 3.0], 4.0], "got list"),
    "nothing": (THREE, None, "got NoneType None"),
    "a tensor with a gradient": (THREE, torch.zeros(3, requires_grad=True), "shape \\(3,\\) in .* got Tensor"),
    "a fraction as an integer": (spaces.Box(0, 9, (2,), np.int64), np.array([1.0, 2.5]), "values of int64"),
    "NaN as an integer": (spaces.Box(0, 9, (2,), np.int64), np.array([1.0, np.nan]), "values of int64"),
    "too large for the dtype": (spaces.Box(0, 9, (2,), np.int16), np.array([1, 2**16]), "values of int16"),
    "negative bytes": (PICTURE, np.full(PICTURE.shape, -1), "values of uint8"),
    "too large bytes": (PICTURE, np.full(PICTURE.shape, 256), "values of uint8"),
    "an image of fractions": (PICTURE, np.full(PICTURE.shape, 0.5, np.float32), "values of uint8"),
    "another image": (PICTURE, np.zeros((18, 16, 3), np.uint8), "got uint8 of shape"),
    "two for a bool": (spaces.Box(0, 1, (2,), bool), np.array([0, 2]), "values of bool"),
    "a choice too large": (spaces.Discrete(3, start=1), 4, "from 1 to 3 .* got int 4"),
    "a choice too small": (spaces.Discrete(3, start=1), np.int64(0), "from 1 to 3"),
    "a negative choice": (spaces.Discrete(3), -1, "from 0 to 2"),
    "half a choice": (spaces.Discrete(3), 1.5, "values of int64"),
    "choices for a choice": (spaces.Discrete(3), np.array([1]), "shape \\(\\)"),
    "choices too large": (
        spaces.MultiDiscrete([2, 3], start=[1, 0]),
        np.array([3, 0]),
        "from \\[1, 0\\] to \\[2, 2\\]",
    ),
    "choices too small": (spaces.MultiDiscrete([2, 3], start=[1, 0]), np.array([0, 0]), "from \\[1, 0\\]"),
    "too few choices": (spaces.MultiDiscrete([2, 3]), np.array([1]), "shape \\(2,\\)"),
    "no bits": (spaces.MultiBinary(2), np.array([0, 2], np.int8), "0 or 1"),
    "a part of a Tuple": (spaces.Tuple((spaces.Discrete(3), spaces.Discrete(3))), (3, 1), "observation '0'"),
    "a longer Tuple": (spaces.Tuple((spaces.Discrete(3), spaces.Discrete(3))), (1, 1, 1), "tuple of 2 parts .* got 3"),
    "no Tuple": (spaces.Tuple((spaces.Discrete(3), spaces.Discrete(3))), 1, "tuple of 2 parts .* a int"),
    "no Dict": (NESTED, np.zeros(6), "a dict of \\['a', 'b'\\] .* a ndarray"),
    "a missing key": (NESTED, {"a": np.zeros(3, np.float32)}, "got \\['a'\\]"),
    "one more key": (NESTED, nested(c=1), "got \\['a', 'b', 'c'\\]"),
    "a nested choice": (NESTED, nested(b=(3, np.zeros(2))), "observation 'b/0'"),
    "a nested Tuple": (NESTED, nested(b=(1,)), "as observation 'b', got 1"),
    "a longer mask": (MASK, mask(np.ones(3, np.int8)), "observation 'action_mask'"),
    "a mask of twos": (MASK, mask(np.array([1, 2], np.int8)), "0 or 1 in each entry in observation 'action_mask'"),
    "a mask of halves": (MASK, mask(np.array([1, 0.5])), "values of int8"),
    "a negative mask": (MASK, mask(np.array([1, -1])), "0 or 1"),
    "a word too large": (spaces.Dict({"tokens": spaces.Box(0, 9, (2,), np.int64)}), {"tokens": [1, 10]}, "from 0 to 9"),
    "a negative cell": (
        spaces.Dict({"grid": spaces.Box(0, 9, (2, 2), np.int16)}),
        {"grid": np.full((2, 2), -1, np.int16)},
        "values of uint8|from 0 to 9",
    ),
}
INSIDE = {
    "a list": (THREE, [0.5, 1.0, 0.0], [0.5, 1, 0]),
    "float64": (THREE, np.array([0.5, 1.0, 0.0]), [0.5, 1, 0]),
    "integers and bools for floats": (THREE, np.array([True, False, True]), [1, 0, 1]),
    "floats beyond their bounds": (THREE, np.array([-7, 2.5, 1e9], np.float32), [-7, 2.5, 1e9]),
    "whole floats as integers": (spaces.Box(0, 9, (2,), np.int64), np.array([1.0, 3.0]), [1, 3]),
    "int64 within int16": (spaces.Box(-9, 9, (2,), np.int16), np.array([-3, 4]), [-3, 4]),
    "a column": (spaces.Box(0, 9, (2, 1), np.uint8, seed=0), np.array([[3], [4]], np.uint8), None),
    "a number": (spaces.Box(0, 1, ()), 0.5, [0.5]),
    "a numpy choice": (spaces.Discrete(3, start=-1), np.array(1), [0, 0, 1]),
    "a whole float as a choice": (spaces.Discrete(2), 1.0, [0, 1]),
    "a bool as a choice": (spaces.Discrete(2), np.bool_(True), [0, 1]),
    "choices of uint8": (spaces.MultiDiscrete([2, 3]), np.array([1, 2], np.uint8), [0, 1, 0, 0, 1]),
    "bits as bools": (spaces.MultiBinary(2), np.array([True, False]), [1, 0]),
    "a list for a Tuple": (spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2))), [1, 0], [0, 1, 1, 0]),
}


class Once(gym.Env):
    """Shows one thing at its reset and another after a step."""

    action_space = spaces.Discrete(2)

    def __init__(self, space, at_reset, after, render_mode=None):
        self.observation_space, self.at_reset, self.after, self.render_mode = space, at_reset, after, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.at_reset, {}

    def step(self, action):
        return self.after, 0.0, False, False, {}


class Shown(SyncVectorEnv):
    """All rows show what the environments show, side by side, as it is."""

    def __init__(self, make, num_envs):
        super().__init__([make] * num_envs, autoreset_mode=AutoresetMode.DISABLED)

    def _rows(self, value, space):
        if isinstance(space, spaces.Dict) and isinstance(value, dict):
            return {key: self._rows(part, space.spaces.get(key)) for key, part in value.items()}
        if isinstance(space, spaces.Tuple) and isinstance(value, tuple | list):
            return tuple(self._rows(part, own) for part, own in zip(value, [*space.spaces, None], strict=False))
        try:
            return np.stack([np.asarray(value)] * self.num_envs)
        except (ValueError, RuntimeError):  # as of a tensor with a gradient
            return [value] * self.num_envs

    def reset(self, *, seed=None, options=None):
        return self._rows(self.envs[0].at_reset, self.single_observation_space), {}

    def step(self, actions):
        over = np.zeros(self.num_envs, bool)
        after = self._rows(self.envs[0].after, self.single_observation_space)
        return after, np.zeros(self.num_envs), over, over, {}


@pytest.fixture
def start(monkeypatch):
    """start(way, space, at reset, after a step) gives a vector of two rows, or one environment."""
    monkeypatch.setattr(registry, "_SUITES", registry.registered_suites())
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))

    def begin(way, *shown, context_features=False):
        def make(*_, **__):
            return Once(*shown)

        envs.register(envs.Suite("own", "", (), "", ("Once",), make))
        gym.register("Once-v0", entry_point=make, vector_entry_point=lambda num_envs: Shown(make, num_envs))
        suite, task = {"own": ("own", "Once"), "one": ("gym", "Once-v0")}.get(way, (way, "Once-v0"))
        if way == "one":
            return envs.TrialEnv(suite, (task,), context_features=context_features), 0
        rows = envs.make_vector(suite, (task,), environments=2, context_features=context_features)
        return rows, np.zeros(2, int)

    return begin


WAYS = ("gym", "own", "one", "gym_vector")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", OUTSIDE)
def test_what_is_outside_its_space_is_refused(start, way, what):
    space, value, sentence = OUTSIDE[what]
    name = r"own task 'Once'" if way == "own" else rf"{'gym' if way == 'one' else way} task 'Once-v0'"
    if way == "gym_vector":
        sentence = ""  # shapes have the rows in front
    env, action = start(way, space, space.sample(), value)
    env.reset(seed=0)
    with pytest.raises(envs.ObservationError, match=f"{name}: expected .*{sentence}"):
        env.step(action)


@pytest.mark.parametrize("way", WAYS[:-1])
@pytest.mark.parametrize(
    "value",
    [torch.ones(3, requires_grad=True), torch.ones(3, device="meta"), np.ma.masked_array(np.ones(3, "f"), [0, 0, 1])],
    ids=["with a gradient", "on another device", "masked"],
)
def test_what_numpy_does_not_read_whole_is_refused(start, way, value):
    env, action = start(way, THREE, np.zeros(3, np.float32), value)
    env.reset(seed=0)
    with pytest.raises(envs.ObservationError, match="expected numbers of shape"):
        env.step(action)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", list(OUTSIDE)[::4])
def test_it_is_refused_at_a_reset(start, way, what):
    env, _ = start(way, *OUTSIDE[what][:2], None)
    with pytest.raises(envs.ObservationError, match="task 'Once"):
        env.reset(seed=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", INSIDE)
def test_what_is_inside_is_shown_exactly(start, way, what):
    space, value, wanted = INSIDE[what]
    env, action = start(way, space, value, value)
    for shown in (env.reset(seed=0)[0], env.step(action)[0]):
        parts = as_parts(shown)  # one, or in a suite of one's own one for each part of a Tuple
        rows = np.concatenate([parts[name].reshape(np.size(action), -1) for name in sorted(parts)], axis=1)
        np.testing.assert_array_equal(rows, [np.ravel(value) if wanted is None else wanted] * len(rows))


@pytest.mark.parametrize("way", WAYS)
def test_what_float32_cannot_hold_is_refused(start, way):
    space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    env, action = start(way, space, np.zeros(2), np.array([1e300, 0]))
    env.reset(seed=0)
    with pytest.raises(envs.NonFiniteError, match="task 'Once"):
        env.step(action)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (spaces.Text(5), "the observation: expected an observation space of Box, .* got Text"),
        (
            spaces.Dict({"in": spaces.Tuple((spaces.Sequence(THREE),))}),
            "observation 'in/0'.*Sequence.*Filter",
        ),
        (spaces.Dict({"a": spaces.Graph(THREE, None)}), "observation 'a'.*Graph"),
        (spaces.Dict({"a": spaces.OneOf([THREE, THREE])}), "observation 'a'.*OneOf"),
        (spaces.Dict({"a/b": THREE, "a": spaces.Dict({"b": THREE})}), "different names, got"),
        (spaces.Dict({"a": MASK, "b": MASK}), "different names, got"),
        (spaces.Dict({}), "different names, got \\[\\]"),
        (spaces.Dict({"grid": THREE}), "observation 'grid': expected a grid .*another name"),
        (spaces.Dict({"tokens": spaces.Discrete(3)}), "observation 'tokens': expected tokens .*another name"),
        (spaces.Dict({"x": spaces.Dict({"tokens": spaces.Box(-1, 3, (2,), np.int8)})}), "'x/tokens'.*from 0"),
        (spaces.Dict({"tokens": spaces.Box(0, 2**31, (2,), np.int64)}), "'tokens'.*at most 2147483647"),
        (spaces.Dict({"action_mask": spaces.MultiBinary(3)}), "'action_mask'.*2 choices"),
        (spaces.Dict({"action_mask": spaces.Discrete(2)}), "'action_mask': expected a mask as"),
        (spaces.Dict({"a": PICTURE, "context": THREE}), "named 'context'"),
        (spaces.Dict({"a": spaces.Discrete(2**62)}), "observation 'a': expected at most 1048576 choices"),
        (spaces.MultiDiscrete([3, 2**40]), "the observation: expected at most 1048576 choices"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_spaces_that_no_agent_can_see_are_named(start, way, space, sentence):
    with pytest.raises(envs.UnsupportedSpaceError, match=sentence):
        start(way, space, None, None, context_features=True)


def test_a_batch_of_ones_own_is_checked():
    batch = frozen_lake.make_batch("4x4", "train", 2)
    batch.observe = lambda: np.zeros((2, 1), np.float32)
    with pytest.raises(envs.ObservationError, match="frozen_lake task '4x4': expected numbers of shape"):
        envs.BatchedTrials(batch, "frozen_lake", ("4x4",)).reset(seed=0)


def test_minigrid_is_refused_until_its_words_are_encoded():
    pytest.importorskip("minigrid")
    from minigrid.wrappers import DictObservationSpaceWrapper

    with pytest.raises(envs.UnsupportedSpaceError, match=r"'minigrid:MiniGrid-Empty-5x5-v0': observation 'mission'"):
        envs.make_vector("gym", ("minigrid:MiniGrid-Empty-5x5-v0",), environments=1)
    for wrap in (
        DictObservationSpaceWrapper,
        lambda env: gym.wrappers.FilterObservation(env, ["image", "direction"]),
    ):
        gym.register("Words-v0", entry_point=lambda wrap=wrap, **_: wrap(gym.make("MiniGrid-Empty-5x5-v0")))
        vector = envs.make_vector("gym", ("Words-v0",), environments=2)
        observation, _ = vector.reset(seed=0)
        vector.step([0, 1])
        del gym.registry["Words-v0"]
        assert observation["image"].shape == (2, 7, 7, 3)
        np.testing.assert_array_equal(observation["direction"].sum(1), 1)
