"""What holds for every environment that is written for many rows at once."""

import warnings

import numpy as np
from gymnasium.utils.env_checker import check_env

from twohot.envs import reset_seeds, reset_where


def check(env, *, renders=True) -> None:
    """Gymnasium's own checks. Its advice about spaces is not followed; its errors are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check_env(env, skip_render_check=not renders)


def check_rows_equal_single(module, task, rows=5, steps=300) -> None:
    """Each row of a batch plays as a single environment from the same seed does, whatever stands beside it."""
    batch = module.make_batch(task, "train", rows)
    singles = [module.make(task) for _ in range(rows)]
    randoms = []
    for row, env in enumerate(singles):
        observation, _ = env.reset(seed=row)
        # gymnasium's own seeding, from which both sides must draw the same
        randoms.append(np.random.Generator(np.random.PCG64(np.random.SeedSequence(row))))
        batch.reset(row, randoms[row])
        np.testing.assert_array_equal(batch.observe()[row], observation)
    ends, draw = np.zeros(rows, int), np.random.default_rng(7)
    for _ in range(steps):
        actions = draw.integers(batch.action_space.n, size=rows)
        reward, terminated, truncated = batch.step(actions)
        observations = batch.observe()
        assert observations.dtype == reward.dtype == np.float32
        for row, env in enumerate(singles):
            observation, *rest, info = env.step(int(actions[row]))
            np.testing.assert_array_equal(observations[row], observation)
            assert rest == [reward[row], terminated[row], truncated[row]]
            assert info["success"] == batch.success[row]
            if terminated[row] or truncated[row]:
                ends[row] += 1
                attempt = int(ends[row] % 3)
                observation, _ = env.reset(options={"attempt": attempt})
                batch.reset(row, randoms[row], new_task=attempt == 0)
                np.testing.assert_array_equal(batch.observe()[row], observation)
    assert ends.all()


def check_vectors_equal(together, alone, steps=270) -> set[int]:
    """Two vectors give the same from the same seeds and actions, bit for bit; returns the tasks that began a trial.

    Rows that have ended stand still for a while. There are `steps` steps from each of three resets, one of which goes
    on with the streams that there are.
    """
    rows, draw, began = together.num_envs, np.random.default_rng(0), set()
    assert together.observation_space == alone.observation_space
    assert together.action_space == alone.action_space
    trials = 0
    for seed in (reset_seeds(0, 0, rows), None, reset_seeds(0, 1, rows)):
        np.testing.assert_equal(together.reset(seed=seed), alone.reset(seed=seed))
        ended = np.zeros(rows, bool)
        for step in range(steps):
            action = draw.integers(together.single_action_space.n, size=rows)
            ours, theirs = together.step(action), alone.step(action)
            np.testing.assert_equal(ours, theirs)
            ended |= ours[2] | ours[3]
            if not ended.any() or step % 5:
                continue
            ours, theirs = reset_where(together, ended), reset_where(alone, ended)
            np.testing.assert_equal(ours, theirs)
            began |= set(ours[1]["task"][ended].tolist())
            trials += ended.sum()
            ended[:] = False
    assert trials > 3
    return began
