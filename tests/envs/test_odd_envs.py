"""What environments return and raise: exact on every path, or an error that names the task."""

from __future__ import annotations

import logging
from fractions import Fraction

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from odd_envs import Odd, OddRows
from twohot import envs

PATHS = ("a loop", "one by one", "numbers")
SHOWN = np.zeros(2, np.float32)


@pytest.fixture
def odd():
    """odd(path, **odd) registers an `Odd` and makes two rows of it, in one of `PATHS` or a mode of autoreset."""
    made = []

    def make(path, **odd):
        name = f"Odd{len(made)}-v0"
        if isinstance(path, AutoresetMode):
            gym.register(name, vector_entry_point=OddRows, kwargs={"mode": path, **odd})
            made.append((name, envs.make_vector("gym_vector", (name,), environments=2)))
            return made[-1][1]
        if path == "numbers":
            odd["action"] = spaces.Box(-1, 1, (1,))
        gym.register(name, entry_point=Odd, kwargs=odd)
        made.append((name, envs.make_vector("gym", (name,), environments=2, render=path == "one by one")))
        assert isinstance(made[-1][1], envs.BatchedTrials) == (path == "a loop")
        return made[-1][1]

    yield make
    for name, vector in made:
        vector.close()
        del gym.registry[name]


def step(vector):
    vector.reset(seed=0)
    vector.action_space.seed(0)
    return vector.step(vector.action_space.sample())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "reward",
    [
        *(1, True, np.float32(1), np.float64(1), np.int64(1), np.bool_(1), np.longdouble(1), Fraction(1)),
        *(np.ones(1), np.array(1.0), np.ones((1, 1)), [1.0], torch.tensor([1.0])),
    ],
    ids=lambda reward: f"{type(reward).__name__}{getattr(reward, 'shape', '')}",
)
def test_one_real_number_is_a_reward(odd, path, reward):
    shown, rewards, *ends, _ = step(odd(path, reward=reward))
    np.testing.assert_array_equal(rewards, [1.0, 1.0])
    np.testing.assert_array_equal(shown[:, -1], [1.0, 1.0])
    assert rewards.dtype == np.float64
    assert not np.any(ends)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("end", [True, np.bool_(1), 1, 1.0, np.int8(1), np.array([True]), torch.tensor(True)])
@pytest.mark.parametrize("which", ["terminated", "truncated"])
def test_one_truth_value_is_an_end(odd, path, which, end):
    _, _, *ends, info = step(odd(path, **{which: end}))
    np.testing.assert_array_equal(ends, [[which == "terminated"] * 2, [which == "truncated"] * 2])
    np.testing.assert_array_equal(info["attempt_lengths"], [[1], [1]])


OLD = r"brought up to date by gymnasium.make\('GymV21Environment-v0'"
NO_REWARD, NO_END = "expected one real number as the reward, got", "expected `terminated` True or False, got"
NO_RESET = r"expected `reset` to return \(observation, info\) with a dict as info, got "
NO_INFO, TOO_LARGE = "expected a dict as the info of `step`, got", "rewards within float32 from .* and reward"
REFUSED = [
    *(({"reward": reward}, NO_REWARD) for reward in (None, "1.0", 1j, np.ones(2), [], set())),
    *(({"reward": reward}, TOO_LARGE) for reward in (np.nan, np.inf, -1e39, 1e300, 10**400, np.array([np.nan]))),
    *(({"terminated": end}, NO_END) for end in (None, "False", np.nan, 2, np.zeros(2, bool), [])),
    *(({"info": info}, NO_INFO) for info in (None, [], 3)),
    ({"began": SHOWN}, f"{NO_RESET}ndarray of shape .*{OLD}"),
    ({"began": None}, f"{NO_RESET}NoneType"),
    ({"began": (SHOWN, None)}, NO_RESET),
    ({"began": (SHOWN, {}, 1)}, f"{NO_RESET}3 values"),
    ({"whole": (SHOWN, 1.0, False, {})}, f"in `step`.*{OLD}"),
    ({"whole": None}, "in `step`: .*`step` returns"),
    *(
        ({"raises": name}, rf"raised KeyError in `{name}`: 'asked for' \(.*odd_envs.py, line")
        for name in ("reset", "step")
    ),
    ({"raises": "step", "error": SystemExit}, "raised SystemExit in `step`: asked for"),
    ({"raises": "step", "error": type("Lost", (Exception,), {"task": "its own"})}, "raised Lost in `step`: asked for"),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("what", "message"), REFUSED, ids=[str(what)[:40] for what, _ in REFUSED])
def test_all_else_is_an_error_with_the_task(odd, path, what, message):
    vector = odd(path, **what)
    with pytest.raises(envs.BrokenEnvironmentError, match=rf"(?s)gym task 'Odd0-v0'.*{message}|{message}") as told:
        step(vector)
    assert "gym task 'Odd0-v0'" in str(told.value)
    if "raises" in what:
        assert type(told.value.__cause__) is what.get("error", KeyError)


@pytest.mark.parametrize("path", [*PATHS, *AutoresetMode])
def test_what_close_raises_is_said_and_all_are_closed(odd, path, caplog):
    vector = odd(path, raises="close")
    step(vector)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "twohot"):
        vector.close()
    rows = 1 if isinstance(path, AutoresetMode) else 2
    assert len([message for message in caplog.messages if "raised KeyError in `close`: 'asked for'" in message]) == rows


ROWS_REFUSED = [
    *(
        ({"reward": reward}, "expected `reward` of 2 real numbers")
        for reward in (None, 1.0, np.ones(3), np.ones((1, 2)))
    ),
    *(
        ({"reward": reward}, "expected `reward` of 2 real numbers")
        for reward in (["a", "b"], np.ones(2) * 1j, [1, None])
    ),
    *(({"reward": np.array([0.0, reward])}, TOO_LARGE) for reward in (np.nan, 1e300)),
    *(({"terminated": ends}, "expected `terminated` of 2 bools") for ends in (None, False, [0, 2], [None, None], [1])),
    *(({"info": info}, "with a dict as info") for info in (None, [])),
    ({"began": np.zeros((2, 2), np.float32)}, f"{NO_RESET}.*{OLD}"),
    ({"whole": (np.zeros((2, 2), np.float32), np.ones(2), np.zeros(2, bool), {})}, "got 4 values"),
    *(({"raises": name}, f"raised KeyError in `{name}`: 'asked for'") for name in ("reset", "step")),
]


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize(("what", "message"), ROWS_REFUSED, ids=[str(what)[:40] for what, _ in ROWS_REFUSED])
def test_so_it_is_with_vector_environments(odd, mode, what, message):
    vector = odd(mode, **what)
    with pytest.raises(envs.BrokenEnvironmentError, match=message) as told:
        step(vector)
    assert "gym_vector task 'Odd0-v0'" in str(told.value)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("column", [np.ones((2, 1)), [1, 1], np.ones(2, bool), np.ones(2, np.float32)])
def test_columns_of_vector_environments(odd, mode, column):
    reward, terminated = step(odd(mode, reward=column, terminated=column))[1:3]
    np.testing.assert_array_equal(reward, [1.0, 1.0])
    np.testing.assert_array_equal(terminated, [True, True])


@pytest.mark.parametrize("path", PATHS)
def test_multiplied_rewards_and_returns_stay_within_float32(odd, path):
    large = odd(path, reward=2e38)
    make = {"environments": 2, "render": path == "one by one"}
    for options, message in (
        ({"reward_multipliers": (2.0,)}, "and reward 4e"),
        ({"step_limit": 2}, "expected the rewards of an attempt to add up within float32, got 4e"),
    ):
        vector = envs.make_vector("gym", ("Odd0-v0",), **make, **options)
        vector.reset(seed=0)
        with pytest.raises(envs.BrokenEnvironmentError, match=message) as told:
            [vector.step(vector.action_space.sample()) for _ in range(2)]
        assert "gym task 'Odd0-v0'" in str(told.value)
    assert step(large)[1].tolist() == [2e38, 2e38]


OWN = {"attempt_returns": [1.0, 2.0], "attempt_lengths": [1, 2], "attempt_success": [True, False]}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"attempt_returns": [1.0]}, None),
        (OWN, None),
        ({**OWN, "attempt_lengths": [1]}, "of as many attempts each"),
        ({"attempt_returns": [1.0, 2.0]}, "of as many attempts each"),
        ({**OWN, "attempt_returns": [1.0, np.nan]}, "expected attempt_returns as float32"),
        ({**OWN, "attempt_lengths": [1.5, 2]}, "expected attempt_lengths as int32"),
        ({**OWN, "attempt_success": ["no", "no"]}, "expected attempt_success as bool"),
        ({**OWN, "attempt_returns": [[1.0], [1.0, 2.0]]}, "expected attempt_returns as float32"),
    ],
)
def test_results_that_an_environment_holds_itself(odd, path, own, message):
    vector = odd(path, terminated=True, info=own)
    if message:
        with pytest.raises(envs.BrokenEnvironmentError, match=message) as told:
            step(vector)
        assert "gym task 'Odd0-v0'" in str(told.value)
        return
    info = step(vector)[4]
    for name, values in own.items():
        np.testing.assert_array_equal(info[name], [values, values])


class Reuses(gym.Env):
    """Shows its step, an image and its results in arrays, and an info, that all its objects share and write again."""

    observation_space = spaces.Dict(
        {"number": spaces.Box(0, 99, (2,), np.float32), "image": spaces.Box(0, 255, (16, 16, 3), np.uint8)}
    )
    action_space = spaces.Discrete(2)
    shown = {"number": np.zeros(2, np.float32), "image": np.zeros((16, 16, 3), np.uint8)}  # noqa: RUF012
    info = {"attempt_returns": np.zeros(1)}  # noqa: RUF012

    def show(self):
        self.shown["number"][:] = self.shown["image"][:] = self.info["attempt_returns"][:] = self.steps
        return self.shown

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.show(), self.info

    def step(self, action):
        self.steps += 1 + action
        return self.show(), 1.0, self.steps >= 4, False, self.info


class ReusesNumbers(Reuses):
    """The same without the image."""

    observation_space = Reuses.observation_space["number"]

    def show(self):
        return super().show()["number"]


@pytest.mark.parametrize(("kind", "batched"), [(Reuses, False), (ReusesNumbers, True)])
def test_arrays_that_an_environment_writes_again_are_copied(kind, batched):
    gym.register("Reuses-v0", entry_point=kind)
    try:
        trial, vector = envs.TrialEnv("gym", ("Reuses-v0",)), envs.make_vector("gym", ("Reuses-v0",), environments=2)
        assert isinstance(vector, envs.BatchedTrials) == batched
        kept, rows = [trial.reset(seed=0)[0]], [vector.reset(seed=0)[0]]
        for _ in range(4):
            kept.append(trial.step(0)[0])
        for _ in range(2):
            observation, _, terminated, _, info = vector.step(np.array([1, 0]))
            rows.append(observation)
        assert terminated.tolist() == [True, False]
        np.testing.assert_array_equal(info["attempt_returns"][0], [4.0])
        for step, shown in enumerate(kept):
            parts = [shown[:2]] if batched else [shown["number"], shown["image"]]
            assert all((part == step).all() for part in parts)
        for step, shown in enumerate(rows):
            for part in [shown[:, :2]] if batched else [shown["number"], shown["image"]]:
                assert (part[0] == 2 * step).all()
                assert (part[1] == step).all()
    finally:
        del gym.registry["Reuses-v0"]


class Plain(Odd):
    """Has no render_mode, in its constructor or at all."""

    def __init__(self):
        super().__init__()


class Other(Odd):
    """Takes another render_mode only."""

    metadata = {"render_modes": ["human"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        assert render_mode in (None, "human")
        super().__init__()


@pytest.mark.parametrize("kind", [Plain, Other, Odd])
@pytest.mark.parametrize("render", [False, True])
def test_an_environment_need_not_draw(kind, render):
    gym.register("Plain-v0", entry_point=kind)
    try:
        vector = envs.make_vector("gym", ("Plain-v0",), environments=2, render=render)
        assert step(vector)[1].tolist() == [1.0, 1.0]
        assert not render or vector.render() == (None, None)
        assert envs.make_task("gym", "Plain-v0", render=render).reset(seed=0)[1] == {}
    finally:
        del gym.registry["Plain-v0"]
