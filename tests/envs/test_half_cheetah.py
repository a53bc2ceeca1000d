"""HalfCheetahVel against the bare HalfCheetah and the formula of its reward."""

import gymnasium as gym
import numpy as np
import pytest

import batched_envs
from twohot.envs.suites import half_cheetah


def test_observations_and_rewards_against_the_bare_cheetah():
    env, bare = half_cheetah.make("vel-200"), gym.make("HalfCheetah-v5", disable_env_checker=True)
    observation, expected = env.reset(seed=3)[0], bare.reset(seed=3)[0]
    target, velocities = env.target, []
    draw = np.random.default_rng(0)
    for step in range(1, 201):
        np.testing.assert_array_equal(observation, expected.astype(np.float32))
        action = draw.uniform(-1, 1, 6).astype(np.float32)
        before = bare.unwrapped.data.qpos[0]
        observation, reward, terminated, truncated, info = env.step(action)
        expected = bare.step(action)[0]
        velocities.append((bare.unwrapped.data.qpos[0] - before) / bare.unwrapped.dt)
        assert reward == pytest.approx(-abs(velocities[-1] - target) - 0.05 * float((action**2).sum()), rel=1e-5)
        assert (terminated, truncated) == (False, step == 200)
    assert info["velocity_error"] == pytest.approx(abs(np.mean(velocities[-50:]) - target))


def test_attempts_share_a_target_and_trials_do_not():
    env = half_cheetah.make("vel-10")
    assert env.hidden_task
    targets = []
    for seed in range(100):
        first = env.reset(seed=seed, options={"attempt": 0})[0]
        targets.append(env.target)
        second = env.reset(seed=seed + 1, options={"attempt": 1})[0]
        assert env.target == targets[-1]
        assert not np.array_equal(first, second)
    assert len(set(targets)) == 100
    assert 4 < np.mean(targets) < 6  # five standard deviations of the mean are 1.4
    assert min(targets) < 1
    assert max(targets) > 9


def test_limits_and_gymnasiums_checks():
    assert {task: half_cheetah.make(task).spec.max_episode_steps for task in half_cheetah.TASKS} == {
        "vel": 1000,
        "vel-200": 200,
        "vel-10": 1000,
    }
    env = half_cheetah.make("vel")
    env.reset(seed=0)
    assert 0 <= env.target <= 3
    batched_envs.check(env, renders=False)
