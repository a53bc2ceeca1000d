"""Trials of many environments at once against a vector of `TrialEnv`s, and the protocol of the suites made of them."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from twohot import envs
from twohot.envs.vector.batched_trials import BatchedTrials

ROWS = 4
CASES = [
    ("frozen_lake", "4x4", {"attempts": 3, "unscored_attempts": 1, "reward_multipliers": (7.0,)}),
    ("frozen_lake", "5x5-hard", {"attempts": 2, "observation_size": 9}),
    ("frozen_lake", "4x4-recover", {"attempts": 4, "context_features": False}),
    ("tmaze", "active-3", {"attempts": 2, "reward_multipliers": (100.0,)}),
    ("dark_key", "5x5-shuffled", {}),
    ("frozen_lake", "4x4", {"attempts": 3, "step_limit": 7}),
]


def both(suite, task, options):
    """The vector of all trials at once, and the same trials one by one."""
    batched = envs.make_vector(suite, (task,), environments=ROWS, **options)
    assert isinstance(batched, BatchedTrials)
    options = {**options, "layout": envs.common_layout(suite, (task,), options.get("observation_size", 0))}
    options.pop("observation_size", None)
    one_by_one = [lambda: envs.TrialEnv(suite, (task,), **options)] * ROWS
    return batched, SyncVectorEnv(one_by_one, autoreset_mode=AutoresetMode.DISABLED)


def assert_same(ours, theirs, counted):
    """Infos count only where `counted`, as their masks say."""
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        if name.startswith("_"):
            np.testing.assert_array_equal(value, theirs[name])
        else:
            np.testing.assert_array_equal(value[counted], theirs[name][counted])
            assert value.dtype == theirs[name].dtype


@pytest.mark.parametrize(("suite", "task", "options"), CASES)
def test_all_trials_at_once_equal_trials_one_by_one(suite, task, options):
    batched, single = both(suite, task, options)
    assert batched.single_observation_space == single.single_observation_space
    assert batched.single_action_space == single.single_action_space
    seeds, draw, trials = envs.reset_seeds(3, 0, ROWS), np.random.default_rng(0), 0
    for seed in (seeds, None, seeds):
        observation, info = batched.reset(seed=seed)
        expected, expected_info = single.reset(seed=seed)
        np.testing.assert_array_equal(observation, expected)
        assert_same(info, expected_info, np.ones(ROWS, bool))
        for _ in range(1100 if suite == "dark_key" else 250):
            actions = draw.integers(batched.single_action_space.n, size=ROWS)
            *ours, info = batched.step(actions)
            *theirs, expected_info = single.step(actions)
            for our, their in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(our, their)
            done = ours[2] | ours[3]
            assert_same(info, expected_info, done)
            if done.any():
                trials += done.sum()
                observation, info = envs.reset_where(batched, done)
                expected, expected_info = envs.reset_where(single, done)
                np.testing.assert_array_equal(observation, expected)
                assert_same(info, expected_info, done)
    assert trials > 20


def test_what_batched_trials_refuse():
    batched = envs.make_vector("frozen_lake", ("4x4",), environments=2)
    batched.reset(seed=0)
    with pytest.raises(ValueError, match="expected actions"):
        batched.step(np.array([0, 5]))
    with pytest.raises(ValueError, match="expected actions"):
        batched.step(np.array([0, -1]))
    with pytest.raises(ValueError, match="reset_mask"):
        batched.reset(options={"reset_mask": np.zeros(2, bool)})
    with pytest.raises(ValueError, match="expected 2 seeds, one for each environment, got 1"):
        batched.reset(seed=[1])
    with pytest.raises(ValueError, match="raise observation_size"):
        envs.make_vector("frozen_lake", ("4x4",), environments=2, observation_size=2)
    with pytest.raises(envs.UnknownEnvironmentError, match="split"):
        envs.make_vector("frozen_lake", ("4x4",), environments=2, split="test")


def test_trials_that_have_ended_stand_still():
    batched = envs.make_vector("frozen_lake", ("4x4",), environments=3, attempts=2)
    batched.reset(seed=0)
    actions, ended = np.random.default_rng(0), np.zeros(3, bool)
    shown, played = None, np.zeros(3, int)
    while not ended.all():
        observation, reward, terminated, truncated, info = batched.step(actions.integers(4, size=3))
        if ended.any():
            np.testing.assert_array_equal(observation[ended], shown[ended])
            assert not reward[ended].any()
            assert not (terminated | truncated)[ended].any()
        played += ~ended
        done = terminated | truncated
        if done.any():
            np.testing.assert_array_equal(info["attempt_lengths"][done].sum(1), played[done])
        ended |= done
        shown = observation
    again, _ = envs.reset_where(batched, np.array([True, False, False]))
    np.testing.assert_array_equal(again[1:], shown[1:])
    assert not np.array_equal(again[0], shown[0])


def test_a_seed_for_all_environments_counts_up():
    batched = envs.make_vector("frozen_lake", ("5x5",), environments=3)
    batched.reset(seed=5)
    lakes = batched.batch.lake.copy()
    batched.reset(seed=[5, 6, 7])
    np.testing.assert_array_equal(batched.batch.lake, lakes)


def test_several_tasks_more_actions_and_pictures_are_played_row_by_row():
    for tasks, options in ((("4x4", "5x5"), {}), (("4x4",), {"actions": 7})):
        vector = envs.make_vector("frozen_lake", tasks, environments=2, **options)
        assert isinstance(vector.batch, envs.PythonBatch)
    for options in ({"render": True}, {"workers": "processes"}):
        vector = envs.make_vector("frozen_lake", ("4x4",), environments=2, **options)
        assert isinstance(vector, envs.TrialVector)
        vector.close()


@pytest.mark.parametrize("suite", ["frozen_lake", "tmaze", "dark_key"])
def test_every_listed_task_is_made_and_tells_of_success(suite):
    found = envs.registered_suites()[suite]
    assert found.reports_success
    spaces = set()
    for task in found.tasks:
        env = envs.make_task(suite, task)
        spaces.add(str((env.observation_space, env.action_space)))
        env.reset(seed=0)
        assert "success" in env.step(0)[4]
    assert not found.uniform or len(spaces) == 1


def test_a_trial_of_dark_key_is_reported_by_tenths():
    env = envs.TrialEnv("dark_key", ("8x8",), reward_multipliers=(100.0,))
    env.reset(seed=0)
    rewards, done = [], False
    draw = np.random.default_rng(0)
    while not done:
        _, reward, done, _, info = env.step(draw.integers(5))
        rewards.append(reward / 100)
    assert len(rewards) == 500
    np.testing.assert_array_equal(info["attempt_returns"], np.reshape(rewards, (10, 50)).sum(1))
    assert info["attempt_lengths"].tolist() == [50] * 10


def test_a_trial_of_the_lake_keeps_its_holes_and_the_next_has_others():
    env = envs.TrialEnv("frozen_lake", ("5x5",), attempts=4)
    draw = np.random.default_rng(0)
    lakes = []
    for trial in range(5):
        env.reset(seed=0 if trial == 0 else None)
        lake = env._game.env.unwrapped.batch.lake
        lakes.append(lake.tobytes())
        done = False
        while not done:
            assert lake.tobytes() == lakes[-1]
            _, reward, done, truncated, info = env.step(draw.integers(5))
            assert reward in (0.0, 1.0)
            assert not truncated
        assert info["attempt_success"].shape == (4,)
        np.testing.assert_array_equal(info["attempt_success"], info["attempt_returns"] == 1)
    assert len(set(lakes)) == 5
