"""Procgen through our own binding: every game and mode, levels that stay, marks, and the clock that we hold."""

import sys
from ctypes import c_int32

import gymnasium as gym
import numpy as np
import pytest

from batched_envs import check_vectors_equal
from twohot import envs
from twohot.envs import MissingExtraError, UnknownEnvironmentError
from twohot.envs.suites import procgen as sets
from twohot.envs.suites.procgen import game as procgen

pytestmark = pytest.mark.skipif(not (3, 11) <= sys.version_info < (3, 13), reason="procgen-mirror has no wheel")

NOTHING = 4


def actions(count, seed=0):
    return np.random.default_rng(seed).integers(procgen.ACTIONS, size=count).tolist()


def play(env, steps, seed=0):
    """Observations, rewards and ends of some steps, which stop at an episode's end."""
    seen = []
    for action in actions(steps, seed):
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append((observation, reward, terminated, truncated, info))
        if terminated or truncated:
            break
    return seen


def library_limit(env):
    """The time limit in the library's state."""
    env._library.get_state(env._handle, 0, procgen._state, procgen._STATE_BYTES)
    return c_int32.from_buffer(procgen._state, procgen._clock(procgen._state)).value


def test_the_tasks():
    assert len(procgen.TASKS) == len(set(procgen.TASKS)) == 16 + 16 + 6
    assert set(sets.EASY) | set(sets.MEMORY_HARD) <= set(procgen.TASKS)
    assert len(sets.MEMORY_HARD) == 16
    assert dict(zip(sets.EASY, sets.EASY_RESCALED_MULTIPLIERS, strict=True))["coinrun-easy"] == 100


@pytest.mark.parametrize("task", procgen.TASKS)
def test_a_game_with_its_clock_stopped_plays_as_with_it(task, monkeypatch):
    env = procgen.Procgen(task)
    first, _ = env.reset(seed=5)
    assert env.observation_space.contains(first)
    assert env._limit >= 500
    assert library_limit(env) == 2**31 - 1
    stopped = play(env, 200)
    env.reset(options={"attempt": 1})
    assert library_limit(env) == 2**31 - 1
    env.close()

    monkeypatch.setattr(procgen.Procgen, "_stop_clock", lambda self: setattr(self, "_limit", 10_000))
    bare = procgen.Procgen(task)
    np.testing.assert_array_equal(bare.reset(seed=5)[0], first)
    assert library_limit(bare) == env._limit
    running = play(bare, 200)
    bare.close()
    assert len(stopped) == len(running)
    for ours, theirs in zip(stopped, running, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:] == theirs[1:]
    assert any((observation != first).any() for observation, *_ in stopped)


def test_the_time_limit_truncates_with_the_true_last_image():
    env = procgen.Procgen("maze-hard")
    env.reset(seed=0)
    ends = [env.step(NOTHING)[2:4] for _ in range(500)]
    assert ends == [(False, False)] * 499 + [(False, True)]

    env = procgen.Procgen("coinrun-easy")
    env.reset(seed=1)
    whole = play(env, 60)
    env.reset(options={"attempt": 0})
    env = procgen.Procgen("coinrun-easy")
    env.reset(seed=1)
    env._limit = 40
    cut = play(env, 60)
    assert len(cut) == 40
    assert cut[-1][2:4] == (False, True)
    np.testing.assert_array_equal(cut[-1][0], whole[39][0])
    assert (whole[39][0] != whole[38][0]).any()


@pytest.mark.parametrize(("task", "limit"), [("bigfish-easy", 6000), ("coinrun-easy", 30)])
def test_the_second_attempt_sees_the_same_level_and_a_mark(task, limit):
    env = procgen.Procgen(task)
    first, _ = env.reset(seed=0, options={"attempt": 0})
    env._limit = limit
    one = play(env, 1000)
    assert one[-1][2:4] == ((True, False) if limit == 6000 else (False, True))
    level = env.level
    for attempt in (1, 2):
        second, _ = env.reset(seed=attempt, options={"attempt": attempt})
        assert env.level == level
        again = play(env, 1000)
        assert len(again) == len(one)
        for image, unmarked in ((second, first), *((a[0], b[0]) for a, b in zip(again, one, strict=True))):
            assert not image[1:5, 1:5].any()
            assert unmarked[1:5, 1:5].any()
            marked = unmarked.copy()
            marked[1:5, 1:5] = 0
            np.testing.assert_array_equal(image, marked)
        assert [step[1] for step in again] == [step[1] for step in one]


def test_the_last_image_of_a_game_that_ends_is_shown_again():
    env = procgen.Procgen("bigfish-easy")
    env.reset(seed=0)
    played = play(env, 1000)
    assert played[-1][2]
    np.testing.assert_array_equal(played[-1][0], played[-2][0])
    with pytest.raises(gym.error.ResetNeeded):
        env.step(NOTHING)


@pytest.mark.parametrize(("split", "low", "high"), [("train", 0, 10_000), ("test", 10_000, 10_000_000)])
def test_levels_of_a_split_change_between_trials(split, low, high):
    env = procgen.Procgen("maze-easy", split)
    levels = set()
    for trial in range(30):
        env.reset(seed=trial, options={"attempt": 0})
        assert env._seed.value == env.level
        levels.add(env.level)
    assert len(levels) > 25
    assert all(low <= level < high for level in levels)
    assert max(levels) > high / 2


def test_rewards_are_the_games_own_and_success_is_told():
    env = procgen.Procgen("maze-easy")
    for trial in range(20):
        env.reset(seed=trial)
        played = play(env, 500)
        if played[-1][2]:
            break
    assert [step[1] for step in played] == [0.0] * (len(played) - 1) + [10.0]
    assert played[-1][4] == {"success": True}


@pytest.mark.parametrize("task", ["coinrun-memory", "maze-extreme", "maze", "coinrun-exploration", "tetris-easy"])
def test_an_unknown_mode_does_not_reach_the_library(task):
    with pytest.raises(UnknownEnvironmentError, match="twohot envs procgen"):
        procgen.Procgen(task)


def test_a_missing_wheel_says_what_to_do(monkeypatch):
    monkeypatch.setattr(procgen, "find_spec", lambda name: None)
    procgen._folder.cache_clear()
    procgen._load.cache_clear()
    with pytest.raises(MissingExtraError, match="pip install --no-deps procgen-mirror"):
        procgen.Procgen("maze-easy")


def test_frames_are_rendered_and_change_nothing():
    env, plain = procgen.Procgen("coinrun-easy", render=True), procgen.Procgen("coinrun-easy")
    np.testing.assert_array_equal(env.reset(seed=0)[0], plain.reset(seed=0)[0])
    before = env.render()
    assert before.shape == (512, 512, 3)
    for ours, theirs in zip(play(env, 20), play(plain, 20), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
    assert (env.render() != before).any()


def test_the_wheels_python_code_is_not_imported():
    procgen.Procgen("maze-easy").reset(seed=0)
    assert not {"procgen", "gym", "gym3"} & set(sys.modules)


def test_a_trial_of_two_attempts():
    env = envs.TrialEnv("procgen", ["maze-easy", "coinrun-easy"], attempts=2, reward_multipliers=[1.0, 100.0])
    levels, rewards = [], []
    for trial in range(30):
        _, info = env.reset(seed=trial)
        game, level, done = env._game.env.unwrapped, env._game.env.unwrapped.level, False
        game._limit = 150
        for action in actions(400, trial):
            observation, reward, terminated, truncated, end = env.step(action)
            done = terminated or truncated
            assert game.level == level
            assert observation["observation"][1:5, 1:5].any() == (observation["context"][1] == 0)
            if reward:
                rewards.append((info["task"], reward))
            if done:
                break
            game._limit = 150
        assert done
        assert end["attempt_lengths"].sum() <= 300
        assert (end["attempt_success"] == (end["attempt_returns"] > 0)).all()
        levels.append(level)
    assert len(set(levels)) == 30
    assert set(rewards) == {(0, 10.0), (1, 1000.0)}


@pytest.mark.parametrize(
    ("split", "options"),
    [
        ("train", {"attempts": 2, "reward_multipliers": (1.0, 100.0, 3.0), "step_limit": 260}),
        ("test", {"attempts": 3, "unscored_attempts": 1, "assignment": "fixed", "step_limit": 200}),
        ("train", {"context_features": False, "step_limit": 100}),
    ],
)
def test_games_in_threads_play_as_one_by_one(split, options, monkeypatch):
    monkeypatch.setattr(sets, "cpus", lambda: 3)
    tasks, rows = ("bigfish-easy", "starpilot-hard", "maze-memory"), 4
    together = envs.make_vector("procgen", tasks, environments=rows, split=split, **options)
    assert isinstance(together, envs.BatchedTrials)
    # Pictures are for people only: with them, rows are played one by one.
    alone = envs.make_vector("procgen", tasks, environments=rows, split=split, render=True, **options)
    assert check_vectors_equal(together, alone) == {0, 1, 2}
    task = envs.reset_where(together, np.ones(rows, bool), ["maze-memory", None, "bigfish-easy", "maze-memory"])[1]
    assert task["task"][[0, 2, 3]].tolist() == [2, 0, 2]
    with pytest.raises(UnknownEnvironmentError, match="expected a task of this environment"):
        envs.reset_where(together, np.ones(rows, bool), "coinrun-easy")
    together.close()
    together.close()
    alone.close()
