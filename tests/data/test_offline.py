"""Recorded trajectories as an agent's: what environments would have shown, from every source."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from twohot import envs
from twohot.data.offline import load_mixture, load_offline
from twohot.data.offline_columns import OfflineError
from twohot.data.spaces import replay_schema
from twohot.replay import Mixture, Replay
from twohot.replay.formats import schema_of, write_npz
from twohot.spaces import as_dict_space


def played(env, episodes, seed=0):
    """Trajectories of random play, as its own spaces have them."""
    draw = np.random.default_rng(seed)
    env.action_space.seed(seed)
    for episode in range(episodes):
        observations, rows, done = [env.reset(seed=int(draw.integers(1000)) if episode == 0 else None)[0]], [], False
        while not done:
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(observation)
            rows.append((action, reward, terminated, truncated))
            done = terminated or truncated
        action, reward, terminated, truncated = (np.array(column) for column in zip(*rows, strict=True))
        yield {
            "observation": {"observation": np.array(observations)},
            "action": action,
            "reward": reward.astype(np.float32),
            "terminated": terminated,
            "truncated": truncated,
        }


def replay_of(env, episodes):
    """What a run stores of such play."""
    replay = Replay.create(replay_schema(as_dict_space(env.observation_space), env.action_space), capacity_steps=10**6)
    for trajectory in played(env, episodes):
        replay.add(**{**trajectory, "action": trajectory["action"].astype(replay.schema.action.dtype)})
    return replay


@pytest.mark.parametrize("task", ["CartPole-v1", "FrozenLake-v1"])
def test_episodes_become_what_a_trial_shows(task, tmp_path):
    episodes = list(played(gym.make(task, disable_env_checker=True), 4))
    write_npz(tmp_path / "play", episodes)
    env = envs.TrialEnv("gym", (task,))
    spaces_of = {"observation_space": env.observation_space, "action_space": env.action_space}
    data = load_offline(f"npz:{tmp_path / 'play'}", reward_multiplier=3.0, **spaces_of)
    for id, episode in zip(data.replay.ids(), episodes, strict=True):
        rows, steps = data.replay.get(id), len(episode["reward"])
        own, shown = episode["observation"]["observation"], rows["observation"]["observation"]
        np.testing.assert_array_equal(shown[:, :-4], np.eye(16)[own] if task == "FrozenLake-v1" else own)
        np.testing.assert_allclose(shown[:, -4], np.arange(steps + 1) / 1000, rtol=1e-6)
        assert (shown[:, -3:-1] == [0, 1]).all()
        np.testing.assert_array_equal(shown[:, -1], [0, *3 * episode["reward"]])
        np.testing.assert_array_equal(rows["reward"], 3 * episode["reward"])
        np.testing.assert_array_equal(rows["action"], episode["action"])
        np.testing.assert_array_equal(rows["terminated"], episode["terminated"])
        assert rows["action"].dtype == np.int32


def test_numbers_beyond_the_bounds_are_refused(tmp_path):
    write_npz(tmp_path / "play", played(gym.make("Pendulum-v1", disable_env_checker=True), 1))  # from -2 to 2
    with pytest.raises(OfflineError, match=r"trajectory 0: action: expected numbers from -1.0 to 1.0.*rescale them"):
        load_offline(f"npz:{tmp_path / 'play'}")


def test_the_context_is_that_of_a_trial(tmp_path):
    """A trial's own recording, stripped of its features and converted, is that recording again."""
    env = envs.TrialEnv("gym", ("CartPole-v1",))
    stored = replay_of(env, 5)
    stripped = [stored.get(id) for id in stored.ids()]
    for trajectory in stripped:
        trajectory["observation"] = {"observation": trajectory["observation"]["observation"][:, :-4].astype(np.float64)}
        trajectory["action"] = trajectory["action"].astype(np.int64)
    write_npz(tmp_path / "play", stripped)
    data = load_offline(f"npz:{tmp_path / 'play'}")
    assert data.replay.schema == stored.schema
    for our, their in zip(data.replay.ids(), stored.ids(), strict=True):
        rows, expected = data.replay.get(our), stored.get(their)
        for name in ("action", "reward", "terminated", "truncated"):
            np.testing.assert_array_equal(rows[name], expected[name])
        np.testing.assert_array_equal(rows["observation"]["observation"], expected["observation"]["observation"])
    assert data.observation_space["observation"].shape == env.observation_space.shape
    assert data.action_space == env.action_space
    without = load_offline(f"npz:{tmp_path / 'play'}", context_features=False)
    assert without.observation_space["observation"].shape == (4,)


def test_a_replay_of_a_run_is_opened_as_it_is(tmp_path):
    env = envs.TrialEnv("gym", ("CartPole-v1",))
    schema = replay_schema(as_dict_space(env.observation_space), env.action_space)
    with Replay.create(schema, directory=tmp_path / "run", capacity_steps=1000) as replay:
        for trajectory in played(env, 3):
            replay.add(**{**trajectory, "action": trajectory["action"].astype(np.int32)})
        ids = replay.ids()
    for given in ({}, {"observation_space": env.observation_space, "action_space": env.action_space}):
        data = load_offline(tmp_path / "run", **given)
        np.testing.assert_array_equal(data.replay.ids(), ids)
        assert data.replay.directory == tmp_path / "run"
        assert data.action_space == env.action_space
        assert data.observation_space["observation"].shape == (8,)
    assert load_offline(str(tmp_path / "run")).replay.directory is not None


def test_a_raw_replay_directory_is_converted(tmp_path):
    raw = list(played(gym.make("Acrobot-v1", disable_env_checker=True), 2))
    with Replay.create(schema_of(raw[0]), directory=tmp_path / "raw", capacity_steps=10_000) as replay:
        for trajectory in raw:
            replay.add(**trajectory)
    data = load_offline(tmp_path / "raw", task=4)
    assert data.replay.directory is None
    assert data.observation_space["observation"].shape == (6 + 4,)
    assert data.action_space == spaces.Discrete(3)
    assert data.replay.tasks().tolist() == [4, 4]


def test_minari_knows_the_bounds_of_actions(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = gym.make("Pendulum-v1", disable_env_checker=True)
    episodes = list(played(env, 2))
    buffers = [
        minari.data_collector.EpisodeBuffer(
            observations=e["observation"]["observation"],
            actions=e["action"],
            rewards=e["reward"],
            terminations=e["terminated"],
            truncations=e["truncated"],
        )
        for e in episodes
    ]
    with pytest.warns(UserWarning, match="None"):
        minari.create_dataset_from_buffers(
            "mine/pendulum-v0", buffers, observation_space=env.observation_space, action_space=env.action_space
        )
    trial = envs.TrialEnv("gym", ("Pendulum-v1",))
    data = load_offline(
        "minari:mine/pendulum-v0", observation_space=trial.observation_space, action_space=trial.action_space
    )
    for id, episode in zip(data.replay.ids(), episodes, strict=True):
        rows = data.replay.get(id)
        np.testing.assert_allclose(rows["action"], episode["action"] / 2, atol=1e-7)
        np.testing.assert_allclose(rows["observation"]["observation"][:, :3], episode["observation"]["observation"])
    assert data.action_space == spaces.Box(-1, 1, (1,), np.float32)


def steps(**columns):
    """A trajectory of two steps."""
    return {
        "reward": np.array([1, 2], np.float32),
        "terminated": np.array([False, True]),
        "truncated": np.zeros(2, bool),
        "action": np.array([0, 1]),
        **columns,
    }


def test_dicts_images_tokens_and_every_kind_of_action(tmp_path):
    observation = {
        "picture": np.arange(3 * 20 * 24, dtype=np.uint8).reshape(3, 20, 24),
        "grid": np.ones((3, 2, 2, 1), np.int64),
        "tokens": np.array([[1, 2], [3, 4], [5, 6]], np.int16),
        "arm": np.arange(12.0).reshape(3, 2, 2),
        "door": np.array([0, 2, 1]),
    }
    write_npz(tmp_path / "play", [steps(observation=observation, action=np.array([[0, 3], [1, 0]]))])
    data = load_offline(f"npz:{tmp_path / 'play'}", reward_multiplier=10.0)
    assert {name: (str(part.dtype), part.shape) for name, part in data.observation_space.items()} == {
        "picture": ("uint8", (20, 24, 1)),
        "grid": ("int32", (2, 2, 1)),
        "tokens": ("int16", (2,)),
        "arm": ("float32", (4,)),
        "door": ("float32", (3,)),
        "context": ("float32", (4,)),
    }
    assert data.action_space == spaces.MultiDiscrete([2, 4])
    rows = data.replay.get(data.replay.ids()[0])["observation"]
    np.testing.assert_array_equal(rows["picture"][..., 0], observation["picture"])
    np.testing.assert_array_equal(rows["arm"], observation["arm"].reshape(3, 4))
    np.testing.assert_array_equal(rows["door"], np.eye(3)[observation["door"]])
    np.testing.assert_array_equal(rows["context"][:, 3], [0, 10, 20])
    switches = np.array([[0, 1], [0, 1]], np.int8)
    write_npz(tmp_path / "binary", [steps(observation={"arm": np.zeros((3, 1))}, action=switches)])
    assert load_offline(f"npz:{tmp_path / 'binary'}").action_space == spaces.MultiBinary(2)
    kept = load_offline(f"npz:{tmp_path / 'play'}", fields=("arm",), context_features=False)
    assert set(kept.observation_space) == {"arm"}


def test_mixtures_have_the_spaces_of_all(tmp_path):
    for task in ("CartPole-v1", "Acrobot-v1"):
        write_npz(tmp_path / task, played(gym.make(task, disable_env_checker=True), 3))
    sources = [f"npz:{tmp_path / task}" for task in ("CartPole-v1", "Acrobot-v1")]
    data = load_mixture(sources, [1, 3], seed=1)
    assert isinstance(data.replay, Mixture)
    assert data.observation_space["observation"].shape == (6 + 4,)
    assert data.action_space == spaces.Discrete(3)
    tasks = np.concatenate([data.replay.sample(64, 8).task for _ in range(10)])
    assert abs((tasks == 1).mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 640)
    batch = data.replay.sample(64, 8)
    cart = batch.observation["observation"][batch.task == 0]
    assert (cart[..., 4:6] == 0).all()
    assert (cart[:, 1, -2] == 1).all()
    same = load_mixture(sources[:1] * 2, [1, 1])
    assert same.observation_space["observation"].shape == (4 + 4,)


def test_what_does_not_fit_says_so(tmp_path):
    write_npz(tmp_path / "play", played(gym.make("CartPole-v1", disable_env_checker=True), 1))
    source = f"npz:{tmp_path / 'play'}"
    small = spaces.Box(-np.inf, np.inf, (6,), np.float32)
    with pytest.raises(OfflineError, match="do not fit those of the environment"):
        load_offline(source, observation_space=small)
    with pytest.raises(OfflineError, match="action: expected integers"):
        load_offline(source, action_space=spaces.MultiBinary(3))
    write_npz(tmp_path / "high", [steps(observation={"observation": np.zeros((3, 1))}, action=np.array([0, 5]))])
    with pytest.raises(OfflineError, match=r"trajectory 0: action: expected Discrete\(2\), got 0 to 5"):
        load_offline(f"npz:{tmp_path / 'high'}", action_space=spaces.Discrete(2))
    with pytest.raises(OfflineError, match="expected the directory of a replay, or minari:ID"):
        load_offline("nothing")
    write_npz(tmp_path / "arm", [steps(observation={"observation": np.zeros((3, 1))}, action=np.zeros((2, 2)))])
    with pytest.raises(OfflineError, match="one kind of action"):
        load_mixture([source, f"npz:{tmp_path / 'arm'}"], [1, 1])
    first, second = (steps(observation={"observation": np.zeros((3, size))}) for size in (1, 2))
    write_npz(tmp_path / "one", [first])
    write_npz(tmp_path / "two", [second])
    (tmp_path / "mixed").mkdir()
    for name in ("one", "two"):
        for file in sorted((tmp_path / name).glob("*.npz")):
            file.rename(tmp_path / "mixed" / f"{name}.npz")
    with pytest.raises(OfflineError, match="equal columns"):
        load_offline(f"npz:{tmp_path / 'mixed'}")
