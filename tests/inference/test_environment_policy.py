"""A trained policy in environments of one's own acts as it does in those of the package."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import twohot
from small import AGENT, CONFIG
from twohot.agent import AgentNetworks
from twohot.config import EnvironmentConfig
from twohot.envs import ObservationError, Suite, TrialEnv, common_layout, registry
from twohot.inference.agent import ActingError

VECTOR = spaces.Box(-9, 9, (3,), np.float64)
PARTS = spaces.Dict(
    {"image": spaces.Box(0, 255, (16, 16, 3), np.uint8), "speed": VECTOR, "action_mask": spaces.MultiBinary(5)}
)
OWN = {
    "short": (VECTOR, spaces.Discrete(3, start=2)),
    "long": (spaces.Box(-9, 9, (7,), np.float32), spaces.Discrete(6)),
    "nested": (spaces.Dict({"at": VECTOR, "of": spaces.Tuple((spaces.Discrete(4), VECTOR))}), spaces.Discrete(4)),
    "image": (PARTS, spaces.MultiDiscrete([2, 3])),
    "box": (VECTOR, spaces.Box(np.array([-2, 0], np.float32), np.array([2, 7], np.float32))),
    "wide": (VECTOR, spaces.Box(-1, 1, (3,), np.float32)),
}


class Scripted(gym.Env):
    """Shows the same, and ends in the same way, whatever is done; keeps what was done."""

    def __init__(self, task: str, offset: int = 0) -> None:
        self.observation_space, self.action_space = OWN[task]
        self.episode, self.done, self._random = offset, [], np.random.default_rng(offset)

    def reset(self, *, seed=None, options=None):
        self.episode, self.step_count = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.done.append(np.array(action))
        self.step_count += 1
        over = self.step_count == 3 + self.episode % 3
        reward = float(self._random.standard_normal())
        return self._observation(), reward, over and self.episode % 2 == 0, over and self.episode % 2 == 1, {}

    def _observation(self):
        self.observation_space.seed(100 * self.episode + self.step_count)
        return self.observation_space.sample()


SUITE = Suite("scripted", "", (), "", tuple(OWN), lambda task, split, render=False: Scripted(task), one_vector=True)
FAMILIES = {
    "vectors": ("short", "long", "nested"),
    "images": ("image",),
    "boxes": ("box", "wide"),
}


@pytest.fixture(autouse=True)
def suite(monkeypatch):
    monkeypatch.setattr(registry, "_SUITES", {**registry.registered_suites(), SUITE.name: SUITE})
    monkeypatch.setattr("twohot.envs.wrappers.trial.draw_seed", lambda generator: 0)  # of actions that a task lacks


def make(tasks, *, context_features=True, attempts=1, unscored=0, multipliers=()):
    """An agent of random weights for some tasks."""
    environment = EnvironmentConfig("scripted", tasks, multipliers, attempts, unscored, 0, 0, context_features)
    config = dataclasses.replace(CONFIG, environment=environment)
    env = trials(config, tasks[0])
    torch.manual_seed(0)
    networks = AgentNetworks(AGENT, env.observation_space, env.action_space)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return twohot.Agent(networks, config)


def trials(config, task):
    about = config.environment
    return TrialEnv(
        "scripted",
        about.tasks,
        attempts=about.attempts,
        unscored_attempts=about.unscored_attempts,
        reward_multipliers=about.reward_multipliers,
        layout=common_layout("scripted", about.tasks),
        context_features=about.context_features,
        plays=(about.tasks.index(task),),
    )


def batched(observation):
    return {k: v[None] for k, v in observation.items()} if isinstance(observation, dict) else observation[None]


def reference(agent, task, steps):
    """What the environment was asked to do through the package's own environments."""
    env, agent = trials(agent.config, task), twohot.Agent(agent.networks, agent.config)
    observation, reward = env.reset()[0], np.zeros(1)
    agent.reset(1)
    for _ in range(steps):
        action = agent.act(batched(observation), reward)
        observation, reward, terminated, truncated, _ = env.step(action[0])
        reward = np.array([reward])
        if terminated or truncated:
            observation = env.reset()[0]
            agent.reset(1)
    (game,) = env._games.values()
    return np.stack(game.env.unwrapped.done)


def watched(monkeypatch):
    """What agents are shown: for each call, for each environment its parts, its reward, and whether it begins."""
    seen, act = [], twohot.Agent.act

    def watch(self, observation, reward, **options):
        parts = observation if isinstance(observation, dict) else {"observation": observation}
        rewards = [0.0 if began else value for began, value in zip(self._began, reward, strict=True)]
        seen.append([({k: v[i] for k, v in parts.items()}, value, self._began[i]) for i, value in enumerate(rewards)])
        return act(self, observation, reward, **options)

    monkeypatch.setattr(twohot.Agent, "act", watch)
    return seen


@pytest.mark.parametrize("task", OWN)
@pytest.mark.parametrize("protocol", ["one attempt", "three attempts", "no features"])
def test_it_does_what_it_does_in_the_packages_own_environments(task, protocol, monkeypatch):
    tasks = next(each for each in FAMILIES.values() if task in each)
    agent = make(
        tasks,
        context_features=protocol != "no features",
        attempts=3 if protocol == "three attempts" else 1,
        unscored=1 if protocol == "three attempts" else 0,
        multipliers=tuple(float(2 + index) for index in range(len(tasks))),
    )
    env, seen = Scripted(task), watched(monkeypatch)
    policy = agent.wrap(env, task=task)
    observation, _ = env.reset()
    reward, ended = None, False
    for _ in range(60):
        action = policy.act(observation, reward, ended)
        observation, reward, terminated, truncated, _ = env.step(action)
        if ended := terminated or truncated:
            observation, _ = env.reset()
    done = np.stack(env.done)
    assert len(np.unique(done, axis=0)) > 1
    shown = seen.copy()
    seen.clear()
    np.testing.assert_array_equal(done, reference(agent, task, 60))
    np.testing.assert_equal(shown, seen)


@pytest.mark.parametrize("mode", [*AutoresetMode, "list"])
@pytest.mark.parametrize("task", ["nested", "image", "box"])
def test_many_environments_are_seen_as_one_each(mode, task, monkeypatch):
    agent, count, seen = make((task,)), 3, watched(monkeypatch)

    def play(envs, steps):
        """One after the other, as a list or alone."""
        policy, reward, ended = agent.wrap(envs if len(envs) > 1 else envs[0]), None, [False] * len(envs)
        observation = [env.reset()[0] for env in envs]
        for _ in range(steps):
            one = len(envs) == 1
            given = (observation[0], reward and reward[0], ended[0]) if one else (observation, reward, ended)
            actions = policy.act(*given)
            results = [env.step(action) for env, action in zip(envs, [actions] if one else actions, strict=True)]
            reward, ended = [each[1] for each in results], [each[2] or each[3] for each in results]
            observation = [
                env.reset()[0] if end else each[0] for env, each, end in zip(envs, results, ended, strict=True)
            ]
        rows = [list(each) for each in zip(*seen, strict=True)]
        seen.clear()
        return rows

    expected = [play([Scripted(task, 10 * index)], 40)[0] for index in range(count)]
    envs = [Scripted(task, 10 * index) for index in range(count)]
    if mode == "list":
        found = play(envs, 40)
    else:
        vector = SyncVectorEnv([lambda env=env: env for env in envs], autoreset_mode=mode)
        policy, reward, ended = agent.wrap(vector), None, np.zeros(count, bool)
        observation, _ = vector.reset()
        found = [[] for _ in envs]
        for _ in range(60):
            action = policy.act(observation, reward, ended)
            for index, rows in enumerate(found):
                if not (mode is AutoresetMode.NEXT_STEP and ended[index]):
                    rows.append(seen[-1][index])
            observation, reward, terminated, truncated, _ = vector.step(action)
            ended = terminated | truncated
            if mode is AutoresetMode.DISABLED and ended.any():
                observation, _ = vector.reset(options={"reset_mask": ended})
    for rows, wanted in zip(found, expected, strict=True):
        assert sum(began for *_, began in wanted) > 5
        np.testing.assert_equal(rows[:40], wanted)


def test_encode_gives_what_the_packages_environment_shows():
    for tasks in FAMILIES.values():
        agent = make(tasks, attempts=2, multipliers=(3.0,) * len(tasks))
        for task in tasks:
            env, own = trials(agent.config, task), Scripted(task)
            expected, raw = env.reset()[0], own.reset()[0]
            found = [agent.encode(task, raw), agent.encode(own, raw)]
            last, legal, attempt = 0.0, True, 0
            for step in range(1, 6):
                for each in found:
                    np.testing.assert_equal(each, expected)
                action = env.action_space.sample()
                expected, *_ = env.step(action)
                (game,) = env._games.values()
                raw, last, terminated, truncated, _ = own.step(game.env.unwrapped.done[-1])
                if terminated or truncated:
                    raw, attempt = own.reset()[0], attempt + 1
                legal = game.actions.legal
                told = {"step": step, "attempt": attempt, "legal": legal, "last_reward": last}
                found = [agent.encode(task, raw, **told), agent.encode(own, raw, **told)]


def test_trials_end_where_their_last_attempt_does_or_one_says_so():
    agent = make(("short",), attempts=2)
    envs = [Scripted("short"), Scripted("short")]
    policy, other = agent.wrap(envs), agent.wrap(envs)
    observation = [env.reset()[0] for env in envs]
    policy.act(observation)
    other.act(observation)
    policy.act(observation, [1, 1], [True, False])
    assert policy.attempt.tolist() == [1, 0]
    assert policy.next_attempt.tolist() == [0, 1]
    assert policy._agent._state.time.tolist() == [2, 2]
    policy.act(observation, [1, 1], [True, False])
    assert policy.attempt.tolist() == [0, 0]
    assert policy._agent._state.time.tolist() == [1, 3]
    policy.reset([False, True])
    policy.act(observation, [1, np.nan])  # the reward of one that begins is not read
    assert policy._agent._state.time.tolist() == [2, 1]
    assert other._agent._state.time.tolist() == [1, 1]  # it has a memory of its own
    policy.reset()
    policy.act(observation)
    assert policy._agent._state.time.tolist() == [1, 1]


def test_what_does_not_fit_is_said_and_changes_nothing():
    agent = make(("short", "long"), multipliers=(1.0, 2.0))
    env = Scripted("short")
    with pytest.raises(ActingError, match=r"expected task=\.\.\., for rewards count differently"):
        agent.wrap(env)
    with pytest.raises(ActingError, match="expected one of the tasks short, long, got 'tall'"):
        agent.wrap(env, task="tall")
    with pytest.raises(ActingError, match=r"not like the tasks .* expected at most 7 observation entries, got 8"):
        agent.wrap(_Only(spaces.Box(-1, 1, (8,)), OWN["short"][1]), task="short")
    with pytest.raises(ActingError, match=r"not like the tasks .* Discrete action space, got Box"):
        agent.wrap(Scripted("box"), task="short")
    with pytest.raises(ActingError, match=r"not like the tasks .* one-dimensional"):
        agent.wrap(Scripted("image"), task="short")
    with pytest.raises(
        ActingError, match=r"\['action_mask', 'image', 'speed'\] of an observation, got 'other' as well"
    ):
        make(("image",)).wrap(_Only(spaces.Dict({**PARTS, "other": VECTOR}), OWN["image"][1]))
    with pytest.raises(ActingError, match="as its observation_space, got 3"):
        agent.wrap(3, task="short")
    with pytest.raises(ActingError, match="at least one environment"):
        agent.wrap([], task="short")
    policy, observation = agent.wrap(env, task="long"), env.reset()[0]
    policy.act(observation)
    for arguments, error in (
        ((np.zeros(4), 0.0), "expected numbers of shape"),
        ((observation,), "the reward of the last actions"),
        ((observation, np.nan), "finite rewards within float32"),
        ((observation, 2e38), "finite rewards within float32"),
        ((observation, [1, 2]), "reward of 1 numbers"),
        ((observation, 0.0, 0.5), "ended of 1 bools"),
        ((np.full(3, np.nan), 0.0, True), "finite observations"),
    ):
        with pytest.raises((ActingError, ObservationError), match=error):
            policy.act(*arguments)
    assert policy._agent._state.time.tolist() == [1]
    three = make(("short",), attempts=2)
    with pytest.raises(ActingError, match="SAME_STEP or DISABLED with 2 attempts"):
        three.wrap(SyncVectorEnv([lambda: Scripted("short")] * 2))


class _Only:
    """Spaces without an environment."""

    def __init__(self, observation, action):
        self.observation_space, self.action_space = observation, action
