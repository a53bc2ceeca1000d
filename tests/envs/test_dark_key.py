"""Dark-Key-To-Door against rules written down again, known optimal returns, and gymnasium's checks."""

import numpy as np
import pytest

import batched_envs
from twohot.envs.suites import dark_key

MOVES = [(0, -1), (-1, 0), (0, 1), (1, 0), (0, 0)]


def distance(a, b):
    return int(np.abs(np.asarray(a) - b).sum())


def towards(position, target):
    """The action that brings a position nearer to its target; staying when it is there."""
    for action, move in enumerate(MOVES[:4]):
        if distance(np.add(position, move), target) < distance(position, target):
            return action
    return 4


def play(env, policy, seed):
    """One trial: rewards and the last info."""
    observation, _ = env.reset(seed=seed)
    rewards, done = [], False
    while not done:
        observation, reward, done, truncated, info = env.step(policy(observation))
        assert not truncated
        rewards.append(reward)
    return rewards, info


@pytest.mark.parametrize("task", ["8x8", "5x5-shuffled", "9x9-onehot", "4x4-short", "5x5-reset-step"])
def test_the_rules_against_a_plain_model(task):
    env, size = dark_key.make(task), int(task[0])
    limit, steps = (25, 100) if "short" in task else (50, 500)
    draw = np.random.default_rng(0)
    for seed in range(4):
        env.reset(seed=seed)
        start, key, door = (tuple(getattr(env.batch, name)[0]) for name in ("start", "key", "door"))
        moves = env.batch.moves[0].tolist()
        assert sorted(map(tuple, moves)) == sorted(MOVES)
        position, has_key, attempt_time, resets, doors = start, False, 0, False, []
        for time in range(1, steps + 1):
            action = int(draw.integers(5))
            observation, reward, terminated, truncated, info = env.step(action)
            if resets:
                position, has_key, attempt_time, opened, found = start, False, 0, False, False
            else:
                position = tuple(min(max(p + m, 0), size - 1) for p, m in zip(position, moves[action], strict=True))
                attempt_time += 1
                opened, found = has_key and position == door, not has_key and position == key
                has_key |= found
            assert reward == float(opened or found)
            doors.append(opened)
            over = opened or attempt_time == limit
            resets = over and "reset-step" in task
            if over and not resets:
                position, has_key, attempt_time = start, False, 0
            where = (
                np.eye(size * size)[position[0] * size + position[1]] if "onehot" in task else np.divide(position, size)
            )
            np.testing.assert_allclose(observation, [*where, has_key, attempt_time / limit], rtol=1e-6)
            assert (terminated, truncated) == (time == steps, False)
        successes = np.reshape(doors, (dark_key.PARTS, -1))
        np.testing.assert_array_equal(info["attempt_success"], successes.any(1))
        if "reset-step" in task:
            np.testing.assert_array_equal(info["attempt_returns"], successes.sum(1))


def test_the_shortest_way_earns_what_geometry_says():
    env = dark_key.make("8x8-light")
    for seed in range(10):
        env.reset(seed=seed)
        start, key, door = env.batch.start[0], env.batch.key[0], env.batch.door[0]
        to_key, to_door = max(1, distance(start, key)), max(1, distance(key, door))

        def shortest(observation):
            target = observation[4:6] if observation[2] else observation[6:8]
            return towards(np.round(observation[:2] * 8), np.round(target * 8))

        rewards, info = play(env, shortest, seed)
        whole, rest = divmod(500, to_key + to_door)
        # A way that leads over the key to the door is no shortcut: it is then the shortest way itself.
        assert sum(rewards) == 2 * whole + (rest >= to_key)
        np.testing.assert_array_equal(info["attempt_returns"], np.reshape(rewards, (dark_key.PARTS, 50)).sum(1))
        assert info["attempt_lengths"].tolist() == [50] * dark_key.PARTS
        assert info["attempt_success"].all()


def test_the_call_that_resets_takes_no_key_and_none_is_left_for_the_next_trial():
    rooms = dark_key.make_batch("5x5-reset-step", "train", 1)
    rooms.reset(0, np.random.default_rng(0))
    rooms.start[0] = rooms.key[0] = rooms.position[0] = 2, 2
    rooms.door[0] = 2, 3
    stay, right = np.array([4]), np.array([2])
    found = []
    for action in (stay, right, stay, stay, right):
        (reward,), *_ = rooms.step(action)
        found.append((reward, bool(rooms.success[0]), bool(rooms.has_key[0]), *rooms.position[0].tolist()))
    key, door, begun = (1, False, True, 2, 2), (1, True, True, 2, 3), (0, False, False, 2, 2)
    assert found == [key, door, begun, key, door]
    rooms.reset(0, np.random.default_rng(0), new_task=False)
    rooms.step(right)
    assert rooms.position[0].tolist() == [2, 3]


def knowing_way(batch):
    """What opens as many doors as can be opened, by one who sees everything: an action for each room."""
    targets = np.where(batch.has_key[:, None], batch.door, batch.key)
    return np.array([towards(*places) for places in zip(batch.position, targets, strict=True)])


@pytest.mark.parametrize(("task", "steps"), [("8x8-reset-step", 500), ("8x8-reset-step-4000", 4000)])
def test_where_a_reset_costs_a_step_geometry_says_how_many_doors_open(task, steps):
    rooms = dark_key.make_batch(task, "train", 40)
    for index in range(rooms.num_envs):
        rooms.reset(index, np.random.default_rng(index))
    for time in range(1, steps + 1):
        _, terminated, truncated = rooms.step(knowing_way(rooms))
        np.testing.assert_array_equal(terminated, time == steps)
        assert not truncated.any()
    way = [
        np.maximum(1, np.abs(to - start).sum(1)) for start, to in ((rooms.start, rooms.key), (rooms.key, rooms.door))
    ]
    doors = np.stack([rooms.info(index)["attempt_returns"] for index in range(rooms.num_envs)])
    np.testing.assert_array_equal(doors.sum(1), (steps + 1) // (sum(way) + 1))  # the last door needs no reset after it
    assert doors.shape[1] * rooms.info(0)["attempt_lengths"][0] == steps


def test_the_best_of_500_calls_is_49_doors():
    """The mean over all 64 x 64 x 64 rooms."""
    start, key, door = np.stack(np.meshgrid(*[np.arange(64)] * 3, indexing="ij")).reshape(3, -1)
    ways = np.maximum(1, np.abs(np.indices((8, 8)).reshape(2, 64, 1) - np.indices((8, 8)).reshape(2, 1, 64)).sum(0))
    assert (501 // (ways[start, key] + ways[key, door] + 1)).mean() == pytest.approx(49.16, abs=0.001)


def test_an_attempt_that_finds_nothing_starts_over():
    env = dark_key.make("8x8")
    observation, _ = env.reset(seed=4)
    start = observation[:2].copy()
    assert (env.batch.start[0] > 0).all()
    assert (env.batch.key[0] != 0).any()
    assert distance(env.batch.key[0], env.batch.start[0]) > 2
    observations = [env.step([0, 1][step % 2])[0] for step in range(50)]
    assert observations[48][3] == pytest.approx(49 / 50)
    np.testing.assert_array_equal(observations[49], [*start, 0, 0])
    assert not np.array_equal(observations[48][:2], start)


def test_rooms_are_drawn_uniformly_and_anew():
    rooms = dark_key.make_batch("5x5", "train", 2000)
    random = np.random.default_rng(1)
    for row in range(rooms.num_envs):
        rooms.reset(row, random)
    for places in (rooms.start, rooms.key, rooms.door):
        counts = np.bincount(places[:, 0] * 5 + places[:, 1], minlength=25)
        # Chi-square with 24 degrees of freedom: mean 24, standard deviation sqrt(48).
        assert ((counts - 80) ** 2 / 80).sum() < 24 + 6 * np.sqrt(48)
    assert abs(np.corrcoef(rooms.key[:, 0], rooms.door[:, 0])[0, 1]) < 0.12


def test_every_room_has_an_order_of_actions_of_its_own():
    rooms = dark_key.make_batch("5x5-shuffled", "train", 300)
    for row in range(rooms.num_envs):
        rooms.reset(row, np.random.default_rng(row))
    assert len({str(moves) for moves in rooms.moves.tolist()}) > 90  # of 120 orders, 110 are expected


def test_every_task_has_its_size():
    sizes = {task: dark_key.make(task).observation_space.shape[0] for task in dark_key.TASKS}
    assert {sizes[f"8x8{kind}"] for kind in ("", "-shuffled", "-reset-step", "-reset-step-4000")} == {4}
    assert (sizes["8x8-light"], sizes["8x8-onehot"], sizes["9x9-onehot"]) == (8, 66, 83)


@pytest.mark.parametrize("task", ["8x8", "5x5-onehot", "9x9-light", "5x5-shuffled", "5x5-short", "8x8-reset-step"])
def test_rows_equal_single_environments(task):
    batched_envs.check_batch_equals_singles(dark_key, task, num_envs=3, steps=1100)


def test_gymnasium_accepts_it():
    env = dark_key.make("8x8", render=True)
    batched_envs.check(env)
    assert env.render().shape == (256, 256, 3)
