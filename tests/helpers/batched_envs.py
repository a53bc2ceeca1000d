"""What holds for every natively vectorised environment."""

import warnings

import numpy as np
from gymnasium.utils.env_checker import check_env

from twohot.envs import reset_seeds, reset_where


def check(env, *, renders=True) -> None:
    """Gymnasium's own checks. Its advice about spaces is not followed; its errors are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check_env(env, skip_render_check=not renders)


def check_batch_equals_singles(module, task, num_envs=5, steps=300) -> None:
    """Each environment of a batch plays as a single environment from the same seed does, whatever stands beside it."""
    batch = module.make_batch(task, "train", num_envs)
    singles = [module.make(task) for _ in range(num_envs)]
    randoms = []
    for index, env in enumerate(singles):
        observation, _ = env.reset(seed=index)
        # gymnasium's own seeding, from which both sides must draw the same
        randoms.append(np.random.Generator(np.random.PCG64(np.random.SeedSequence(index))))
        batch.reset(index, randoms[index])
        np.testing.assert_array_equal(batch.observe()[index], observation)
    ends, draw = np.zeros(num_envs, int), np.random.default_rng(7)
    for _ in range(steps):
        actions = draw.integers(batch.action_space.n, size=num_envs)
        reward, terminated, truncated = batch.step(actions)
        observations = batch.observe()
        assert observations.dtype == reward.dtype == np.float32
        for index, env in enumerate(singles):
            observation, *rest, info = env.step(int(actions[index]))
            np.testing.assert_array_equal(observations[index], observation)
            assert rest == [reward[index], terminated[index], truncated[index]]
            assert info["success"] == batch.success[index]
            if terminated[index] or truncated[index]:
                ends[index] += 1
                attempt = int(ends[index] % 3)
                observation, _ = env.reset(options={"attempt": attempt})
                batch.reset(index, randoms[index], new_task=attempt == 0)
                np.testing.assert_array_equal(batch.observe()[index], observation)
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
