"""Meta-World: names and goals against the library's own, goals that stay, and simulations that are shared."""

import pickle
from types import SimpleNamespace

import gymnasium as gym
import metaworld as library
import numpy as np
import pytest
from metaworld import env_dict, policies

from twohot import envs
from twohot.envs.suites import metaworld

DRAWN = "drawer-close-v3"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of this module, so that the goals of a class are drawn once, and fewer goals, for which 50 are slow."""
    assert metaworld.GOALS == library._N_GOALS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metaworld, "GOALS", 8)
        patch.setattr(library, "_N_GOALS", 8)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def no_idle(monkeypatch):
    """An empty pool of simulations."""
    monkeypatch.setattr(metaworld, "_idle", type(metaworld._idle)())
    return metaworld._idle


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache, and a library that draws in no time; `drawn` counts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    state = SimpleNamespace(path=tmp_path, drawn=0)

    def draw(name, seed):
        state.drawn += 1
        vectors = [np.full(3, seed + row) for row in range(metaworld.GOALS)]
        tasks = [SimpleNamespace(data=pickle.dumps({"rand_vec": vector})) for vector in vectors]
        return SimpleNamespace(train_tasks=tasks, test_tasks=tasks[::-1])

    monkeypatch.setattr(library, "ML1", draw)
    return state


def play(env, steps, seed=0):
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, 4)).astype(np.float32)
    return np.array([np.append(observation, reward) for observation, reward, *_ in map(env.step, actions)])


def test_names_are_the_librarys():
    shown = metaworld.GOAL_OBSERVABLE
    assert set(metaworld.CLASSES) == set(env_dict.ALL_V3_ENVIRONMENTS)
    assert len(metaworld.TASKS) == len(set(metaworld.TASKS)) == 100
    assert set(metaworld.ML10_TRAIN) == set(env_dict.ML10_V3["train"])
    assert set(metaworld.ML10_TEST) == set(env_dict.ML10_V3["test"])
    assert set(metaworld.ML45_TRAIN) == set(env_dict.ML45_V3["train"])
    assert set(metaworld.ML45_TEST) == set(env_dict.ML45_V3["test"])
    assert set(metaworld.MT10) == {name + shown for name in env_dict.MT10_V3}
    assert set(metaworld.MT50) == {name + shown for name in env_dict.MT50_V3}


def test_goals_are_the_librarys():
    found = metaworld.goals(DRAWN)
    benchmark = library.ML1(DRAWN, seed=0)
    for split, tasks in (("train", benchmark.train_tasks), ("test", benchmark.test_tasks)):
        np.testing.assert_array_equal(found[split], [pickle.loads(task.data)["rand_vec"] for task in tasks])
    assert not {row.tobytes() for row in found["train"]} & {row.tobytes() for row in found["test"]}


def test_goals_are_drawn_once_for_a_seed(own_cache):
    first = metaworld.goals("reach-v3", 3)
    again = metaworld.goals("reach-v3", 3)
    assert own_cache.drawn == 1
    for split in ("train", "test"):
        np.testing.assert_array_equal(first[split], again[split])
    assert metaworld.goals("reach-v3", 4)["train"][0, 0] == 4
    assert metaworld.goals("push-v3", 3)["train"][0, 0] == 3
    assert metaworld.goals("reach-v3", 3)["train"][0, 0] == 3
    assert own_cache.drawn == 3


@pytest.mark.parametrize("content", [b"", b"PK\3\4 torn", ("push-v3", 3), ("reach-v3", 4)])
def test_a_corrupt_cache_is_drawn_again(own_cache, content):
    metaworld.goals("reach-v3", 3)
    (file,) = own_cache.path.rglob("*.npz")
    if isinstance(content, tuple):
        metaworld.goals(*content)
        (other,) = (path for path in own_cache.path.rglob("*.npz") if path != file)
        content = other.read_bytes()
    file.write_bytes(content)
    before = own_cache.drawn
    metaworld.goals("reach-v3", 3)
    metaworld.goals("reach-v3", 3)
    assert own_cache.drawn == before + 1


def test_a_cache_that_cannot_be_written_is_no_error(own_cache, monkeypatch):
    blocked = own_cache.path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert metaworld.goals("reach-v3", 3)["train"].shape == (metaworld.GOALS, 3)


def test_the_goal_stays_over_attempts_and_changes_between_trials():
    env = metaworld.MetaWorld(DRAWN)
    env.reset(seed=0, options={"attempt": 0})
    goals = [env._goal]
    for trial in range(1, 6):
        for attempt in (1, 2):
            env.reset(seed=trial, options={"attempt": attempt})
            assert env._goal == goals[-1]
            np.testing.assert_array_equal(env._simulation._last_rand_vec, metaworld.goals(DRAWN)["train"][goals[-1]])
        env.reset(seed=trial, options={"attempt": 0})
        goals.append(env._goal)
    assert len(set(goals)) > 2
    env.close()


def test_goals_of_the_test_split():
    env = metaworld.MetaWorld(DRAWN, "test")
    env.reset(seed=0)
    np.testing.assert_array_equal(env._simulation._last_rand_vec, metaworld.goals(DRAWN)["test"][env._goal])
    env.close()


def test_only_the_mt_tasks_show_the_goal():
    for task, shown in ((DRAWN, False), (DRAWN + metaworld.GOAL_OBSERVABLE, True)):
        env = metaworld.MetaWorld(task)
        observation, _ = env.reset(seed=0)
        assert observation[-3:].any() == shown
        assert play(env, 3)[:, -4:-1].any() == shown
        env.close()


def test_a_task_equals_the_bare_environment():
    env = metaworld.MetaWorld(DRAWN)
    observation, _ = env.reset(seed=4)
    assert env.observation_space.contains(observation)
    bare = env_dict.ALL_V3_ENVIRONMENTS[DRAWN]()
    bare.set_task(env._library_task())
    np.testing.assert_array_equal(observation, bare.reset()[0].astype(np.float32))
    np.testing.assert_array_equal(play(env, 50), play(bare, 50).astype(np.float32).astype(np.float64), strict=False)
    env.close()


def test_an_episode_is_truncated_after_500_steps():
    env = metaworld.MetaWorld(DRAWN)
    env.reset(seed=0)
    for step in range(1, 501):
        _, _, terminated, truncated, _ = env.step(np.zeros(4, np.float32))
        assert (terminated, truncated) == (False, step == 500)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(4, np.float32))


@pytest.mark.filterwarnings("ignore:Constant:UserWarning")  # of the scripted policy, whose moves are clipped
def test_success_is_told():
    env, policy = metaworld.MetaWorld(DRAWN), policies.SawyerDrawerCloseV3Policy()
    observation, _ = env.reset(seed=0)
    successes = []
    for _ in range(150):
        observation, _, _, _, info = env.step(policy.get_action(observation.astype(np.float64)).astype(np.float32))
        successes.append(info["success"])
    assert not successes[0]
    assert successes[-1] == 1.0
    env.close()


def test_a_simulation_is_shared_and_remembers_nothing(no_idle):
    first, second = metaworld.MetaWorld(DRAWN), metaworld.MetaWorld(DRAWN)
    assert first._simulation is None
    first.reset(seed=1)
    simulation = first._simulation
    expected = play(first, 40)
    first.reset(seed=2)
    play(first, 60, seed=9)
    first.release()
    second.reset(seed=1)
    assert second._simulation is simulation
    np.testing.assert_array_equal(play(second, 40), expected)
    first.reset(seed=1)
    assert first._simulation is not simulation
    np.testing.assert_array_equal(play(first, 40), expected)


def test_only_so_many_simulations_wait(no_idle, monkeypatch):
    monkeypatch.setattr(metaworld, "_MAX_IDLE", 2)
    envs = [metaworld.MetaWorld(DRAWN) for _ in range(4)]
    for env in envs:
        env.reset(seed=0)
    built = [env._simulation for env in envs]
    for env in envs:
        env.close()
    assert [simulation for _, _, simulation in no_idle.values()] == built[2:]
    envs[0].reset(seed=0)
    assert envs[0]._simulation is built[3]


@pytest.fixture
def short(monkeypatch):
    """Episodes of five steps."""
    monkeypatch.setattr(env_dict.ALL_V3_ENVIRONMENTS[DRAWN], "max_path_length", 5)


def test_a_trial(short, no_idle):
    env = envs.TrialEnv("metaworld", [DRAWN], attempts=3, reward_multipliers=[4.0])
    bare = metaworld.MetaWorld(DRAWN)
    goals = set()
    for trial in range(4):
        env.reset(seed=trial)
        game = env._game.env.unwrapped
        bare.reset(seed=0)
        bare._goal = game._goal
        actions = np.random.default_rng(trial).uniform(-1, 1, (15, 4)).astype(np.float32)
        returns = np.zeros(3)
        for step, action in enumerate(actions):
            if step % 5 == 0:
                bare.reset(options={"attempt": 1})
            _, expected, *_ = bare.step(action)
            returns[step // 5] += expected
            observation, reward, terminated, truncated, info = env.step(action)
            assert game._goal == bare._goal
            assert reward == 4 * expected
            assert (terminated, truncated) == (False, step == 14)
            assert not observation[36:39].any()
        np.testing.assert_allclose(info["attempt_returns"], returns, rtol=1e-6)
        assert not info["attempt_success"].any()
        goals.add(game._goal)
    assert len(goals) > 1


def test_a_success_marks_its_attempt(short, no_idle, monkeypatch):
    env = envs.TrialEnv("metaworld", [DRAWN], attempts=3)
    env.reset(seed=0)
    for step in range(15):
        if step == 7:
            game = env._game.env.unwrapped
            monkeypatch.setattr(game._simulation, "evaluate_state", lambda observation, action: (0.5, {"success": 1.0}))
        elif step == 8:
            monkeypatch.undo()
            env_dict.ALL_V3_ENVIRONMENTS[DRAWN].max_path_length = 5
        *_, info = env.step(np.zeros(4, np.float32))
    assert info["attempt_success"].tolist() == [False, True, False]


def test_a_trial_that_is_broken_off_frees_its_simulation(no_idle, short):
    env = envs.TrialEnv("metaworld", [DRAWN, "reach-v3"])
    env.reset(seed=0, options={"task": DRAWN})
    simulation = env._game.env.unwrapped._simulation
    env.step(np.zeros(4, np.float32))
    env.reset(options={"task": "reach-v3"})
    assert [idle for *_, idle in no_idle.values()] == [simulation]
    env.close()


def test_held_out_classes_are_no_train_classes():
    assert not set(metaworld.ML45_TRAIN) & set(metaworld.ML45_TEST)
    assert not set(metaworld.ML10_TRAIN) & set(metaworld.ML10_TEST)


def test_sizes_are_known_without_a_simulation(no_idle):
    layout = envs.common_layout("metaworld", metaworld.ML45_TRAIN)
    assert layout.observation.shape == (39,)
    assert layout.action.shape == (4,)
    assert not no_idle
