"""The algorithms that learnt agents are compared with: values by hand, plain loops, and the published returns."""

from functools import partial

import numpy as np
import pytest

from bench.baselines import exploration
from bench.groups import rl2 as group
from bench.harness.measure import Record
from twohot.envs.suites.rl2 import CORE, STATES

GRID = 1000
SIGMAS = 5


def test_the_best_of_two_arms_and_two_pulls_by_hand():
    """A win makes its arm worth 2/3, a loss the other one worth 1/2: 1/2 + 1/2 (2/3 + 1/2)."""
    assert exploration.optimal_bandit(2, 2) == pytest.approx(0.5 + 0.5 * (2 / 3 + 1 / 2))
    assert exploration.optimal_bandit(1, 5) == 0.5
    assert exploration.optimal_bandit(2, 1) == pytest.approx(1.0)


def test_more_arms_than_pulls_are_worth_no_more():
    assert exploration.optimal_bandit(5, 5) == exploration.optimal_bandit(5, 50)
    assert exploration.optimal_bandit(5, 4) < exploration.optimal_bandit(5, 5)


def test_gittins_indices_are_the_known_ones():
    """Of Gittins, Glazebrook and Weber (2011), table for the discount .9, with a success and a failure as the prior."""
    table = exploration.gittins_table(3, 0.9, beyond=100, grid=GRID)
    for (successes, failures), index in {(0, 0): 0.7029, (0, 1): 0.5001, (1, 0): 0.8001}.items():
        assert abs(table[successes, failures] - index) < 2 / GRID


def test_the_index_of_the_last_pulls_by_hand():
    """With one pull left the mean. With two, from a flat prior: 1/2 - x + 1/2 (2/3 - x) = 0 at x = 5/9."""
    table = exploration.finite_gittins_table((1.0, 1.0), grid=GRID)
    assert abs(table[1, 1, 0] - 2 / 3) < 2 / GRID
    assert abs(table[1, 0, 1] - 1 / 3) < 2 / GRID
    assert abs(table[0, 0, 0] - 5 / 9) < 2 / GRID
    myopic = exploration.finite_gittins_table((1.0, 0.0), grid=GRID)
    assert abs(myopic[0, 0, 0] - 1 / 2) < 2 / GRID


def test_the_index_policy_is_next_to_optimal():
    returns = exploration.play("bandit-10x5", exploration.finite_gittins((1.0,) * 10), 4000, 0)
    best, error = exploration.optimal_bandit(10, 5), returns.std() / np.sqrt(len(returns))
    assert abs(returns.mean() - best) < SIGMAS * error


def test_values_are_those_of_a_plain_recursion():
    random = np.random.default_rng(0)
    reward = random.normal(size=(2, STATES, 3))
    transitions = random.dirichlet(np.ones(STATES), size=(2, STATES, 3))
    q = exploration.backups(reward, transitions)
    for trial in range(2):
        value = np.zeros(STATES)
        for step in range(exploration.HORIZON - 1, -1, -1):
            expected = np.array(
                [[reward[trial, s, a] + transitions[trial, s, a] @ value for a in range(3)] for s in range(STATES)]
            )
            np.testing.assert_allclose(q[step, trial], expected)
            value = expected.max(1)


def test_the_optimistic_mean_moves_mass_from_the_worst_states_to_the_best():
    random = np.random.default_rng(1)
    transitions = random.dirichlet(np.ones(STATES), size=(3, STATES, 2))
    value, slack = random.normal(size=(3, STATES)), random.uniform(0, 2.5, size=(3, STATES, 2))
    ours = exploration.optimistic_mean(transitions, slack, value)
    for trial, state, action in np.ndindex(ours.shape):
        p, order = transitions[trial, state, action].copy(), np.argsort(value[trial])
        spare = min(slack[trial, state, action] / 2, 1 - p[order[-1]])
        p[order[-1]] += spare
        for worst in order[:-1]:
            taken = min(spare, p[worst])
            p[worst] -= taken
            spare -= taken
        assert ours[trial, state, action] == pytest.approx(p @ value[trial])


@pytest.mark.parametrize(
    ("task", "name", "make"),
    [
        ("bandit-100x5", "Thompson", exploration.thompson),
        ("bandit-100x10", "UCB1", exploration.ucb1(0.2)),
        ("bandit-100x50", "Gittins", exploration.gittins(100, 0.99)),
        ("mdp-10", "PSRL", exploration.PosteriorSampling),
        ("mdp-10", "OPSRL", partial(exploration.PosteriorSampling, samples=10)),
        ("mdp-10", "UCRL2", partial(exploration.OptimisticModel, scaling=0.4)),
        ("mdp-10", "BEB", partial(exploration.ExplorationBonus, beta=20.0)),
    ],
)
def test_an_algorithm_returns_what_is_published(task, name, make):
    returns = exploration.play(task, make, 300, 0)
    error = returns.std() * np.sqrt(1 / len(returns) + 1 / group.PUBLISHED_TRIALS)
    assert abs(returns.mean() - group.PUBLISHED[task][name]) < 3 * error + 0.05


def test_nobody_exceeds_who_knows_all():
    known = exploration.play("mdp-10", exploration.KnownMdp, 200, 0)
    for make in (exploration.Uniform, exploration.Planner, exploration.PosteriorSampling):
        assert exploration.play("mdp-10", make, 200, 0).mean() < known.mean()


def test_one_seed_gives_the_same_returns():
    first, again, other = (exploration.play("mdp-10", exploration.PosteriorSampling, 5, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_the_table_shows_ours_beside_the_published():
    rows = [
        group.row("bandit-10x5", "UCB1", "c 0.3", np.tile([6.0, 7.4], 50)),
        group.row("bandit-10x5", "Thompson", "", np.full(100, 9.0)),
        group.row("mdp-10", "BEB", "beta 3", np.tile([140.0, 160.0], 50)),
    ]
    conditions = dict.fromkeys(("cpu", "instructions", "torch", "python", "commit"), "x")
    records: list[Record] = [{**{name: str(value) for name, value in vars(row).items()}, **conditions} for row in rows]
    text = "\n".join(group.write_table(records))
    assert "6.70 ± 0.07 (6.7)" in text
    assert "150.00 ± 1.00 (150.2)" in text
    assert "difference: Thompson in `bandit-10x5`." in text


def test_every_task_of_the_presets_has_published_returns_for_each_algorithm():
    for task in CORE:
        mine = set(group.algorithms(task)) - {"finite horizon", group.KNOWN}
        assert mine <= set(group.PUBLISHED[task]), task
