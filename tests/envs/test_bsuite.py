"""The bsuite suite against bsuite's own environments, and its scores against bsuite's own logging."""

import numpy as np
import pytest

import batched_envs
from twohot import envs
from twohot.envs.suites import bsuite as suite

pytest.importorskip("bsuite")

import pandas as pd
from bsuite import load, sweep
from bsuite.experiments import summary_analysis
from bsuite.logging import csv_load, csv_logging

ONE_OF_EACH = ("bandit_scale/5", "catch_scale/12", "cartpole_scale/0", "mountain_car_scale/19", "memory_len/6")


def test_ids_scales_and_episodes_are_bsuites():
    assert len(suite.TASKS) == 4 * 20 + 23
    for task in suite.TASKS:
        name, game = suite.experiment(task)
        settings = sweep.SETTINGS[task]
        assert settings.get("reward_scale", 1.0) == suite.reward_scale(task)
        assert summary_analysis.BSUITE_INFO[name].episode == suite.EPISODES[game]
    scales = {task for task in sweep.SETTINGS if task.partition("/")[0].endswith("_scale")}
    kept = scales | {task for task in sweep.SETTINGS if task.startswith("memory_len/")}
    assert {task for task in kept if not task.startswith("mnist")} == set(suite.TASKS)


@pytest.mark.parametrize("task", ONE_OF_EACH)
def test_it_plays_as_bsuite_does(task):
    env, bare = suite.make(task), load(suite.experiment(task)[0], sweep.SETTINGS[task])
    draw = np.random.default_rng(1)
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        # The same numbers from the same stream.
        stream = np.random.RandomState(np.random.PCG64(np.random.SeedSequence(seed)))
        getattr(bare, "raw_env", bare)._rng = stream
        for episode in range(2):
            if episode:
                observation, _ = env.reset()
            expected = bare.reset()
            np.testing.assert_array_equal(observation, expected.observation)
            ended = False
            while not ended:
                action = int(draw.integers(env.action_space.n))
                observation, reward, terminated, truncated, info = env.step(action)
                expected = bare.step(action)
                np.testing.assert_array_equal(observation, expected.observation)
                assert observation in env.observation_space
                assert (reward, terminated, truncated) == (expected.reward, expected.last(), False)
                assert not expected.last() or expected.discount == 0
                ended = terminated
            told = suite.experiment(task)[1] in ("catch", "memory_len")
            assert info == ({"success": reward > 0} if told else {})


def test_arms_are_ordered_by_the_id_and_rewards_scaled_by_it():
    rewards = {}
    for setting in (0, 1, 4, 16):
        env = suite.make(f"bandit_scale/{setting}")
        rewards[setting] = np.zeros(11)
        for arm in range(11):
            env.reset(seed=arm)
            rewards[setting][arm] = env.step(arm)[1]
    np.testing.assert_allclose(np.sort(rewards[16]), np.linspace(0, 1000, 11))
    np.testing.assert_allclose(rewards[16], rewards[0] * 1e6)
    np.testing.assert_allclose(rewards[4], rewards[0] * 30)
    assert not np.array_equal(rewards[0], rewards[1])


def score(returns):
    """Of each id's episodes."""
    return suite.score(pd.concat(suite.results(task, own) for task, own in returns.items()))


def logged(task, episodes, folder, action):
    """Plays bsuite's own environment under its own logging; returns the episodes' returns."""
    env = load(suite.experiment(task)[0], {**sweep.SETTINGS[task], "seed": 0})  # of their own they have none
    env = csv_logging.wrap_environment(env, task, str(folder))
    returns = []
    for _ in range(episodes):
        step, total = env.reset(), 0.0
        while not step.last():
            step = env.step(action(step.observation))
            total += step.reward
        returns.append(total)
    return returns


@pytest.mark.parametrize(
    ("tasks", "episodes"),
    [
        (("bandit_scale/0", "bandit_scale/7", "bandit_scale/19"), 100),
        (("catch_scale/2", "catch_scale/18"), 100),
        (("cartpole_scale/3", "cartpole_scale/8"), 20),
        (("mountain_car_scale/1", "mountain_car_scale/16"), 2),
        (("memory_len/0", "memory_len/4"), 100),
    ],
)
def test_the_score_is_that_of_bsuites_own_logs(tasks, episodes, tmp_path):
    draw, actions = np.random.default_rng(0), suite.make(tasks[0]).action_space.n

    def good_in_part(observation):
        """Better than random, so that no score is clipped."""
        if tasks[0].startswith("catch"):
            ball, paddle = observation[:-1].sum(0).argmax(), observation[-1].argmax()
            return int(1 + np.sign(ball - paddle)) if draw.random() < 0.8 else int(draw.integers(3))
        if tasks[0].startswith("cartpole"):
            return int(2 * (observation[0, 2] > 0))
        if tasks[0].startswith("mountain_car"):
            return int(2 * (observation[0, 1] > 0))
        return int(draw.integers(actions))

    returns = {task: logged(task, episodes, tmp_path, good_in_part) for task in tasks}
    table, _ = csv_load.load_bsuite(str(tmp_path))
    theirs = summary_analysis.bsuite_score(table)
    name = suite.experiment(tasks[0])[0]
    assert theirs["bsuite_env"].tolist() == [name]
    ours = score(returns)
    assert ours[name] == pytest.approx(float(theirs["score"].iloc[0]), abs=1e-9)
    assert ours[name] < 1
    assert ours[name] > 0 or name == "memory_len"
    for task in tasks:
        kept = suite.results(task, returns[task]).set_index("episode")
        own = table[table.bsuite_id == task].set_index("episode")
        for column in ("episode_return", "total_return", "total_regret", "raw_return", "best_episode", "total_perfect"):
            if column in own:
                np.testing.assert_allclose(kept.loc[own.index, column], own[column], rtol=1e-9, atol=1e-9)


def test_a_perfect_agent_scores_one_at_every_scale():
    best = {"bandit": 1.0, "catch": 1.0, "cartpole": 1000.0, "mountain_car": -100.0, "memory_len": 1.0}
    for game, value in best.items():
        tasks = [task for task in suite.TASKS if suite.experiment(task)[1] == game]
        found = score({task: [value * suite.reward_scale(task)] * suite.EPISODES[game] for task in tasks})
        assert list(found.values()) == [pytest.approx(1.0)]


def test_episodes_after_the_last_that_counts_do_not():
    good, bad = [1.0] * 10_000, [-1.0] * 50
    assert score({"catch_scale/8": good + bad}) == {"catch_scale": 1.0}
    with pytest.raises(ValueError, match="as many episodes of each id"):
        score({"catch_scale/8": good, "catch_scale/9": bad})


def test_one_agent_sees_games_of_all_kinds_alike():
    actors = envs.make_vector("bsuite", ONE_OF_EACH, environments=5, assignment="fixed")
    observation, _ = actors.reset(seed=3)
    assert observation.shape == (5, 50 + 4)
    assert actors.single_action_space.n == 11
    for _ in range(30):
        *_, terminated, truncated, _ = actors.step(np.zeros(5, np.int64))
        if (terminated | truncated).any():
            envs.reset_where(actors, terminated | truncated)


@pytest.mark.parametrize("task", ONE_OF_EACH)
def test_gymnasium_accepts_it(task):
    batched_envs.check(suite.make(task), renders=False)
