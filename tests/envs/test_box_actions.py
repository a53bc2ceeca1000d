"""Actions on their way to a task: shares of an integer Box, exact ends, and what is no action of the space."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from twohot import envs
from twohot.envs import registry
from twohot.envs.suites.gym_vector import _own_action
from twohot.envs.wrappers.actions import BoxScale, check_actions

INTEGERS = [
    (0, 3, np.int64),
    (-2, 2, np.int8),
    (-128, 127, np.int8),
    (0, 255, np.uint8),
    (100, 200, np.uint8),
    (-300, 40, np.int16),
    (0, 1, bool),
    (5, 5, np.int32),
]
HUGE = [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64]
FLOATS = [
    (0.1, 0.3, np.float32),
    (0.1, 0.3, np.float64),
    (-1e-30, 1e30, np.float64),
    (-1.7e308, 1.7e308, np.float64),
    (np.finfo(np.float32).min, np.finfo(np.float32).max, np.float32),
    (-1.1, 0.7, np.float16),
    (2.5, 2.5, np.float32),
]


@pytest.mark.parametrize(("low", "high", "dtype"), INTEGERS)
def test_integers_have_equal_shares(low, high, dtype):
    scale, count, each = BoxScale(spaces.Box(low, high, (1,), dtype)), int(high) - int(low) + 1, 50
    # The middles of `each` cells in every share.
    numbers = (2 * (np.arange(count * each) + 0.5) / (count * each) - 1)[:, None]
    found = scale(numbers)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[:, 0].astype(int), np.repeat(np.arange(low, high + 1), each))
    # What has been recorded in proportion, with the ends at -1 and 1, comes back as it was.
    recorded = np.linspace(-1, 1, count)[:, None].astype(np.float32) if count > 1 else np.zeros((1, 1))
    np.testing.assert_array_equal(scale(recorded)[:, 0].astype(int), np.arange(low, high + 1))


@pytest.mark.parametrize("number", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", HUGE)
def test_the_ends_of_the_largest_ranges_are_played(dtype, number):
    limits = np.iinfo(dtype)
    scale = BoxScale(spaces.Box(limits.min, limits.max, (2,), dtype))
    assert scale(np.array([-1, 1], number)).tolist() == [limits.min, limits.max]
    assert scale(np.array([-7, np.inf], number)).tolist() == [limits.min, limits.max]
    ordered = [int(scale(np.full(2, x, number))[0]) for x in np.linspace(-1, 1, 1001)]
    assert ordered == sorted(ordered)
    assert abs(ordered[500] - (limits.min + limits.max) / 2) <= 1
    almost = np.nextafter(number(1), number(0))
    assert int(scale(np.full(2, almost, number))[0]) <= limits.max


@pytest.mark.parametrize(("low", "high", "dtype"), FLOATS)
def test_the_ends_of_floats_are_exact(low, high, dtype):
    space = spaces.Box(low, high, (2,), dtype)
    scale = BoxScale(space)
    np.testing.assert_array_equal(scale(np.float32([-1, 1])), [space.low[0], space.high[0]])
    found = np.array([scale(np.full(2, x, np.float32))[0] for x in np.linspace(-1, 1, 401)])
    assert found.dtype == dtype
    assert (np.diff(found.astype(np.float64) / 2) >= 0).all()
    assert (found >= space.low[0]).all()
    assert (found <= space.high[0]).all()


def test_each_entry_has_its_own_range_and_a_vector_of_rows_the_same():
    space = spaces.Box(np.array([[0, -5], [7, 0]]), np.array([[9, 5], [7, 1]]), dtype=np.int16)
    numbers = np.random.default_rng(0).uniform(-1.2, 1.2, (50, 4)).astype(np.float32)
    rows = _own_action(space)(numbers)
    assert rows.shape == (50, 2, 2)
    share = np.minimum((np.clip(numbers, -1, 1).astype(float) + 1) / 2, 1 - 1e-12) * [10, 11, 1, 2]
    np.testing.assert_array_equal(rows.reshape(50, 4), np.floor(share) + np.array([0, -5, 7, 0]))
    np.testing.assert_array_equal([BoxScale(space)(row) for row in numbers], rows)


class Takes(gym.Env):
    """Keeps the last action; rewards nothing."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)

    def __init__(self, action_space, render_mode=None):
        self.action_space, self.render_mode = action_space, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("render", [False, True])
def test_a_number_alone_is_an_action(monkeypatch, dtype, render):
    monkeypatch.setattr(registry, "_SUITES", registry.registered_suites())
    make = lambda task, split, render=False: Takes(spaces.Box(-2, 3, (), dtype))  # noqa: E731
    envs.register(envs.Suite("takes", "", (), "", ("a",), make))
    vector = envs.make_vector("takes", ("a",), environments=2, render=render)
    assert vector.single_action_space.shape == (1,)
    vector.reset(seed=0)
    vector.step(np.float32([[-1], [0.3]]))
    assert _own_action(spaces.Box(-2, 3, (), dtype))(np.float32([[-1], [1]])).tolist() == [-2, 3]


WRONG = {
    "half a choice": (spaces.Discrete(3), 0.5),
    "a choice too many": (spaces.Discrete(3), 3),
    "a negative choice": (spaces.Discrete(3, start=1), -1),
    "NaN for a choice": (spaces.Discrete(3), np.nan),
    "text": (spaces.Discrete(3), "1"),
    "half choices": (spaces.MultiDiscrete([2, 3]), [0.5, 1]),
    "choices too large": (spaces.MultiDiscrete([2, 3]), [1, 3]),
    "one choice for two": (spaces.MultiDiscrete([2, 3]), [1]),
    "two for a bit": (spaces.MultiBinary(2), [0, 2]),
    "half a bit": (spaces.MultiBinary(2), [0, 0.5]),
    "a bit for two": (spaces.MultiBinary(2), [1]),
    "NaN": (spaces.Box(-2, 2, (2,)), [0, np.nan]),
    "NaN as it is": (spaces.Box(-1, 1, (2,)), [np.nan, 0]),
    "NaN as an integer": (spaces.Box(0, 9, (2,), np.int64), [0, np.nan]),
    "a number for two": (spaces.Box(-1, 1, (2,)), [0.5]),
    "three for two": (spaces.Box(-1, 1, (2,)), [0.5, 0.5, 0.5]),
}


@pytest.mark.parametrize("way", ["one", "rows", "together"])
@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_action_is_refused(monkeypatch, what, way):
    monkeypatch.setattr(registry, "_SUITES", registry.registered_suites())
    space, action = WRONG[what]
    make = lambda task, split, render=False: Takes(space)  # noqa: E731
    envs.register(envs.Suite("takes", "", (), "", ("a",), make))
    if way == "one":
        env, actions = envs.TrialEnv("takes", ("a",)), action
    else:
        env, actions = envs.make_vector("takes", ("a",), environments=2, render=way == "rows"), [action, action]
    env.reset(seed=0)
    with pytest.raises(envs.ActionError, match=r"expected (an action|actions) "):
        env.step(actions if isinstance(actions, str) else np.array(actions))
    if way != "one":
        with pytest.raises(envs.ActionError):
            env.step(0)  # which would be spread over the rows


def test_numbers_of_any_dtype_are_taken_where_they_are_the_same():
    for space, numbers in (
        (spaces.Discrete(3), 2),
        (spaces.MultiDiscrete([2, 3]), [1, 2]),
        (spaces.MultiBinary(2), [1, 0]),
    ):
        for dtype in (np.int8, np.uint64, np.float32, np.int64):
            found = check_actions(np.array(numbers, dtype), space)
            assert found.tolist() == numbers
            assert found.dtype.kind in "iu"
