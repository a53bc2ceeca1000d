"""Vector environments as they are: whatever their autoreset mode, replay holds episodes and nothing between them."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from twohot import envs
from twohot.data.rollout import Rollout, UniformPolicy, seeded_generator
from twohot.data.spaces import replay_schema
from twohot.envs import registry
from twohot.envs.suites import gym_vector
from twohot.replay import Replay

MODES = list(AutoresetMode)


class Counting(VectorEnv):
    """Shows [number of the episode, time]; row r ends after r + 3 steps, odd rows by truncation; rewards: 10 time."""

    def __init__(self, num_envs, mode, render_mode=None):
        self.num_envs, self.metadata, self.render_mode = num_envs, {"autoreset_mode": mode}, render_mode
        self.single_observation_space = spaces.Box(-9, 9e9, (2,), np.float64)
        self.single_action_space = spaces.Box(0.0, 4.0, (1,))
        self.lengths = np.arange(num_envs) + 3
        self.episode, self.time = np.zeros((2, num_envs), int)
        self.over = np.zeros(num_envs, bool)
        self.closed, self.episodes, self.seeds, self.actions = 0, 0, [], []

    def begin(self, mask):
        for row in np.flatnonzero(mask):
            self.episodes += 1
            self.episode[row], self.time[row], self.over[row] = self.episodes, 0, False

    def observe(self):
        return np.stack((self.episode, self.time), 1).astype(np.float64)

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.begin((options or {}).get("reset_mask", np.ones(self.num_envs, bool)))
        return self.observe(), {}

    def step(self, actions):
        self.actions.append(actions)
        mode, info = self.metadata["autoreset_mode"], {}
        begins = self.over & (mode is AutoresetMode.NEXT_STEP)
        self.time += 1
        self.begin(begins)
        reward = np.where(begins, 0.0, 10 * self.time)
        done = (self.time == self.lengths) & ~begins
        self.over = done.copy()
        info["success"] = done & (self.time == 3)
        if mode is AutoresetMode.SAME_STEP and done.any():
            info["final_obs"] = np.array(
                [row if ends else None for row, ends in zip(self.observe(), done, strict=True)], object
            )
            self.begin(done)
        odd = np.arange(self.num_envs) % 2 == 1
        return self.observe(), reward, done & ~odd, done & odd, info

    def render(self):
        return tuple(np.full((4, 4, 3), row, np.uint8) for row in range(self.num_envs))

    def close_extras(self, **kwargs):
        self.closed += 1


@pytest.fixture(autouse=True)
def registered():
    for mode in MODES:
        gym.register(f"Counting{mode.name}-v0", vector_entry_point=Counting, kwargs={"mode": mode})
    yield
    for mode in MODES:
        del gym.registry[f"Counting{mode.name}-v0"]


def collect(vector, steps, seeds=(5, 6, 7)):
    """The trajectories of some steps, in the order in which they ended, and the trials."""
    schema = replay_schema(spaces.Dict(observation=vector.single_observation_space), vector.single_action_space)
    replay = Replay.create(schema, capacity_steps=10_000)
    rollout = Rollout(
        vector, UniformPolicy(vector.single_action_space), generator=seeded_generator(0, 0), writer=replay.writer(3)
    )
    rollout.restart(list(seeds))
    trials = rollout.collect(steps)
    rollout.writer.cut()
    return [replay.get(index) for index in range(replay.stats().trajectories)], trials


@pytest.mark.parametrize("mode", MODES)
def test_replay_holds_whole_episodes_only(mode):
    vector = envs.make_vector("gym_vector", (f"Counting{mode.name}-v0",), environments=3, reward_multipliers=(2.0,))
    assert isinstance(vector.batch, gym_vector.VectorBatch)
    assert vector.single_action_space == spaces.Box(-1, 1, (1,))
    stored, trials = collect(vector, 61)
    counting = vector.batch.env.unwrapped
    assert counting.seeds[0] == 5
    assert len(stored) > 30
    assert len({item["observation"]["observation"][0, 0] for item in stored}) == len(stored)
    taken = np.stack(counting.actions)
    assert taken.min() >= 0
    assert 3 < taken.max() <= 4
    for item in stored:
        seen, reward = item["observation"]["observation"], item["reward"]
        length = len(reward)
        assert (seen[:, 0] == seen[0, 0]).all()
        np.testing.assert_array_equal(seen[:, 1], np.arange(length + 1))
        np.testing.assert_allclose(seen[:, 2], np.arange(length + 1) / 1000, rtol=1e-6)
        np.testing.assert_array_equal(reward, 20 * np.arange(1, length + 1))
        np.testing.assert_array_equal(seen[1:, -1], reward)
        assert seen[0, -1] == 0
        assert not (item["terminated"] | item["truncated"])[:-1].any()
    for trial in trials:
        length = trial.env_index + 3
        assert trial.attempt_lengths.tolist() == [length]
        assert trial.attempt_returns.tolist() == [10 * np.arange(1, length + 1).sum()]
        assert trial.attempt_success.tolist() == [length == 3]
    whole = [item for item in stored if len(item["reward"]) >= 3]
    assert {len(item["reward"]): bool(item["truncated"][-1]) for item in whole[:6]} == {3: False, 4: True, 5: False}
    vector.close()
    vector.close()
    assert counting.closed == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_row_that_was_cut_off_begins_with_its_next_episode(mode):
    vector = envs.make_vector("gym_vector", (f"Counting{mode.name}-v0",), environments=3, step_limit=2)
    vector.reset(seed=0)
    actions, lengths = np.zeros((3, 1), np.float32), []
    for _ in range(20):
        shown, _, terminated, truncated, info = vector.step(actions)
        assert not terminated.any()
        if "interrupted" in info:
            assert (shown[info["interrupted"], 1:3] == 0).all()
        if truncated.any():
            lengths += info["attempt_lengths"][truncated].ravel().tolist()
            assert (shown[truncated, 1] == 2).all()
            envs.reset_where(vector, truncated)
    assert len(lengths) > 8
    assert set(lengths) == {2}


def test_attempts_need_rows_that_are_reset_one_by_one():
    for mode in MODES:
        make = lambda mode=mode: envs.make_vector(  # noqa: E731
            "gym_vector", (f"Counting{mode.name}-v0",), environments=3, attempts=2
        )
        if mode is not AutoresetMode.DISABLED:
            with pytest.raises(ValueError, match=r"expected 1 attempt .* autoreset DISABLED"):
                make()
    vector = envs.make_vector("gym_vector", ("CountingDISABLED-v0",), environments=3, attempts=2)
    _, trials = collect(vector, 40)
    assert {tuple(trial.attempt_lengths) for trial in trials} == {(3, 3), (4, 4), (5, 5)}


@pytest.mark.parametrize("mode", MODES)
def test_a_row_alone_is_an_ordinary_environment(mode):
    env = envs.make_task("gym_vector", f"Counting{mode.name}-v0", render=True)
    for trial in range(3):
        observation, _ = env.reset(seed=trial)
        assert observation.tolist() == [trial + 1 + (mode is AutoresetMode.SAME_STEP) * trial, 0]
        ends = [env.step(np.ones(1))[2:4] for _ in range(3)]
        assert ends == [(False, False), (False, False), (True, False)]
    assert env.render().shape == (4, 4, 3)
    env.close()


def test_cartpole_s_own_vector_environment():
    vector = envs.make_vector("gym_vector", ("CartPole-v1",), environments=3)
    stored, trials = collect(vector, 200)
    again, _ = collect(vector, 200)
    np.testing.assert_equal(stored, again)
    assert len(trials) > 10
    for item in stored:
        seen = item["observation"]["observation"]
        assert (np.abs(seen[0, :4]) <= 0.05).all()
        assert (item["reward"] == 1).all()
        # The position follows from the velocity before: no step leads out of an episode.
        np.testing.assert_allclose(seen[1:, 0], seen[:-1, 0] + 0.02 * seen[:-1, 1], atol=1e-5)
        assert item["terminated"][-1] == (abs(seen[-1, 0]) > 2.4 or abs(seen[-1, 2]) > 0.2094)


def test_another_number_of_rows_is_refused(monkeypatch):
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    gym.register("Few-v0", vector_entry_point=lambda num_envs: Counting(1, AutoresetMode.NEXT_STEP))
    with pytest.raises(envs.BrokenEnvironmentError, match=r"gym_vector task 'Few-v0': expected 3 environments.*got 1"):
        envs.make_vector("gym_vector", ("Few-v0",), environments=3)


def test_what_is_refused():
    with pytest.raises(envs.UnknownEnvironmentError, match=r"gym_vector task 'Acrobot-v1'"):
        envs.make_task("gym_vector", "Acrobot-v1")
    env = Counting(2, None)
    with pytest.raises(ValueError, match="expected metadata"):
        gym_vector.VectorBatch(env)
    env.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
    env.single_action_space = spaces.Box(-np.inf, 1, (2,))
    with pytest.raises(envs.UnsupportedSpaceError, match="bounds on all sides"):
        gym_vector.VectorBatch(env)
    env.single_observation_space = spaces.Text(2)
    with pytest.raises(envs.UnsupportedSpaceError, match=r"the observation: expected .*got Text"):
        gym_vector.VectorBatch(env)
    assert "gym_vector" in registry.registered_suites()
