"""RL^2's bandits and MDPs against rules written down again, their distributions, and trials made one by one."""

import numpy as np
import pytest

import batched_envs
from twohot import envs
from twohot.envs.suites import rl2
from twohot.spaces import ACTION_MASK, OBSERVATION

SIGMAS = 5
"""Standard errors within which a mean is to lie: a chance of one in a million and more to be outside."""


def begun(task, trials):
    batch = rl2.make_batch(task, "train", trials)
    for index in range(trials):
        batch.reset(index, np.random.default_rng(index))
    return batch


def assert_mean(values, mean, deviation):
    """The mean of independent numbers of a known standard deviation."""
    assert abs(np.mean(values) - mean) < SIGMAS * deviation / np.sqrt(np.size(values))


def uniform_returns(task, trials):
    batch, draw, total = begun(task, trials), np.random.default_rng(0), np.zeros(trials)
    for _ in range(rl2.TASKS[task].steps):
        reward, terminated, truncated = batch.step(draw.integers(batch.action_space.n, size=trials))
        total += reward
        assert not truncated.any()
    assert terminated.all()
    return total


def test_arms_pay_with_probabilities_drawn_uniformly():
    arms = begun("bandit-100x50", 400).mean[:, 0]
    counts = np.histogram(arms, bins=20, range=(0, 1))[0]
    expected = arms.size / 20
    # Chi-square with 19 degrees of freedom: mean 19, standard deviation sqrt(38).
    assert ((counts - expected) ** 2 / expected).sum() < 19 + 6 * np.sqrt(38)


def test_an_mdp_is_drawn_from_the_published_priors():
    batch = begun("mdp-10", 400)
    assert_mean(batch.mean, 1.0, 1.0)
    # (x - 1)^2 of a Normal number has the variance 2.
    assert_mean((batch.mean - 1.0) ** 2, 1.0, np.sqrt(2))
    chance = np.diff(batch.cumulative, axis=-1, prepend=0.0)
    assert chance.min() >= 0
    np.testing.assert_allclose(chance.sum(-1), 1.0)
    # Of a flat Dirichlet distribution over 10, each part is Beta(1, 9): mean .1, variance 9 / (100 x 11).
    for state in range(rl2.STATES):
        assert_mean(chance[..., state], 0.1, np.sqrt(9 / 1100))
    # The square of such a part has mean 2 / 110, and the fourth moment 24 / (10 x 11 x 12 x 13).
    square, fourth = 2 / 110, 24 / 17160
    assert_mean(chance[..., 0] ** 2, square, np.sqrt(fourth - square**2))


@pytest.mark.parametrize(("task", "published"), [("bandit-10x5", 5.0), ("bandit-100x50", 49.8), ("mdp-10", 100.1)])
def test_random_play_returns_what_is_published(task, published):
    """Of 1000 trials; so the published mean has an error as large as that of 1000 trials here."""
    returns = uniform_returns(task, 1000)
    error = returns.std() / np.sqrt(len(returns))
    assert abs(returns.mean() - published) < SIGMAS * np.sqrt(2) * error + 0.05  # it is rounded to .1


def test_rewards_of_a_bandit_are_its_arms_chances():
    batch, wins = begun("bandit-500x5", 300), np.zeros(300)
    for _ in range(500):
        reward, _, _ = batch.step(np.full(300, 3))
        assert set(np.unique(reward)) <= {0.0, 1.0}
        wins += reward
    chance = batch.mean[:, 0, 3]
    # The sum over arms of squared distances, each by its binomial variance, is about chi-square.
    spread = (wins - 500 * chance) ** 2 / (500 * chance * (1 - chance))
    assert spread.mean() < 1 + SIGMAS * np.sqrt(2 / 300)


def test_an_mdp_against_a_plain_model():
    """Each step's noise is that of the trial; states follow from it, and an episode's last step leads to the first."""
    for seed in range(3):
        env = rl2.make("mdp-10")
        env.reset(seed=seed)
        batch, draw, state = env.batch, np.random.default_rng(seed), 0
        for time in range(100):
            action = int(draw.integers(5))
            noise, u = batch._normal[0, time], batch._uniform[0, time]
            expected = batch.mean[0, state, action] + noise
            chance = np.diff(batch.cumulative[0, state, action], prepend=0.0)
            state = int(np.searchsorted(np.cumsum(chance), u, side="right")) if (time + 1) % 10 else 0
            observation, reward, terminated, truncated, info = env.step(action)
            assert reward == np.float32(expected)
            assert (terminated, truncated) == (time == 99, False)
            np.testing.assert_array_equal(observation[OBSERVATION], [*np.eye(10)[state], (time + 1) % 10 == 0])
            assert observation[ACTION_MASK].tolist() == [1] * 5
        assert info["attempt_lengths"].tolist() == [10] * rl2.PARTS


def test_rewards_of_an_mdp_have_unit_variance_around_their_mean():
    batch = begun("mdp-100", 20)
    rest = []
    for _ in range(1000):
        action = np.zeros(20, np.int64)
        mean = batch.mean[np.arange(20), batch.state, action]
        rest.append(batch.step(action)[0] - mean)
    assert_mean(rest, 0.0, 1.0)
    assert_mean(np.square(rest), 1.0, np.sqrt(2))


def test_moves_of_an_mdp_follow_its_probabilities():
    batch = begun("mdp-100", 500)
    first = batch.cumulative[:, 0, 2].copy()
    batch.step(np.full(500, 2))
    # The probability integral of where a step leads is uniform within the step of the distribution that it hit.
    upper = first[np.arange(500), batch.state]
    lower = np.where(batch.state > 0, first[np.arange(500), batch.state - 1], 0.0)
    inside = lower + np.random.default_rng(0).random(500) * (upper - lower)
    assert_mean(inside, 0.5, np.sqrt(1 / 12))
    assert_mean((inside - 0.5) ** 2, 1 / 12, np.sqrt(1 / 180))


def test_later_attempts_are_at_the_same_problem():
    for task in ("bandit-10x5", "mdp-10"):
        batch, random = rl2.make_batch(task, "train", 1), np.random.default_rng(0)
        batch.reset(0, random)
        mean, cumulative, uniform = batch.mean.copy(), batch.cumulative.copy(), batch._uniform.copy()
        batch.reset(0, random, new_task=False)
        np.testing.assert_array_equal(batch.mean, mean)
        np.testing.assert_array_equal(batch.cumulative, cumulative)
        assert (batch._uniform != uniform).any()
        batch.reset(0, random)
        assert (batch.mean != mean).any()


def test_nothing_but_the_mask_tells_bandits_apart():
    short, long = (begun(task, 3).observe() for task in ("bandit-10x5", "bandit-100x5"))
    for name in short:
        np.testing.assert_array_equal(short[name], long[name])
    assert not short[OBSERVATION][:, : rl2.STATES].any()
    assert (short[OBSERVATION][:, rl2.STATES] == 1).all()


def test_all_tasks_at_once_equal_trials_one_by_one():
    """With actions that some tasks lack, which become random ones by streams of their own."""
    together = envs.make_vector("rl2", rl2.CORE, environments=9)
    assert isinstance(together, envs.BatchedTrials)
    layout = envs.common_layout("rl2", rl2.CORE)
    alone = envs.TrialVector(
        envs.SerialEnvironments(
            [envs.TrialEnv("rl2", rl2.CORE, layout=layout) for _ in range(9)],
            _arrays(together),
        ),
        9,
        together.single_observation_space,
        together.single_action_space,
    )
    assert batched_envs.check_vectors_equal(together, alone) == set(range(len(rl2.CORE)))


def _arrays(vector):
    from twohot.envs.vector.serial import allocate

    return allocate(vector.single_observation_space, vector.single_action_space, vector.num_envs)


def test_gymnasiums_own_checks():
    for task in ("bandit-10x5", "mdp-10"):
        batched_envs.check(rl2.make(task, render=True))


def test_a_trial_is_reported_by_tenths():
    batch, total = begun("mdp-25", 2), np.zeros((250, 2), np.float32)
    for step in range(250):
        assert batch.info(0) == {}
        total[step], _, _ = batch.step(np.zeros(2, np.int64))
    info = batch.info(1)
    np.testing.assert_allclose(info["attempt_returns"], total[:, 1].reshape(10, 25).sum(1), rtol=1e-5)
    assert info["attempt_lengths"].tolist() == [25] * 10


def test_no_success_is_told():
    """Nothing is a success here, though a trial reports parts: no task gets a rate of zero."""
    for vector in (
        envs.make_vector("rl2", ("bandit-10x5",), environments=2),
        envs.make_vector("rl2", ("bandit-10x5",), environments=2, render=True),
    ):
        vector.reset(seed=0)
        for _ in range(10):
            *_, info = vector.step(np.zeros(2, np.int64))
        assert not info["success_told"].any()
        assert info["attempt_returns"].shape == (2, rl2.PARTS)
        vector.close()


def test_the_named_tasks():
    assert rl2.TASKS["bandit-100x5"] == rl2.Problem(episodes=100, horizon=1, actions=5, states=1)
    assert rl2.TASKS["mdp-25"] == rl2.Problem(episodes=25, horizon=10, actions=5, states=10)
    assert max(rl2.TASKS[task].steps for task in rl2.CORE) == 250
    assert all(problem.steps % rl2.PARTS == 0 for problem in rl2.TASKS.values())
