"""Noise on actions of every kind, its size over steps and trials, and legal choices only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from small import CONFIG
from twohot.config import CollectConfig, ConfigurationError, EnvironmentConfig
from twohot.data.rollout import Rollout, UniformPolicy, seeded_generator
from twohot.rl.exploration import Exploration, Schedule, legal_choices, linear_schedule, random_choices
from twohot.training.build import make_environments, make_exploration

ROWS = 1000


def explore(space, schedule, **options):
    found = Exploration(ROWS, space, schedule, np.random.default_rng(0), **options)
    found.begin(np.ones(ROWS, bool))
    return found


def test_the_schedule_is_linear_and_then_constant():
    assert linear_schedule(0, 1.0, 0.05, 100) == 1.0
    assert linear_schedule(50, 1.0, 0.0, 100) == 0.5
    assert linear_schedule(1000, 1.0, 0.05, 100) == pytest.approx(0.05)
    assert linear_schedule(0, 1.0, 0.05, 0) == pytest.approx(0.05)


def test_bilevel_noise_falls_within_a_trial_too():
    schedule = Schedule(1.0, 0.2, 100, trial_start=0.8, trial_end=0.0, trial_steps=10)
    steps = np.array([0, 5, 10, 99])
    np.testing.assert_allclose(schedule(0, steps), [1, 0.9, 0.8, 0.8])
    np.testing.assert_allclose(schedule(100, steps), [0.2, 0.1, 0, 0])
    assert Schedule(1.0, 0.2, 100)(50, 7) == pytest.approx(0.6)


def test_choices_are_random_as_often_as_scheduled():
    noise = explore(spaces.Discrete(10), Schedule(1.0, 0.0, 100))
    assert noise.multiplier.min() >= 0
    assert abs(noise.multiplier.mean() - 0.5) < 5 * np.sqrt(1 / 12 / ROWS)
    changed = np.mean([noise(np.full(ROWS, 10), 50) < 10 for _ in range(100)], axis=0)
    assert np.abs(changed - 0.5 * noise.multiplier).max() < 5 * np.sqrt(0.25 / 100)
    kept = noise.multiplier.copy()
    noise.begin(np.arange(ROWS) < 10)
    np.testing.assert_array_equal(noise.multiplier[10:], kept[10:])
    assert (noise.multiplier[:10] != kept[:10]).all()


def test_without_a_multiplier_all_trials_have_the_same_noise():
    noise = explore(spaces.Discrete(10), Schedule(1.0, 1.0, 0), randomize_epsilon=False)
    assert (noise(np.full(ROWS, 10), 0) < 10).all()


def test_noise_that_is_asked_for_is_nowhere_else():
    noise = explore(spaces.Discrete(10), Schedule(1.0, 1.0, 0), randomize_epsilon=False)
    where = np.arange(ROWS) % 3 == 0
    np.testing.assert_array_equal(noise(np.full(ROWS, 10), 0, where=where) < 10, where)


def test_a_t_maze_asks_for_noise_at_its_junction():
    """A policy that never leaves the way turns there, and nowhere else. Another environment does not ask."""
    collect = CollectConfig(environments=6, epsilon_start=1.0, epsilon_end=1.0, epsilon_where="asked")
    config = replace(CONFIG, environment=EnvironmentConfig(suite="tmaze", tasks=("passive-2-6",)))
    config = replace(config, collect=replace(collect, randomize_epsilon=False))
    _, environments = make_environments(config)

    class Ahead:
        def initial_state(self, environments):
            return UniformPolicy(None).initial_state(environments)

        def act(self, state, observation, previous_action, previous_reward, **_):
            return torch.zeros(len(previous_reward), dtype=torch.int64)

    taken, step = [], environments.step

    def recorded(actions):
        taken.append((environments.batch.explore, actions.copy()))
        return step(actions)

    environments.step = recorded
    noise = make_exploration(config, environments.single_action_space)
    rollout = Rollout(environments, Ahead(), generator=seeded_generator(0, 0), exploration=noise)
    rollout.restart(list(range(6)))
    rollout.collect(300)
    at_junction, actions = (np.concatenate(found) for found in zip(*taken, strict=True))
    assert (actions[~at_junction] == 0).all()
    counts = np.bincount(actions[at_junction], minlength=4)
    # Chi-square with 3 degrees of freedom exceeds 45 in one of 10^9 draws.
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 45
    with pytest.raises(ConfigurationError, match=r"collect\.epsilon_where: nothing in dark_key asks"):
        make_environments(replace(config, environment=EnvironmentConfig(suite="dark_key", tasks=("5x5",))))


def test_the_step_of_a_trial_counts_from_its_beginning():
    schedule = Schedule(1.0, 1.0, 0, trial_start=0.0, trial_end=0.0, trial_steps=2)
    noise = explore(spaces.Discrete(10), schedule, randomize_epsilon=False)
    policy = np.full(ROWS, 10)
    shares = [(noise(policy, 0) < 10).mean() for _ in range(3)]
    assert shares[0] == 1
    assert abs(shares[1] - 0.5) < 5 * np.sqrt(0.25 / ROWS)
    assert shares[2] == 0
    noise.begin(np.arange(ROWS) < 400)
    assert (noise(policy, 0) < 10).tolist() == [True] * 400 + [False] * 600


def test_numbers_get_gaussian_noise_and_stay_in_bounds():
    noise = explore(spaces.Box(-1, 1, (3,)), Schedule(0.2, 0.2, 0))
    found = np.stack([noise(np.zeros((ROWS, 3), np.float32), 0) for _ in range(50)])
    assert found.dtype == np.float32
    spread = found.std(axis=(0, 2))
    # 150 numbers a row: the deviation of their spread is a twelfth of a root of two of it.
    assert np.abs(spread / (0.2 * noise.multiplier) - 1).max() < 5 / np.sqrt(2 * 150)
    assert np.abs(noise(np.ones((ROWS, 3), np.float32), 0)).max() == 1


@pytest.mark.parametrize(("space", "shape"), [(spaces.MultiDiscrete([3, 4]), (2,)), (spaces.Discrete(4), ())])
def test_all_parts_of_an_action_are_replaced_together(space, shape):
    noise = explore(space, Schedule(0.5, 0.5, 0), randomize_epsilon=False)
    policy = np.full((ROWS, *shape), 9)
    found = noise(policy, 0).reshape(ROWS, -1)
    replaced = (found != 9).all(1)
    assert (replaced | (found == 9).all(1)).all()
    assert abs(replaced.mean() - 0.5) < 5 * np.sqrt(0.25 / ROWS)
    assert all(space.contains(row.reshape(shape).astype(space.dtype)) for row in found[replaced])


def test_buttons_are_flipped_as_often_as_scheduled():
    noise = explore(spaces.MultiBinary(12), Schedule(0.5, 0.5, 0), randomize_epsilon=False, flip_probability=0.2)
    pressed = np.tile(np.arange(12) % 2, (ROWS, 1))
    flipped = np.stack([noise(pressed, 0) != pressed for _ in range(20)])
    explored = 20 * ROWS * 0.5
    assert abs(flipped.sum() / (12 * explored) - 0.2) < 5 * np.sqrt(0.25 / explored)
    assert np.ptp(flipped.sum((0, 1))) < 10 * np.sqrt(0.1 * 20 * ROWS)
    # Whether an actor explores is drawn once for all of its buttons.
    assert abs((~flipped.any(2)).mean() - (0.5 + 0.5 * 0.8**12)) < 5 * np.sqrt(0.25 / (20 * ROWS))


def test_buttons_stay_flipped_for_their_steps_and_not_into_the_next_trial():
    noise = explore(
        spaces.MultiBinary(6), Schedule(1.0, 1.0, 0), randomize_epsilon=False, flip_probability=0.5, flip_steps=3
    )
    draw = np.random.default_rng(1)
    flips = []
    for _ in range(9):
        pressed = draw.integers(2, size=(ROWS, 6))
        flips.append(noise(pressed, 0) != pressed)
    for first in (0, 3, 6):
        assert all((flips[first] == flips[first + i]).all() for i in range(3))
        assert first == 0 or (flips[first] != flips[first - 1]).any(1).mean() > 0.9
    pressed = np.zeros((ROWS, 6), int)
    held = noise(pressed, 0)
    noise.begin(np.arange(ROWS) < 500)
    again = noise(pressed, 0)
    assert (again[:500] != held[:500]).any(1).mean() > 0.9
    np.testing.assert_array_equal(again[500:], held[500:])


@pytest.mark.parametrize("space", [spaces.Discrete(50), spaces.MultiDiscrete([50, 40])])
@pytest.mark.parametrize("epsilon", [1.0, 0.3])
def test_choices_that_explore_last_as_long_as_asked_and_are_as_many(space, epsilon):
    duration, steps = 4.0, 600
    noise = explore(space, Schedule(epsilon, epsilon, 0), randomize_epsilon=False, duration=duration)
    policy = np.full((ROWS, *space.shape), 99)
    found = np.stack([noise(policy, 0) for _ in range(steps)]).reshape(steps, ROWS, -1)
    explored = (found != 99).all(-1)
    # Steps of one row depend on each other: as many are independent as there are times of exploring and of not.
    independent = ROWS * steps / (duration / (1 - epsilon) if epsilon < 1 else duration)
    share = explored[100:].mean()  # a trial begins without
    assert abs(share - epsilon) < 5 * np.sqrt(epsilon * (1 - epsilon) / independent) + 1e-12
    again = (found[1:] == found[:-1]).all(-1) & explored[:-1]
    by_chance = epsilon / (duration * (1 - epsilon) + epsilon) / np.prod(getattr(space, "nvec", 50))
    expected = 1 - 1 / duration + by_chance / duration
    count = explored[:-1].sum()
    assert abs(again.sum() / count - expected) < 5 * np.sqrt(expected * (1 - expected) / count)


def test_an_action_that_is_kept_ends_with_its_trial_where_it_is_illegal_and_where_nothing_asks():
    forever = 1e12
    noise = explore(spaces.Discrete(50), Schedule(1.0, 1.0, 0), randomize_epsilon=False, duration=forever)
    policy, half = np.full(ROWS, 99), np.arange(ROWS) < 500
    first = noise(policy, 0)
    np.testing.assert_array_equal(noise(policy, 0), first)
    noise.begin(half)
    second = noise(policy, 0)
    np.testing.assert_array_equal(second[~half], first[~half])
    assert (second[half] != first[half]).mean() > 0.9
    legal = np.ones((ROWS, 50), np.int8)
    legal[np.flatnonzero(half), second[half]] = 0
    third = noise(policy, 0, legal)
    np.testing.assert_array_equal(third[~half], second[~half])
    assert (third[half] != second[half]).all()
    assert (noise(policy, 0, where=half) == 99).tolist() == (~half).tolist()
    np.testing.assert_array_equal(noise(policy, 0)[half], third[half])


def test_noise_on_numbers_is_kept_as_long_as_asked():
    noise = explore(spaces.Box(-1, 1, (3,)), Schedule(0.1, 0.1, 0), randomize_epsilon=False, duration=5.0)
    found = np.stack([noise(np.zeros((ROWS, 3), np.float32), 0) for _ in range(200)])
    again = (found[1:] == found[:-1]).all(-1)
    assert abs(again.mean() - 0.8) < 5 * np.sqrt(0.8 * 0.2 / again.size)
    assert abs(found.std() / 0.1 - 1) < 5 / np.sqrt(2 * found.size / 9)  # (1 + .8) / (1 - .8) steps are as one


def test_a_duration_of_one_step_draws_the_same_numbers_as_ever():
    space, policy = spaces.Discrete(9), np.full(ROWS, 99)
    noise = explore(space, Schedule(0.5, 0.5, 0))
    stream = np.random.default_rng(0)
    multiplier = stream.random(ROWS)
    for _ in range(3):
        explored, drawn = stream.random(ROWS) < 0.5 * multiplier, stream.integers(9, size=ROWS)
        np.testing.assert_array_equal(noise(policy, 0), np.where(explored, drawn, 99))


def test_legal_choices_are_told_from_illegal_ones():
    mask = np.int8([[1, 0, 0, 1, 1], [1, 1, 1, 0, 0]])
    assert legal_choices(spaces.Discrete(5), np.array([3, 3]), mask).tolist() == [True, False]
    parts = spaces.MultiDiscrete([2, 3])
    assert legal_choices(parts, np.array([[0, 1], [1, 0]]), mask).tolist() == [True, True]
    assert legal_choices(parts, np.array([[1, 1], [0, 2]]), mask).tolist() == [False, False]


def test_a_button_that_is_not_legal_is_not_pressed():
    noise = explore(spaces.MultiBinary(4), Schedule(1.0, 1.0, 0), randomize_epsilon=False, flip_probability=0.5)
    legal = np.tile(np.int8([0, 1, 0, 1]), (ROWS, 1))
    found = noise(np.zeros((ROWS, 4), int), 0, legal)
    assert not found[:, [0, 2]].any()
    assert (np.abs(found[:, [1, 3]].mean(0) - 0.5) < 5 * np.sqrt(0.25 / ROWS)).all()


def test_only_legal_choices_are_taken():
    generator = np.random.default_rng(0)
    mask = np.tile(np.int8([0, 1, 0, 1]), (4000, 1))
    found = random_choices(spaces.Discrete(4), generator, 4000, mask)
    assert set(found) == {1, 3}
    assert abs((found == 1).mean() - 0.5) < 5 * np.sqrt(0.25 / 4000)
    parts = random_choices(spaces.MultiDiscrete([2, 3]), generator, 4000, np.tile(np.int8([1, 0, 0, 1, 1]), (4000, 1)))
    assert (set(parts[:, 0]), set(parts[:, 1])) == ({0}, {1, 2})
    noise = explore(spaces.Discrete(4), Schedule(1.0, 1.0, 0), randomize_epsilon=False)
    assert set(noise(np.zeros(ROWS, int), 0, mask[:ROWS])) == {1, 3}


@pytest.mark.parametrize("count", [3, 2**33])
def test_a_lone_environment_draws_the_same_numbers_as_many(count):
    lone, many = np.random.default_rng(0), np.random.default_rng(0)
    drawn = [random_choices(spaces.Discrete(count), lone, 1) for _ in range(9)]
    np.testing.assert_array_equal(np.concatenate(drawn), random_choices(spaces.Discrete(count), many, 9), strict=True)
    assert lone.bit_generator.state == many.bit_generator.state


def test_the_random_policy_takes_only_legal_choices():
    generator = torch.Generator().manual_seed(0)
    for space, mask, expected in (
        (spaces.Discrete(4), [0, 1, 0, 1], [{1, 3}]),
        (spaces.MultiDiscrete([2, 3]), [1, 0, 0, 1, 1], [{0}, {1, 2}]),
    ):
        observation = {"action_mask": torch.tensor([mask] * 1000, dtype=torch.int8)}
        found = UniformPolicy(space).act(None, observation, None, torch.zeros(1000), generator=generator)
        assert [set(part.tolist()) for part in found.reshape(1000, -1).T] == expected


def test_a_space_without_choices_is_refused():
    with pytest.raises(TypeError, match="expected a Discrete, MultiDiscrete or MultiBinary space, got Box"):
        random_choices(spaces.Box(0, 1, (2,)), np.random.default_rng(0), 3)
