"""What holds for every environment that is written for many rows at once."""

import warnings

import numpy as np
from gymnasium.utils.env_checker import check_env


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
