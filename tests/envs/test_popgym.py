"""The POPGym suite and the 27-task protocol, against POPGym's own classes."""

import numpy as np
import pytest
from gymnasium import spaces

from twohot import envs

popgym_envs = pytest.importorskip("popgym.envs")

CLASSES = {keywords["id"].split("-")[1]: game for game, keywords in popgym_envs.ALL.items()}
DISCRETE = [task for task in envs.get_suite("popgym").tasks if "Pendulum" not in task]
EASY = [task for task in envs.MULTITASK_27 if task.endswith("Easy")]


PADDED = envs.Layout(spaces.Box(-np.inf, np.inf, (26,), np.float32), spaces.Discrete(26))


def trial_env(*tasks, **changes):
    arguments = {"attempts": 2, "unscored_attempts": 1, "layout": PADDED, **changes}
    return envs.TrialEnv("popgym", tasks or envs.MULTITASK_27, **arguments)


def trace(env, steps, seed):
    """All that comes out of `steps` steps with random actions; trials follow each other."""
    actions = np.random.default_rng(17).integers(env.action_space.n, size=steps).tolist()
    observation, info = env.reset(seed=seed)
    out = [observation, [info["task"]]]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        out += [observation, [reward, terminated, truncated]]
        if terminated:
            out.append(info["attempt_returns"])
            observation, info = env.reset()
            out += [observation, [info["task"]]]
    return np.concatenate(out)


def test_all_42_tasks_are_listed():
    assert len(envs.get_suite("popgym").tasks) == 42
    assert set(envs.get_suite("popgym").tasks) == set(CLASSES)


def test_the_protocol():
    assert len(set(envs.MULTITASK_27)) == 27
    assert set(envs.MULTITASK_27) <= set(envs.get_suite("popgym").tasks)
    layout = envs.common_layout("popgym", envs.MULTITASK_27)
    assert layout == PADDED
    env = trial_env()
    assert env.observation_space.shape == (30,)
    assert env.action_space == spaces.Discrete(26)
    assert (env.attempts, env.unscored_attempts) == (2, 1)


@pytest.mark.parametrize("task", [task for task in envs.get_suite("popgym").tasks if "Pendulum" in task])
def test_pendulums_take_numbers_in_their_own_bounds(task):
    env, bare = envs.TrialEnv("popgym", (task,)), CLASSES[task]()
    assert env.action_space == spaces.Box(-1, 1, (1,), np.float32)
    calls = []
    env.reset(seed=0)
    monkey = env._games[0].env.unwrapped
    step = monkey.step
    monkey.step = lambda action: (calls.append(action.item()), step(action))[1]
    for action in (-1.0, 0.5, 3.0):
        env.step(np.array([action], np.float32))
    assert calls == [-bare.action_space.high.item(), 0.5 * bare.action_space.high.item(), bare.action_space.high.item()]


@pytest.mark.parametrize("task", DISCRETE)
def test_a_task_equals_the_bare_game(task):
    env, bare = envs.make_task("popgym", task), CLASSES[task]()
    space, flat = bare.observation_space, spaces.flatten_space(bare.observation_space)
    assert env.observation_space.shape == flat.shape
    counts = bare.action_space.nvec if isinstance(bare.action_space, spaces.MultiDiscrete) else None
    actions = np.random.default_rng(3).integers(env.action_space.n, size=150).tolist()
    observation, expected = env.reset(seed=5)[0], bare.reset(seed=5)[0]
    for action in actions:
        assert observation.dtype == np.float32
        np.testing.assert_array_equal(observation, spaces.flatten(space, expected).astype(np.float32))
        observation, reward, terminated, truncated, _ = env.step(action)
        own_action = action if counts is None else np.array(np.unravel_index(action, counts))
        expected, expected_reward, ended, timed_out, _ = bare.step(own_action)
        assert reward == expected_reward
        assert (terminated, truncated) == (ended or timed_out, False)
        if terminated:
            observation, expected = env.reset()[0], bare.reset()[0]


@pytest.mark.parametrize("task", ["MultiarmedBanditEasy", "PositionOnlyCartPoleEasy"])
def test_the_games_own_clock_terminates(task, monkeypatch):
    env = envs.make_task("popgym", task)
    env.reset(seed=0)
    monkeypatch.setattr(env.unwrapped, "max_episode_length", 4)
    ends = [env.step(0)[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(True, False)]


@pytest.mark.parametrize("task", EASY)
def test_attempt_returns_equal_those_of_bare_games_with_the_same_actions(task, monkeypatch):
    game, calls = CLASSES[task], []
    reset, step = game.reset, game.step
    monkeypatch.setattr(
        game, "reset", lambda self, *, seed=None, options=None: (calls.append(seed), reset(self, seed=seed))[1]
    )
    monkeypatch.setattr(game, "step", lambda self, action: (calls.append((action,)), step(self, action))[1])
    env = trial_env(task, reward_multipliers=(7.0,))
    actions = np.random.default_rng(1)
    env.reset(seed=11)
    rewards, done, info = [], False, {}
    while not done:
        _, reward, done, _, info = env.step(actions.integers(26))
        rewards.append(reward)
    monkeypatch.undo()
    bare, returns, lengths = game(), [], []
    for call in calls:
        if isinstance(call, tuple):
            returns[-1] += bare.step(*call)[1]
            lengths[-1] += 1
        else:
            assert call is not None
            bare.reset(seed=call)
            returns.append(0.0)
            lengths.append(0)
    assert len({call for call in calls if not isinstance(call, tuple)}) == 2
    np.testing.assert_allclose(info["attempt_returns"], returns, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(info["attempt_lengths"], lengths)
    assert not any(rewards[: lengths[0]])
    assert sum(rewards) == pytest.approx(7 * returns[1])


@pytest.mark.parametrize("task", DISCRETE)
def test_every_game_follows_from_the_seed_while_global_random_numbers_are_disturbed(task):
    np.random.seed(0)
    expected = trace(trial_env(task, layout=None), 150, seed=21)
    np.random.seed(1)
    used = trial_env(task, layout=None)
    trace(used, 33, seed=22)
    np.testing.assert_array_equal(trace(used, 150, seed=21), expected)


def test_the_whole_protocol_follows_from_the_seed():
    expected = trace(trial_env(), 3000, seed=5)
    np.random.seed(3)
    np.testing.assert_array_equal(trace(trial_env(), 3000, seed=5), expected)
    assert not np.array_equal(trace(trial_env(), 3000, seed=6)[:1000], expected[:1000])


def test_a_vector_plays_many_of_the_tasks():
    many = envs.make_vector(**envs.MULTITASK_27_PROTOCOL, environments=8)
    observations, infos = many.reset(seed=envs.reset_seeds(0, 0, 8))
    actions, seen = np.random.default_rng(0), set(infos["task"].tolist())
    for _ in range(400):
        observations, _, terminated, truncated, infos = many.step(actions.integers(26, size=8))
        assert not truncated.any()
        if terminated.any():
            assert infos["attempt_returns"][terminated].shape == (terminated.sum(), 2)
            observations, infos = envs.reset_where(many, terminated)
            seen |= set(infos["task"][terminated].tolist())
    assert observations.shape == (8, 30)
    assert len(seen) > 10
