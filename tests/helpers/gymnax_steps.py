"""The suite `gymnax` beside Gymnax itself; a program as `xland_steps.py` is."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from batched_envs import check, check_vectors_equal
from compare import OF_TWO, assert_accurate
from twohot import envs
from twohot.envs.suites import gymnax as suite

COUNT = 5


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def tasks() -> None:
    """What every task shows, and that its state keeps its shape."""
    words = np.zeros(2, np.uint32)
    for task in suite.TASKS:
        batch = suite.make_batch(task, "train", COUNT)
        [(game, _)] = batch.games
        assert isinstance(batch.observation_space, spaces.Box)
        assert len(batch.observation_space.shape) == 1, task
        state, shown = jax.eval_shape(
            lambda words, game=game: game.begin(jax.random.wrap_key_data(words, impl="threefry2x32"), ()), words
        )
        space = batch.action_space
        action = jax.ShapeDtypeStruct(space.shape, np.float32 if space.shape else np.int32)
        after, shown_after, *_ = jax.eval_shape(
            lambda state, action, game=game: game.step(state, action, ()), state, action
        )
        assert after == state, task
        assert shown == shown_after == jax.ShapeDtypeStruct(batch.observation_space.shape, np.float32), task
    with pytest.raises(envs.UnknownEnvironmentError, match="did you mean Catch-bsuite"):
        suite.make_batch("Catch", "train", 1)
    assert suite.make_batch("Catch-bsuite", "train", 1).hidden_task is False


def beside(task: str, steps: int, exact: bool, ends: tuple[bool, bool]) -> None:
    """Each step from where the suite is, by Gymnax's own `step`; `ends`: whether some terminate, and are truncated."""
    env, params = gymnax.make(task)
    theirs = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))
    batch, draw, found = suite.make_batch(task, "train", COUNT), generator(1), np.zeros(2, int)
    space = batch.action_space
    words = np.stack([generator(index).integers(2**32, size=2, dtype=np.uint32) for index in range(COUNT)])
    drawn = jax.vmap(jax.random.split)(jax.random.wrap_key_data(words, impl="threefry2x32"))
    for index in range(COUNT):
        batch.reset(index, generator(index))
    same(batch.observe(), seen(env, params, jax.vmap(env.reset, in_axes=(0, None))(drawn[:, 0], params)[0]), exact)
    np.testing.assert_array_equal(batch.state()[0], jax.random.key_data(drawn[:, 1]))
    for step in range(steps):
        words, state = batch.state()
        drawn = jax.vmap(jax.random.split)(jax.random.wrap_key_data(words, impl="threefry2x32"))
        if isinstance(space, spaces.Discrete):
            actions = own = draw.integers(space.n, size=COUNT)
        else:
            actions = draw.uniform(-1, 1, (COUNT, *space.shape)).astype(np.float32)
            actions[step % COUNT] = np.sign(actions[step % COUNT])  # the very bounds
            bounds = env.action_space(params)
            own = bounds.low + (actions + 1) / 2 * (bounds.high - bounds.low)
        reward, terminated, truncated = batch.step(actions)
        *_, their_reward, their_terminated, their_truncated, info = theirs(drawn[:, 0], state, own, params)
        same(batch.observe(), seen(env, params, info["final_observation"]), exact)
        np.testing.assert_array_equal(batch.state()[0], jax.random.key_data(drawn[:, 1]))
        same(reward, np.asarray(their_reward), exact)
        np.testing.assert_array_equal(terminated, their_terminated)
        np.testing.assert_array_equal(truncated, their_truncated & ~their_terminated)
        found += terminated.sum(), truncated.sum()
        for index in np.flatnonzero(terminated | truncated).tolist():
            batch.reset(index, generator(COUNT * step + index))
    assert tuple(found > 0) == ends, (task, found)


def seen(env: Any, params: Any, observation: Any) -> np.ndarray:
    """An observation as an agent sees it."""
    space, observation = env.observation_space(params), np.asarray(observation)
    return np.eye(space.n)[observation] if isinstance(space, gymnax_spaces.Discrete) else observation.reshape(COUNT, -1)


def same(ours: np.ndarray, theirs: np.ndarray, exact: bool) -> None:
    if exact:
        np.testing.assert_array_equal(ours, theirs)
    else:  # two compilations of the same sums
        assert_accurate(torch.from_numpy(ours), torch.from_numpy(np.float64(theirs)), floor=OF_TWO)


def digest() -> str:
    """Of what CartPole shows, in which each environment plays the same whatever stands beside it."""
    few, many = (suite.make_batch("CartPole-v1", "train", count) for count in (2, COUNT))
    for batch in (few, many):
        for index in range(batch.num_envs):
            batch.reset(batch.num_envs - 1 - index, generator(index))
    read = hashlib.sha256()
    for step in range(30):
        ours, theirs = many.observe(), few.observe()
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours[-2:], theirs)
        read.update(ours.tobytes())
        many.step(np.full(COUNT, step % 2))
        few.step(np.full(2, step % 2))
    return read.hexdigest()


def stopped() -> None:
    """An environment that was cut off stands still until it begins again."""
    batch = suite.make_batch("CartPole-v1", "train", COUNT)
    for index in range(COUNT):
        batch.reset(index, generator(index))
    batch.observe()
    batch.stop(1)
    batch.reset(2, generator(9))
    batch.stop(2)
    before = batch.observe()
    batch.step(np.ones(COUNT))
    moved = (batch.observe() != before).any(1)
    assert moved.tolist() == [True, False, False, True, True]


def precision() -> None:
    """Where the process computes in 64 bits, this does not."""
    before = digest()
    jax.config.update("jax_enable_x64", True)
    jax.clear_caches()
    suite._compiled_once.cache_clear()
    assert digest() == before
    assert jax.numpy.zeros(1).dtype == np.float64


def trials() -> None:
    """All at once, and one by one in processes, are the same bit for bit."""
    task = ("Catch-bsuite",)
    together = envs.make_vector("gymnax", task, environments=3, attempts=2)
    assert isinstance(together, envs.BatchedTrials)
    alone = envs.make_vector("gymnax", task, environments=3, attempts=2, workers="processes")
    assert isinstance(alone, envs.TrialVector)
    check_vectors_equal(together, alone)
    alone.close()
    # Cut where the second attempt ends, at nine steps each: the last observation is the third's first.
    cut: dict[str, Any] = {"environments": 3, "attempts": 3, "step_limit": 18}
    together = envs.make_vector("gymnax", task, **cut)
    assert isinstance(together, envs.BatchedTrials)
    alone = envs.make_vector("gymnax", task, render=True, **cut)
    assert isinstance(alone, envs.TrialVector)
    check_vectors_equal(together, alone, steps=40)
    check(suite.make("FrozenLake-misc"), renders=False)
    mixed = envs.make_vector("gymnax", ("Catch-bsuite", "FrozenLake-misc"), environments=2)
    assert mixed.single_action_space == spaces.Discrete(4)


if __name__ == "__main__":
    assert envs.get_suite("gymnax").missing() == ()
    assert "jax" not in sys.modules
    suite.make("Catch-bsuite")
    import gymnax
    import jax
    from gymnax.environments import spaces as gymnax_spaces

    tasks()
    beside("Catch-bsuite", 30, True, (True, False))
    beside("FrozenLake-misc", 40, True, (True, False))
    beside("GaussianBandit-misc", 101, False, (False, True))
    beside("Pendulum-v1", 30, False, (False, False))
    beside("CartPole-v1", 40, False, (True, False))
    trials()
    stopped()
    precision()
