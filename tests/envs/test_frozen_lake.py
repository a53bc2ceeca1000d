"""Meta-Frozen-Lake against rules written down again, shortest paths, and gymnasium's checks."""

from collections import deque

import numpy as np
import pytest

import batched_envs
from twohot.envs.suites import frozen_lake

MOVES = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]


def shortest_path(lake):
    """Actions from corner to corner over a lake, or None."""
    last = len(lake) - 1
    queue, seen = deque([((0, 0), [])]), {(0, 0)}
    while queue:
        (x, y), actions = queue.popleft()
        if (x, y) == (last, last):
            return actions
        for action, (dx, dy) in enumerate(MOVES):
            cell = (x + dx, y + dy)
            inside = 0 <= cell[0] <= last and 0 <= cell[1] <= last
            if inside and cell not in seen and lake[cell] != frozen_lake.HOLE:
                seen.add(cell)
                queue.append((cell, [*actions, action]))
    return None


def test_every_lake_has_a_path_that_earns_one():
    env = frozen_lake.make("5x5")
    holes = []
    for seed in range(100):
        env.reset(seed=seed)
        lake = env.batch.lake[0]
        assert (lake == frozen_lake.GOAL).sum() == 1
        holes.append((lake == frozen_lake.HOLE).mean())
        path = shortest_path(lake)
        assert len(path) >= 8
        steps = [env.step(action) for action in path]
        assert [(step[1], step[2], step[4]["success"]) for step in steps[:-1]] == [(0.0, False, False)] * (
            len(path) - 1
        )
        assert steps[-1][1:4] == (1.0, True, False)
        assert steps[-1][4]["success"] is True
    assert 0.1 < np.mean(holes) < 0.25  # a fifth of the free cells, less by what paths need


@pytest.mark.parametrize("recover", [False, True])
def test_the_rules_against_a_plain_model(recover):
    env = frozen_lake.make("5x5-recover" if recover else "5x5")
    draw = np.random.default_rng(0)
    for attempt in range(60):
        observation, _ = env.reset(seed=1 if attempt == 0 else None, options={"attempt": attempt % 4})
        lake, x, y, time = env.batch.lake[0], 0, 0, 0
        np.testing.assert_allclose(observation, [0, 0, 1])
        done = False
        while not done:
            action = int(draw.integers(5))
            observation, reward, done, truncated, info = env.step(action)
            time += 1
            before = x, y
            x, y = min(max(x + MOVES[action][0], 0), 4), min(max(y + MOVES[action][1], 0), 4)
            goal, hole = lake[x, y] == frozen_lake.GOAL, lake[x, y] == frozen_lake.HOLE
            if recover and hole:
                x, y = before
            assert reward == pytest.approx(1.0 if goal else -0.1 if recover and hole else 0.0)
            assert done == (goal or (hole and not recover) or time == 25)
            assert info["success"] == goal
            assert not truncated
            np.testing.assert_allclose(observation, [x / 5, y / 5, 0], rtol=1e-6)


def test_attempts_share_a_lake_and_trials_do_not():
    env = frozen_lake.make("6x6")
    assert env.hidden_task
    env.reset(seed=3)
    lakes = [env.batch.lake[0].copy()]
    for attempt in (1, 2, 0):
        env.reset(options={"attempt": attempt})
        lakes.append(env.batch.lake[0].copy())
    assert (lakes[0] == lakes[1]).all()
    assert (lakes[0] == lakes[2]).all()
    assert (lakes[0] != lakes[3]).any()


def test_a_seed_with_a_later_attempt_keeps_the_lake():
    env = frozen_lake.make("5x5-hard")
    env.reset(seed=3)
    lake, moves = env.batch.lake.copy(), env.batch.moves.copy()
    env.reset(seed=4, options={"attempt": 1})
    assert (env.batch.lake == lake).all()
    assert (env.batch.moves == moves).all()


def test_hard_lakes_exchange_controls_misread_and_crack():
    rows = 400
    lakes = frozen_lake.make_batch("5x5-hard", "train", rows)
    random = np.random.default_rng(0)
    for row in range(rows):
        lakes.reset(row, random)
    exchanged = (lakes.moves[:, 1] == (0, 1)).all(1)
    # Five standard deviations of a binomial count each.
    assert abs(exchanged.sum() - rows / 2) < 5 * np.sqrt(rows / 4)
    assert (lakes.moves[exchanged][:, 3] == (1, 0)).all()
    # In the corner an error of 0 or -1 in a coordinate does not show.
    off = (lakes.observe()[:, :2] != 0).any(1)
    chance = 0.25 * (1 - (2 / 3) ** 2)
    assert abs(off.sum() - rows * chance) < 5 * np.sqrt(rows * chance)
    lakes.step(np.ones(rows, int))
    moved = (lakes.position != 0).any(1)
    cracked = lakes.ice[:, 0, 0] == frozen_lake.HOLE
    assert moved.all()
    assert abs(cracked.sum() - rows * 0.33) < 5 * np.sqrt(rows * 0.33 * 0.67)
    row = int(np.flatnonzero(cracked)[0])
    lakes.reset(row, random, new_task=False)
    assert lakes.ice[row, 0, 0] == frozen_lake.ICE  # a crack lasts for an attempt


def test_time_limits():
    limits = {task: frozen_lake.make_batch(task, "train", 1).attempt_steps for task in frozen_lake.TASKS}
    assert (limits["5x5"], limits["5x5-hard"], limits["5x5-recover"], limits["5x5-long"]) == (25, 50, 25, 100)
    for task, limit in limits.items():
        env = frozen_lake.make(task)
        env.reset(seed=0)
        ends = [env.step(0)[2:4] for _ in range(limit)]
        assert ends == [(False, False)] * (limit - 1) + [(True, False)]


@pytest.mark.parametrize("task", ["4x4", "5x5-hard", "7x7-recover"])
def test_rows_equal_single_environments(task):
    batched_envs.check_batch_equals_singles(frozen_lake, task)


@pytest.mark.parametrize("task", ["5x5", "5x5-hard"])
def test_gymnasium_accepts_it(task):
    env = frozen_lake.make(task, render=True)
    batched_envs.check(env)
    assert env.render().shape == (160, 160, 3)
    assert frozen_lake.make(task).render() is None
