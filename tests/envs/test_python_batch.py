"""Environments stepped in one loop give what `TrialEnv`s give one by one, bit for bit."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from batched_envs import check_vectors_equal
from twohot import envs
from twohot.envs import registry


class Number(gym.Env):
    """Shows a number drawn at each reset and the time; an attempt ends by action 1, or after `length` steps."""

    def __init__(self, length, observation, action, render):
        self.length, self.observation_space, self.action_space = length, observation, action
        self.render_mode = "rgb_array" if render else None
        self.closed = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.options, self.time, self.bad = options, 0, None
        self.number = int(self.np_random.integers(4))
        return self.observe(), {}

    def observe(self):
        if isinstance(self.observation_space, spaces.Discrete):
            return self.observation_space.start + (self.number + self.time) % self.observation_space.n
        return np.array([self.number, self.time]) if self.bad is None else np.array([self.bad, 0.0])

    def step(self, action):
        assert self.action_space.contains(action)
        self.time += 1
        choice = int(np.ravel(action)[-1]) - int(np.ravel(getattr(self.action_space, "start", 0))[-1])
        ends, cut = choice == 1 and self.time > 2, self.time >= self.length
        noise = self.np_random.random()
        return self.observe(), self.number + choice + noise, ends, cut, {"success": choice == 1, "secret": 3}

    def close(self):
        self.closed += 1


class Hidden(Number):
    """The number is drawn anew only in the first attempt."""

    hidden_task, released = True, 0

    def reset(self, *, seed=None, options=None):
        number = getattr(self, "number", None)
        super().reset(seed=seed, options=options)
        if options["attempt"]:
            self.number = number
        return self.observe(), {}

    def release(self):
        self.released += 1


BOX, ONE_OF_FIVE = spaces.Box(-9, 99, (2,), np.float64), spaces.Discrete(5, start=-1)
TASKS = {
    "box": lambda render: Number(9, BOX, spaces.Discrete(3), render),
    "one-hot": lambda render: envs.OneHotObservation(Number(6, ONE_OF_FIVE, spaces.Discrete(5, start=2), render)),
    "flat": lambda render: envs.FlatDiscreteAction(Number(7, BOX, spaces.MultiDiscrete([2, 3]), render)),
    "clock": lambda render: envs.TimeLimitTerminates(
        envs.OneHotObservation(
            envs.FlatDiscreteAction(Number(5, ONE_OF_FIVE, spaces.MultiDiscrete([2, 2], start=[1, 0]), render))
        )
    ),
    "hidden": lambda render: Hidden(4, BOX, spaces.Discrete(2), render),
}


@pytest.fixture
def made(monkeypatch):
    """The environments that the suite has made, without their wrappers."""
    monkeypatch.setattr(registry, "_SUITES", registry.registered_suites())
    environments = []

    def make(task, split, render=False):
        env = TASKS[task](render)
        environments.append(env.unwrapped)
        return env

    envs.register(envs.Suite("numbers", "Numbers.", (), "", tuple(TASKS), make))
    return environments


def both(tasks=tuple(TASKS), suite="numbers", **options):
    """The rows in one loop, and one by one, as they are played where there are pictures."""
    options = {"environments": 3, **options}
    together, alone = (envs.make_vector(suite, tasks, render=render, **options) for render in (False, True))
    assert isinstance(together.batch, envs.PythonBatch)
    assert isinstance(alone, envs.TrialVector)
    return together, alone


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 3, "unscored_attempts": 1, "reward_multipliers": (1.0, 2.0, -3.0, 0.5, 100.0)},
        {"attempts": 2, "step_limit": 8, "assignment": "fixed"},
        {"context_features": False, "observation_size": 9, "actions": 8},
    ],
)
def test_a_loop_gives_what_trials_one_by_one_give(made, options):
    began = check_vectors_equal(*both(**options), steps=150)
    assert began == {0, 1, 2, 3, 4}


def test_popgym_in_a_loop():
    protocol = {name: value for name, value in envs.MULTITASK_27_PROTOCOL.items() if name not in ("suite", "tasks")}
    together, alone = both(envs.MULTITASK_27[::3], "popgym", environments=9, assignment="fixed", **protocol)
    assert len(check_vectors_equal(together, alone, steps=200)) > 5


def test_attempts_that_an_environment_holds_itself():
    together, alone = both(("5x5", "5x5-shuffled"), "dark_key")
    check_vectors_equal(together, alone, steps=510)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_with_its_task_and_step(made, value):
    together, _ = both(("box", "one-hot"), context_features=False)
    together.reset(seed=0, options={"task": ["one-hot", "box", "one-hot"]})
    together.step(np.zeros(3, int))
    next(env for env in made if env.length == 9 and hasattr(env, "time")).bad = value
    with pytest.raises(envs.NonFiniteError, match=r"numbers task 'box', got observation .* at step 2 of the trial"):
        together.step(np.zeros(3, int))


def test_large_numbers_are_finite(made):
    together, _ = both(("box",), context_features=False)
    together.reset(seed=0)
    next(env for env in made if hasattr(env, "time")).bad = 3e38
    assert together.step(np.zeros(3, int))[0].max() == np.float32(3e38)


def test_games_are_released_and_closed(made):
    together, _ = both(("hidden",), attempts=2)
    together.reset(seed=0)
    games = [env for env in made if hasattr(env, "time")]
    assert len(games) == 3
    envs.reset_where(together, np.array([True, False, False]))
    assert [game.released for game in games] == [1, 0, 0]
    done = np.zeros(3, bool)
    while not done[1]:
        done = np.logical_or(*together.step(np.zeros(3, int))[2:4])
    envs.reset_where(together, done)
    assert games[1].released == 0
    together.close()
    together.close()
    assert [game.closed for game in games] == [1, 1, 1]


def test_a_task_that_does_not_fit_is_named(made):
    layout = envs.Layout(spaces.Box(-np.inf, np.inf, (2,), np.float32), spaces.Discrete(4))
    for task, message in (("one-hot", "at most 2 observation entries, got 5"), ("flat", "at most 4 actions, got 6")):
        vector = envs.make_vector("numbers", (task,), environments=1, layout=layout)
        with pytest.raises(ValueError, match=message):
            vector.reset(seed=0)
