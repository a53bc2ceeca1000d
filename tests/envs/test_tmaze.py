"""T-Maze against rules written down again, the best policy, and gymnasium's checks."""

import numpy as np
import pytest

import batched_envs
from twohot.envs.registry import UnknownEnvironmentError
from twohot.envs.suites import tmaze

MOVES = [(1, 0), (0, 1), (-1, 0), (0, -1)]


@pytest.mark.parametrize("task", ["passive-4", "active-4", "active-1"])
def test_the_rules_against_a_plain_model(task):
    env, corridor, behind = tmaze.make(task), int(task[-1]), task.startswith("active")
    floor = {(x, 0) for x in range(corridor + behind + 1)} | {(corridor + behind, y) for y in (-1, 1)}
    draw = np.random.default_rng(0)
    successes = 0
    for seed in range(300):
        observation, _ = env.reset(seed=seed)
        goal, cell, seen = env.batch.goal[0], (int(behind), 0), not behind
        np.testing.assert_array_equal(observation, [0, 0 if behind else goal])
        for time in range(1, int(env.batch.episode_steps[0]) + 1):
            action = int(draw.choice(4, p=[0.7, 0.1, 0.1, 0.1]))
            observation, reward, terminated, truncated, info = env.step(action)
            after = cell[0] + MOVES[action][0], cell[1] + MOVES[action][1]
            cell = after if after in floor else cell
            last = time == corridor + 1 + 2 * behind
            paid = cell[1] == goal if last else -(action != 0 and time > behind) / corridor
            assert reward == pytest.approx(float(paid))
            shows = goal if cell == (0, 0) and not seen else 0
            seen |= cell == (0, 0)
            np.testing.assert_array_equal(observation, [1, cell[1]] if cell[0] == corridor + behind else [0, shows])
            assert (terminated, truncated, info["success"]) == (last, False, last and cell[1] == goal)
        successes += info["success"]
    assert successes > 3


@pytest.mark.parametrize("task", ["passive-1", "passive-10", "active-10", "passive-10000"])
def test_the_best_policy_earns_one_and_half_of_the_guesses_do(task):
    rows = 64
    mazes = tmaze.make_batch(task, "train", rows)
    for row in range(rows):
        mazes.reset(row, np.random.default_rng(row))
    goal = mazes.goal.copy()
    assert abs((goal == 1).sum() - 32) < 20
    assert set(goal) == {-1, 1}
    total, cue, steps = np.zeros(rows), mazes.observe()[:, 1], int(mazes.episode_steps[0])
    way = [2, *[0] * (steps - 2)] if task.startswith("active") else [0] * (steps - 1)
    for action in way:
        reward, terminated, _ = mazes.step(np.full(rows, action))
        assert not terminated.any()
        total += reward
        cue = np.where(cue == 0, mazes.observe()[:, 1], cue)
    np.testing.assert_array_equal(cue, goal)
    reward, terminated, _ = mazes.step(np.where(cue == 1, 1, 3))
    assert terminated.all()
    np.testing.assert_array_equal(total + reward, 1)


@pytest.mark.parametrize("kind", ["passive", "active"])
def test_a_range_is_mazes_of_its_corridors_drawn_anew(kind):
    """Each maze of a range plays as one of its corridor alone does."""
    rows, behind = 200, int(kind == "active")
    mazes = tmaze.make_batch(f"{kind}-4-12", "train", rows)
    for row in range(rows):
        mazes.reset(row, np.random.default_rng(row))
    corridors = np.array([4, 8, 12])
    counts = (mazes.corridor == corridors[:, None]).sum(1)
    assert counts.sum() == rows
    # Chi-square with 2 degrees of freedom exceeds 2 x 18.4 in one of 10^8 draws.
    assert ((counts - rows / 3) ** 2 / (rows / 3)).sum() < 37
    alone = {}
    for corridor in corridors:
        alone[corridor] = tmaze.make_batch(f"{kind}-{corridor}", "train", rows)
        for row in range(rows):
            alone[corridor].reset(row, np.random.default_rng(row))
    draw, live = np.random.default_rng(1), np.ones(rows, bool)
    for time in range(1, 14 + 2 * behind):
        actions = draw.choice(4, size=rows, p=[0.7, 0.1, 0.1, 0.1])
        ours, theirs = mazes.step(actions), {corridor: batch.step(actions) for corridor, batch in alone.items()}
        for row in np.flatnonzero(live):
            batch = alone[mazes.corridor[row]]
            for mine, single in zip(ours, theirs[mazes.corridor[row]], strict=True):
                assert mine[row] == single[row]
            np.testing.assert_array_equal(mazes.observe()[row], batch.observe()[row])
        live &= ~ours[1]
        np.testing.assert_array_equal(live, mazes.corridor + 1 + 2 * behind > time)
    assert not live.any()


def test_names():
    assert tmaze.make("active-7").batch.episode_steps.tolist() == [10]
    for task in tmaze.TASKS:
        tmaze.make(task)
    for task in ("passive", "passive-0", "active-2.5", "lazy-10", "passive-10x", "passive-32-32", "passive-32-63"):
        with pytest.raises(UnknownEnvironmentError, match="expected a T-Maze task passive-H or active-H"):
            tmaze.make(task)


@pytest.mark.parametrize("task", ["passive-6", "active-6", "passive-3-9"])
def test_rows_equal_single_environments(task):
    batched_envs.check_batch_equals_singles(tmaze, task)


def test_gymnasium_accepts_it():
    env = tmaze.make("passive-10", render=True)
    batched_envs.check(env)
    assert env.render().shape == (5 * 16, 13 * 16, 3)
    env = tmaze.make("passive-1000", render=True)
    env.reset(seed=0)
    assert env.render().shape == (5 * 16, 42 * 16, 3)
