"""MazeRunner against rules written down again, searches and gymnasium's checks; hindsight against the rules."""

import dataclasses
from collections import deque

import numpy as np
import pytest

import batched_envs
from twohot import envs
from twohot.config import EnvironmentConfig
from twohot.data.spaces import replay_schema
from twohot.envs.suites import maze_runner
from twohot.envs.suites.maze_runner import HindsightGoals
from twohot.errors import TwohotError
from twohot.replay import Replay, Trajectories
from twohot.spaces import as_dict_space

MOVES = [(0, -1), (-1, 0), (0, 1), (1, 0), (0, 0)]


def distances_from(walls, start):
    """Steps to every cell that can be reached."""
    found, queue = {tuple(start): 0}, deque([tuple(start)])
    while queue:
        row, column = queue.popleft()
        for down, right in MOVES[:4]:
            cell = row + down, column + right
            if not walls[cell] and cell not in found:
                found[cell] = found[row, column] + 1
                queue.append(cell)
    return found


def free_cells(walls, place, move):
    count, cell = 0, np.add(place, move)
    while not walls[tuple(cell)]:
        count, cell = count + 1, cell + move
    return count


@pytest.mark.parametrize("size", [11, 15, 31])
def test_mazes_are_connected_and_have_walls(size):
    mazes = [maze_runner._draw_maze(size, np.random.default_rng(seed)) for seed in range(20)]
    for walls in mazes:
        assert walls[0].all() and walls[-1].all() and walls[:, 0].all() and walls[:, -1].all()  # noqa: PT018
        start = (size - 2, size // 2)
        assert set(distances_from(walls, start)) == set(map(tuple, np.argwhere(~walls)))
        assert walls[start[0], [start[1] - 1, start[1] + 1]].all()
    inside = np.mean([walls[1:-5, 1:-1].mean() for walls in mazes])
    assert 0.3 < inside < 0.6
    assert len({walls.tobytes() for walls in mazes}) > 15  # the smallest have few places for walls


@pytest.mark.parametrize("task", ["11x11-k3", "11x11-k2-rewired"])
def test_the_rules_against_a_plain_model(task):
    env = maze_runner.make(task)
    draw = np.random.default_rng(0)
    for seed in range(8):
        observation, _ = env.reset(seed=seed)
        walls, goals, moves, place = env.walls, env.goals.tolist(), env.moves, (9, 5)
        assert sorted(map(tuple, moves)) == sorted(MOVES)
        assert len(set(map(tuple, goals))) == len(goals)
        assert list(place) not in goals
        reached, reward, terminated, time = 0, 0.0, False, 0
        while True:
            shown = [goal if i >= reached else [-1, -1] for i, goal in enumerate(goals)]
            free = [free_cells(walls, place, move) for move in MOVES[:4]]
            expected = [*np.divide(place, 11), *np.divide(free, 11), time / 250, *np.divide(shown, 11).ravel()]
            np.testing.assert_allclose(observation, expected, rtol=1e-6)
            if terminated:
                break
            action = int(draw.integers(5))
            observation, reward, terminated, truncated, info = env.step(action)
            time += 1
            after = place[0] + moves[action][0], place[1] + moves[action][1]
            place = place if walls[after] else after
            hit = place == tuple(goals[reached])
            reached += hit
            assert reward == float(hit)
            assert info["success"] == (reached == len(goals))
            assert (terminated, truncated) == (reached == len(goals) or time == 250, False)


def test_goals_are_distinct_and_never_the_start():
    env = maze_runner.make("11x11-k4")
    for seed in range(100):
        env.reset(seed=seed)
        assert len(set(map(tuple, env.goals.tolist())) - {env.position}) == 4
        assert not env.walls[tuple(env.goals.T)].any()


def test_the_shortest_way_reaches_every_goal():
    env = maze_runner.make("15x15-k4")
    for seed in range(5):
        env.reset(seed=seed)
        total, steps, expected, place = 0.0, 0, 0, env.position
        for goal in env.goals.tolist():
            away = distances_from(env.walls, goal)
            expected += away[place]
            place = tuple(goal)
            while env.position != place:
                options = [
                    (away.get((env.position[0] + d, env.position[1] + r), np.inf), a) for a, (d, r) in enumerate(MOVES)
                ]
                _, reward, terminated, _, info = env.step(min(options)[1])
                total, steps = total + reward, steps + 1
        assert (total, steps, terminated, info["success"]) == (4.0, expected, True, True)


def test_rewired_mazes_have_orders_of_their_own():
    env = maze_runner.make("11x11-k1-rewired")
    orders = set()
    for seed in range(50):
        env.reset(seed=seed)
        orders.add(str(env.moves))
    assert len(orders) > 30


def test_gymnasium_accepts_it():
    for task in ("11x11-k3", "31x31-k4-rewired"):
        env = maze_runner.make(task, render=True)
        batched_envs.check(env)
        assert env.render().shape == (env.size * 16, env.size * 16, 3)
    assert maze_runner.make("11x11-k1").render() is None


def filled_replay(multiplier, trials=30):
    """A replay of random trials in small mazes, as a run stores them."""
    env = envs.TrialEnv("maze_runner", ("11x11-k3",), reward_multipliers=(multiplier,))
    schema = replay_schema(as_dict_space(env.observation_space), env.action_space)
    replay = Replay.create(schema, capacity_steps=20_000, seed=0)
    draw = np.random.default_rng(1)
    for trial in range(trials):
        observations, rows, done = [env.reset(seed=trial)[0]], [], False
        while not done:
            action = draw.integers(5)
            observation, reward, done, _, _ = env.step(action)
            observations.append(observation)
            rows.append((action, reward, done))
        action, reward, terminated = (np.array(column) for column in zip(*rows, strict=True))
        replay.add(
            {"observation": np.stack(observations)},
            action.astype(np.int32),
            reward.astype(np.float32),
            terminated,
            np.zeros(len(rows), bool),
        )
    return replay


def replayed(observation, multiplier):
    """What a maze gives for a path and the goals that are shown at its start: rewards, goals shown, where it ends."""
    places = np.rint(observation[:, :2] * 11).tolist()
    goals = np.rint(observation[0, 7:13] * 11).reshape(3, 2).tolist()
    rewards, shown, reached, end = [], [goals], 0, None
    for t, place in enumerate(places[1:]):
        hit = reached < 3 and place == goals[reached]
        reached += hit
        rewards.append(multiplier * hit)
        shown.append([[-1, -1]] * reached + goals[reached:])
        if hit and reached == 3:
            end = t
    return rewards, np.divide(shown, 11).reshape(-1, 6), end


@pytest.mark.parametrize("strategy", ["all", "some"])
def test_relabelled_trajectories_follow_the_rules(strategy):
    replay = filled_replay(multiplier=5.0)
    hindsight = HindsightGoals(11, 3, strategy=strategy, multiplier=5.0, seed=2)
    originals = {id: replay.get(id) for id in replay.ids()}
    totals, ends, before = [], 0, []
    for _ in range(8):
        batch = replay.sample(16, 250, relabel=hindsight)
        for b in range(16):
            original = originals[int(batch.trajectory[b])]
            if batch.start[b] != 0:
                continue
            length = int(batch.mask[b].sum())
            observation, reward = batch.observation["observation"][b, : length + 1], batch.reward[b, :length]
            rewards, shown, end = replayed(observation, 5.0)
            np.testing.assert_array_equal(reward, rewards)
            np.testing.assert_allclose(observation[:, 7:13], shown, rtol=1e-6)
            np.testing.assert_array_equal(observation[1:, -1], reward)
            np.testing.assert_array_equal(batch.previous_reward[b, 1 : length + 1], reward)
            expected = original["terminated"][:length].copy()
            if end is not None:
                expected[end] = True
                ends += end < length - 1
            np.testing.assert_array_equal(batch.terminated[b, :length], expected)
            unchanged = original["observation"]["observation"][: length + 1]
            np.testing.assert_array_equal(observation[:, :7], unchanged[:, :7])
            totals.append(reward.sum() / 5)
            before.append(original["reward"].sum() / 5)
    assert len(totals) > 20
    assert np.mean(before) < 1
    if strategy == "all":
        assert set(totals) == {3.0}
        assert ends > 5
    else:
        assert np.mean(before) < np.mean(totals) < 2.5
        assert set(totals) == {0.0, 1.0, 2.0, 3.0}
    np.testing.assert_array_equal(
        replay.get(replay.ids()[0])["reward"], originals[replay.ids()[0]]["reward"]
    )  # the store keeps what happened


def one_trajectory(observation, reward, task=0):
    """What a draw of one window gives to hindsight."""
    steps = len(reward)
    return Trajectories(
        observation={"observation": observation},
        action=np.zeros(steps, np.int32),
        reward=reward,
        terminated=np.zeros(steps, bool),
        truncated=np.zeros(steps, bool),
        step={},
        length=np.array([steps]),
        start=np.zeros(1, np.int64),
        task=np.array([task], np.int32),
        id=np.zeros(1, np.int64),
    )


def test_a_goal_that_was_reached_stays_one():
    # A path along a row: the first goal is reached at step 2, the other two are far away.
    places = np.array([(9, 5), (9, 6), (9, 7), (9, 8), (9, 9), (8, 9)])
    goals = np.array([(9, 7), (1, 1), (3, 1)])
    observation = np.zeros((6, 14), np.float32)
    observation[:, :2] = places / 11
    observation[:, 7:13] = goals.ravel() / 11
    observation[2:, 7:9] = -1 / 11
    kept = []
    for seed in range(60):
        reward, changed = np.array([0, 1, 0, 0, 0], np.float32), observation.copy()
        HindsightGoals(11, 3, strategy="some", seed=seed)(one_trajectory(changed, reward))
        new = np.rint(changed[0, 7:13] * 11).reshape(3, 2).tolist()
        assert [9, 7] in new
        assert len(set(map(tuple, new))) == 3  # no step counts twice
        assert reward[1] == 1.0
        kept.append(sum(goal in new for goal in ([1, 1], [3, 1])))
        assert kept[-1] < 2 or (changed == observation).all()
        assert kept[-1] != 1 or [3, 1] in new  # what is left of the missed goals are the last ones
    assert min(np.bincount(kept, minlength=3)) > 8


def test_the_hindsight_of_a_run():
    environment = EnvironmentConfig(
        suite="maze_runner", tasks=("11x11-k2", "15x15-k1"), reward_multipliers=(2.0, 3.0), context_features=False
    )
    assert envs.registered_suites()["maze_runner"].relabel is maze_runner.make_relabel
    draws = []
    for seed in ((0, 0), (0, 0), (0, 1)):
        hindsight, row = maze_runner.make_relabel(environment, seed), []
        for _ in range(20):
            reward, observation = np.zeros(4, np.float32), np.zeros((5, 11), np.float32)
            observation[:, :2] = np.array([(13, 7), (12, 7), (11, 7), (10, 7), (9, 7)]) / 15
            observation[:, 7:9] = 1 / 15
            hindsight(one_trajectory(observation, reward, task=1))
            assert set(reward) <= {0.0, 3.0}
            assert (observation[:, 9:] == 0).all()  # of the other task, and no entry for the last reward
            row.append(reward.tolist())
        draws.append(row)
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert any(any(reward) for reward in draws[0])
    with pytest.raises(TwohotError, match="trials of 1 attempt, got 2"):
        maze_runner.make_relabel(dataclasses.replace(environment, attempts=2), (0, 0))
