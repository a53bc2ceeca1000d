"""The suite of all that gymnasium makes: against bare environments, and several spaces in one agent."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from twohot import envs
from twohot.envs.suites import gymnasium as suite


class Pictures(gym.Env):
    """A picture, alone or with numbers and a table beside it."""

    def __init__(self, kind, render_mode=None):
        self.render_mode = render_mode
        self.kind, self.action_space = kind, spaces.Discrete(2)
        picture = spaces.Box(0, 255, (20, 24) if kind == "grey" else (20, 24, 3), np.uint8)
        table = spaces.Box(-1, 1, (2, 3), np.float64)
        self.observation_space = spaces.Dict({"camera": picture, "table": table}) if kind == "dict" else picture
        self.text = spaces.Text(5)
        if kind == "text":
            self.observation_space = self.text

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._see(), {}

    def step(self, action):
        return self._see(), 1e4, False, False, {}

    def _see(self):
        self.observation_space.seed(int(self.np_random.integers(1000)))
        self.last = self.observation_space.sample()
        return self.last


@pytest.fixture
def pictures():
    """Registers the ids of `Pictures` for a test."""
    names = [f"TestPictures{kind.title()}-v0" for kind in ("colour", "grey", "dict", "text")]
    for name, kind in zip(names, ("colour", "grey", "dict", "text"), strict=True):
        gym.register(name, entry_point=Pictures, kwargs={"kind": kind}, max_episode_steps=5)
    yield names
    for name in names:
        del gym.registry[name]


@pytest.mark.parametrize("task", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1"])
def test_a_task_equals_the_bare_environment(task):
    env, bare = envs.make_task("gym", task), gym.make(task, disable_env_checker=True)
    assert env.observation_space == bare.observation_space
    observation, expected = env.reset(seed=5)[0], bare.reset(seed=5)[0]
    env.action_space.seed(0)
    for _ in range(300):
        np.testing.assert_array_equal(observation, expected)
        action = env.action_space.sample()
        observation, *rest, _ = env.step(action)
        expected, *expected_rest, _ = bare.step(action)
        assert rest == expected_rest
        if rest[1] or rest[2]:
            observation, expected = env.reset()[0], bare.reset()[0]


@pytest.mark.parametrize(("task", "size"), [("FrozenLake-v1", 16), ("Blackjack-v1", 32 + 11 + 2), ("Taxi-v4", 500)])
def test_finite_observations_become_one_hot(task, size):
    env = envs.make_task("gym", task)
    assert env.observation_space.shape == (size,)
    observation, _ = env.reset(seed=0)
    assert observation.sum() == (3 if task == "Blackjack-v1" else 1)


def test_pictures_and_dicts(pictures):
    colour, grey, parts, text = pictures
    env = envs.make_task("gym", colour)
    assert env.observation_space == spaces.Box(0, 255, (20, 24, 3), np.uint8)
    np.testing.assert_array_equal(env.reset(seed=0)[0], env.unwrapped.last)
    env = envs.make_task("gym", grey)
    assert env.observation_space.shape == (20, 24, 1)
    np.testing.assert_array_equal(env.reset(seed=0)[0][..., 0], env.unwrapped.last)
    env = envs.make_task("gym", parts)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation["table"].dtype == np.float32
    np.testing.assert_allclose(observation["table"], env.unwrapped.last["table"].ravel(), rtol=1e-6)
    with pytest.raises(envs.UnsupportedSpaceError, match="Text"):
        envs.make_task("gym", text)
    # Rewards are neither scaled nor clipped, and the limit truncates.
    trial = envs.TrialEnv("gym", (colour,))
    seen = trial.reset(seed=0)[0]
    np.testing.assert_array_equal(seen["observation"], trial._game.env.unwrapped.last)
    rewards, done = [], False
    while not done:
        _, reward, terminated, truncated, _ = trial.step(0)
        rewards.append(reward)
        done = terminated or truncated
    assert (rewards, terminated, truncated) == (
        [1e4] * 5,
        False,
        True,
    )


def test_classic_tasks_become_one_agent():
    vector = envs.make_vector(**suite.CLASSIC_PROTOCOL, environments=6)
    assert vector.single_observation_space.shape == (8 + 4,)
    assert vector.single_action_space == spaces.Discrete(4)
    _, info = vector.reset(seed=envs.reset_seeds(0, 0, 6))
    draw, seen = np.random.default_rng(0), set(info["task"].tolist())
    for _ in range(900):
        _, _, terminated, truncated, info = vector.step(draw.integers(4, size=6))
        done = terminated | truncated
        if done.any():
            for row in np.flatnonzero(done):
                task = suite.CLASSIC_MULTITASK[info["task"][row]]
                if task in ("Acrobot-v1", "MountainCar-v0"):
                    assert info["attempt_returns"][row, 0] <= -info["attempt_lengths"][row, 0] + 1
                if task == "MountainCar-v0":
                    assert truncated[row]
                    assert info["attempt_lengths"][row, 0] == 200
            _, info = envs.reset_where(vector, done)
            seen |= set(info["task"][done].tolist())
    assert seen == {0, 1, 2, 3}


def test_reference_scores():
    assert set(suite.REFERENCE_SCORES) == set(suite.CLASSIC_MULTITASK)
    for task, (_, solved) in suite.REFERENCE_SCORES.items():
        assert gym.spec(task).reward_threshold == solved
    env, returns = gym.make("CartPole-v1", disable_env_checker=True), []
    env.action_space.seed(0)
    for seed in range(300):
        env.reset(seed=seed)
        returns.append(0.0)
        ended = False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            returns[-1] += reward
            ended = terminated or truncated
    error = np.std(returns) / np.sqrt(len(returns))
    assert abs(np.mean(returns) - suite.REFERENCE_SCORES["CartPole-v1"][0]) < 4 * error


def test_names(monkeypatch):
    assert set(suite.TASKS) <= set(gym.registry)
    with pytest.raises(envs.UnknownEnvironmentError, match="LunarLandr"):
        envs.make_task("gym", "LunarLandr-v3")
    with pytest.raises(envs.UnknownEnvironmentError, match="no_such_module"):
        envs.make_task("gym", "no_such_module:Thing-v0")
    with pytest.raises(envs.UnknownEnvironmentError, match="gym task"):
        envs.make_task("gym", "not an id")

    def missing(*arguments, **options):
        raise gym.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gym, "make", missing)
    with pytest.raises(envs.MissingExtraError, match=r"pip install .*\[gym,mujoco\]'"):
        envs.make_task("gym", "LunarLander-v3")


def test_pictures_for_videos():
    env = envs.make_task("gym", "CartPole-v1", render=True)
    env.reset(seed=0)
    assert env.render().ndim == 3
