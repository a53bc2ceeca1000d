"""Registry, wrappers, trials and vectors, on toy tasks that need no suite."""

import itertools
import math
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from twohot import envs
from twohot.envs import registry
from twohot.envs.wrappers.trial import RESULTS

OBSERVATION_SIZE, ACTIONS = 7, 6


class Toy(gym.Env):
    """Observes [length, number drawn at reset, steps]; the reward is 100 length + step + action / 10."""

    def __init__(self, *, length=3, actions=4, truncates=False, bad_step=-1, bad_value=math.nan, bad_reward=False):
        self.length, self.truncates = length, truncates
        self.bad_step, self.bad_value, self.bad_reward = bad_step, bad_value, bad_reward
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = spaces.Discrete(actions)
        self.seeds, self.actions = [], []

    def observe(self):
        observation = np.array([self.length, self.number, self.steps], np.float32)
        if self.steps == self.bad_step and not self.bad_reward:
            observation[1] = self.bad_value
        return observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.steps = 0
        self.number = int(self.np_random.integers(2**20))
        return self.observe(), {"secret": 1}

    def step(self, action):
        assert type(action) is int
        assert self.action_space.contains(action)
        self.actions.append(action)
        self.steps += 1
        reward = 100 * self.length + self.steps + action / 10
        if self.steps == self.bad_step and self.bad_reward:
            reward = self.bad_value
        end = self.steps == self.length
        return self.observe(), reward, end and not self.truncates, end and self.truncates, {"secret": 1}


TOYS = {
    "two": {"length": 2},
    "three": {"length": 3, "actions": 2},
    "five": {"length": 5, "actions": 3},
    "clock": {"length": 4, "truncates": True},
    "wide": {"actions": 6},
    "nan": {"length": 4, "bad_step": 2},
    "infinite": {"length": 4, "bad_step": 3, "bad_value": -math.inf},
    "nan_reward": {"length": 4, "bad_step": 1, "bad_reward": True},
}


@pytest.fixture
def made(monkeypatch):
    """A registered suite "toy"; the list of the environments it has made, in order."""
    monkeypatch.setattr(registry, "_SUITES", registry.registered_suites())
    environments = []

    def make(task, split, render=False):
        environments.append(Toy(**TOYS[task]))
        return environments[-1]

    envs.register(envs.Suite("toy", "Toys.", ("numpy",), "pip install toys", tuple(TOYS), make))
    return environments


def trial_env(tasks=("two", "three", "five"), **changes):
    layout = envs.Layout(spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float32), spaces.Discrete(ACTIONS))
    arguments = {"attempts": 3, "unscored_attempts": 1, "layout": layout}
    return envs.TrialEnv("toy", tasks, **{**arguments, **changes})


def play(env, steps, seed, action_seed=0):
    """A trace of plain numbers; trials follow each other."""
    actions = np.random.default_rng(action_seed).integers(env.action_space.n, size=steps)
    observation, info = env.reset(seed=seed)
    trace = [(observation.tolist(), info["task"])]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        trace.append(
            (observation.tolist(), reward, terminated, truncated, {k: np.asarray(v).tolist() for k, v in info.items()})
        )
        if terminated or truncated:
            observation, info = env.reset()
            trace.append((observation.tolist(), info["task"]))
    return trace


# registry


def test_importing_the_environments_imports_no_suite():
    code = (
        "import sys, twohot.envs as e; suite = e.get_suite('popgym'); suite.tasks; suite.missing();"
        "sys.exit('popgym' in sys.modules or 'torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, env={"PYTHONPATH": ":".join(sys.path)}).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("suite", "task", "expected"),
    [
        ("popgim", "RepeatFirstEasy", "popgym"),
        ("popgym", "RepeatPrevEasy", "RepeatPreviousEasy"),
        ("popgym", "REPEATFIRSTHARD", "RepeatFirstHard"),
        ("popgym", "velocityonlycartpoleeasy", "VelocityOnlyCartpoleEasy"),
    ],
)
def test_an_unknown_name_suggests_close_ones(suite, task, expected):
    with pytest.raises(envs.UnknownEnvironmentError, match=f"did you mean .*{expected}.*twohot envs"):
        envs.make_task(suite, task)


def test_a_name_close_to_nothing_says_how_to_list_all():
    with pytest.raises(envs.UnknownEnvironmentError, match="no suite named 'qqqqqq': `twohot envs` lists all"):
        envs.get_suite("qqqqqq")


def test_a_missing_extra_gives_the_command(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert envs.get_suite("popgym").missing() == ("popgym",)
    with pytest.raises(envs.MissingExtraError, match=r"pip install .*\[popgym\]'"):
        envs.TrialEnv("popgym", ("RepeatFirstEasy",))


def test_a_suite_name_is_registered_once(made):
    with pytest.raises(ValueError, match="registered already"):
        envs.register(envs.get_suite("toy"))


def test_suites_is_a_copy():
    envs.registered_suites().clear()
    assert "popgym" in envs.registered_suites()


@pytest.mark.parametrize(("tasks", "message"), [((), "at least one task"), (("two", "two"), "every task once")])
def test_task_lists_are_checked(made, tasks, message):
    with pytest.raises(ValueError, match=message):
        trial_env(tasks)


# wrappers


class Fixed(gym.Env):
    """Returns one observation for ever and keeps the last action."""

    def __init__(self, observation_space, observation=None, action_space=None):
        self.observation_space, self.observation = observation_space, observation
        self.action_space = spaces.Discrete(2) if action_space is None else action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation, {}

    def step(self, action):
        self.action = action
        return self.observation, 2.5, False, False, {}


leaf_spaces = st.one_of(
    st.builds(spaces.Discrete, st.integers(1, 6), start=st.integers(-3, 3)),
    st.builds(
        lambda counts, start: spaces.MultiDiscrete(counts, start=[start] * len(counts)),
        st.lists(st.integers(1, 4), min_size=1, max_size=3),
        st.integers(-2, 2),
    ),
    st.just(spaces.MultiDiscrete([[2, 3], [4, 1]])),
    st.builds(lambda shape: spaces.Box(-2, 3, shape, np.float64), st.sampled_from([(), (1,), (2, 3)])),
    st.builds(spaces.MultiBinary, st.integers(1, 3)),
)
nested_spaces = st.recursive(
    leaf_spaces,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3).map(spaces.Dict),
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(space=nested_spaces, seed=st.integers(0, 2**31))
def test_one_hot_equals_gymnasiums_flatten(space, seed):
    space.seed(seed)
    value = space.sample()
    env = envs.OneHotObservation(Fixed(space, value))
    flat = spaces.flatten_space(space)
    assert env.observation_space == spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32))
    expected = spaces.flatten(space, value).astype(np.float32)
    for observation in (env.reset()[0], env.step(0)[0]):
        assert observation.dtype == np.float32
        np.testing.assert_array_equal(observation, expected)


def test_an_unsupported_observation_is_named():
    with pytest.raises(envs.UnsupportedSpaceError, match=r"MultiDiscrete.*got Text"):
        envs.OneHotObservation(Fixed(spaces.Tuple([spaces.Discrete(2), spaces.Text(3)])))


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([3, 4, 2]),
        spaces.MultiDiscrete([2, 3], start=[-1, 5]),
        spaces.MultiDiscrete([[2, 3], [1, 4]]),
    ],
)
def test_flat_actions_count_in_c_order(space):
    inner = Fixed(spaces.Discrete(2), 0, space)
    env = envs.FlatDiscreteAction(inner)
    every = itertools.product(*(range(n) for n in space.nvec.ravel()))
    for action, expected in enumerate(every):
        env.step(action)
        assert space.contains(inner.action)
        np.testing.assert_array_equal((inner.action - space.start).ravel(), expected)
    assert env.action_space == spaces.Discrete(action + 1)


def test_flat_actions_leave_discrete_alone():
    inner = Fixed(spaces.Discrete(2), 0, spaces.Discrete(5))
    env = envs.FlatDiscreteAction(inner)
    env.step(3)
    assert (env.action_space, inner.action) == (spaces.Discrete(5), 3)


def test_flat_actions_refuse_numbers():
    with pytest.raises(envs.UnsupportedSpaceError, match=r"Discrete or MultiDiscrete, got Box"):
        envs.FlatDiscreteAction(Fixed(spaces.Discrete(2), 0, spaces.Box(-1, 1, (1,))))


def test_scale_reward():
    env = envs.ScaleReward(Fixed(spaces.Discrete(2), 0), -4)
    assert env.step(0)[1] == -10
    with pytest.raises(ValueError, match="finite reward multiplier, got nan"):
        envs.ScaleReward(env, math.nan)


@pytest.mark.parametrize("truncates", [False, True])
def test_a_time_limit_terminates(truncates):
    env = envs.TimeLimitTerminates(Toy(length=2, truncates=truncates))
    env.reset()
    assert env.step(0)[2:4] == (False, False)
    assert env.step(0)[2:4] == (True, False)


def test_padding_is_zero_and_every_array_is_new():
    env = envs.PadObservation(Toy(), 5)
    first, _ = env.reset(seed=0)
    kept = first.copy()
    second = env.step(0)[0]
    assert first.shape == env.observation_space.shape == (5,)
    assert first.dtype == np.float32
    assert not first[3:].any()
    assert not second[3:].any()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kept)
    with pytest.raises(ValueError, match="at most 2 observation entries, got 3"):
        envs.PadObservation(Toy(), 2)
    with pytest.raises(envs.UnsupportedSpaceError, match="got Discrete"):
        envs.PadObservation(Fixed(spaces.Discrete(2)), 2)


def test_illegal_actions_become_uniform_legal_ones():
    draws, own = 12_000, 5
    inner = Fixed(spaces.Discrete(2), 0, spaces.Discrete(own, start=3))
    env = envs.PadActions(inner, 9)
    env.reset(seed=1)
    assert env.legal
    counts = np.zeros(own)
    for draw in range(draws):
        env.step(own + draw % (9 - own))
        assert not env.legal
        counts[inner.action - 3] += 1
    chi_square = ((counts - draws / own) ** 2 / (draws / own)).sum()
    # Chi-square with own - 1 degrees of freedom: mean own - 1, variance 2 (own - 1); five deviations.
    assert chi_square < own - 1 + 5 * math.sqrt(2 * (own - 1))


def test_legal_actions_pass_and_others_are_errors():
    inner = Fixed(spaces.Discrete(2), 0, spaces.Discrete(4, start=-1))
    env = envs.PadActions(inner, 6)
    for action in range(4):
        env.step(np.int64(action))
        assert env.legal
        assert inner.action == action - 1
    env.step(4)
    assert not env.legal
    env.reset()
    assert env.legal
    for action in (-1, 6):
        with pytest.raises(ValueError, match=rf"an action in \[0, 6\), got {action}"):
            env.step(action)
    with pytest.raises(ValueError, match="at most 3 actions, got 4"):
        envs.PadActions(inner, 3)
    with pytest.raises(envs.UnsupportedSpaceError, match="got MultiDiscrete"):
        envs.PadActions(Fixed(spaces.Discrete(2), 0, spaces.MultiDiscrete([2])), 3)


def test_illegal_actions_follow_the_seed_and_leave_the_environments_stream_alone():
    def actions(seed):
        env = envs.PadActions(Toy(length=50), ACTIONS)
        env.reset(seed=seed)
        for _ in range(50):
            env.step(ACTIONS - 1)
        env.reset()
        return env.unwrapped.actions, env.unwrapped.number

    legal = Toy(length=50)
    legal.reset(seed=4)
    legal.reset()
    assert actions(4) == actions(4)
    assert actions(4)[0] != actions(5)[0]
    assert actions(4)[1] == legal.number


@pytest.mark.parametrize("truncates", [False, True])
def test_only_the_last_attempt_ends_the_trial(truncates):
    inner = Toy(length=2, truncates=truncates)
    env = envs.Attempts(inner, 3)
    first, _ = env.reset(seed=9)
    steps = [env.step(1) for _ in range(6)]
    assert [step[2] for step in steps] == [False] * 5 + [not truncates]
    assert [step[3] for step in steps] == [False] * 5 + [truncates]
    # Six steps for three attempts of two: no step is spent on a reset.
    assert len(inner.actions) == 6
    assert [step[0][2] for step in steps] == [1, 0, 1, 0, 1, 2]
    assert [step[1] for step in steps] == pytest.approx([201.1, 202.1] * 3)
    assert len(inner.seeds) == len(set(inner.seeds)) == 3
    assert None not in inner.seeds
    assert len({first[1], steps[1][0][1], steps[3][0][1]}) == 3
    assert [("attempt_returns" in step[4]) for step in steps] == [False] * 5 + [True]
    info = steps[-1][4]
    np.testing.assert_allclose(info["attempt_returns"], [403.2] * 3, rtol=1e-6)
    np.testing.assert_array_equal(info["attempt_lengths"], [2, 2, 2])
    assert (info["attempt_returns"].dtype, info["attempt_lengths"].dtype) == (np.float32, np.int32)


def test_a_second_trial_begins_from_nothing():
    env = envs.Attempts(Toy(length=2), 2, 1)
    for seed in (0, None):
        env.reset(seed=seed)
        assert (env.attempt, env.last_reward) == (0, 0.0)
        rewards, info = [], {}
        for _ in range(4):
            _, reward, _, _, info = env.step(0)
            rewards.append(reward)
        assert rewards == [0, 0, 201, 202]
        np.testing.assert_array_equal(info["attempt_returns"], [403, 403])
    assert len(set(env.unwrapped.seeds)) == 4


@pytest.mark.parametrize(("attempts", "free"), [(0, 0), (2, 2), (2, -1)])
def test_attempt_counts_are_checked(made, attempts, free):
    with pytest.raises(ValueError, match="attempt"):
        envs.Attempts(Toy(), attempts, free)
    with pytest.raises(ValueError, match="attempt"):
        trial_env(attempts=attempts, unscored_attempts=free)


# trials


def test_the_hidden_task_stays_over_attempts_and_changes_between_trials(made):
    env = trial_env()
    played = []
    observation, info = env.reset(seed=0)
    for _ in range(60):
        played.append(env.tasks[info["task"]])
        length = TOYS[played[-1]]["length"]
        done, steps = False, 0
        while not done:
            assert observation[0] == length
            observation, _, done, _, info = env.step(0)
            steps += 1
        assert steps == 3 * length
        assert env.tasks[info["task"]] == played[-1]
        observation, info = env.reset()
    counts = np.array([played.count(task) for task in env.tasks])
    # Binomial(60, 1 / 3): deviation 3.7; four of them.
    assert (abs(counts - 20) < 15).all()
    assert len(made) == 3


def test_rewards_features_and_infos_step_by_step(made):
    multipliers = (0.5, -2.0, 1.0)
    env = trial_env(reward_multipliers=multipliers)
    actions = np.random.default_rng(5).integers(ACTIONS, size=200)
    _, info = env.reset(seed=3)
    step = 0
    for _ in range(12):
        assert list(info) == ["task"]
        task = info["task"]
        length, own = TOYS[env.tasks[task]]["length"], TOYS[env.tasks[task]].get("actions", 4)
        toy = next(toy for toy in made if toy.length == length)
        returns = np.zeros(3)
        for trial_step in range(3 * length):
            action = actions[step]
            observation, reward, terminated, truncated, info = env.step(action)
            step += 1
            raw = 100 * length + trial_step % length + 1 + toy.actions[-1] / 10
            attempt = trial_step // length
            returns[attempt] += raw
            assert reward == pytest.approx(0.0 if attempt == 0 else raw * multipliers[task])
            assert isinstance(reward, float)
            last = trial_step == 3 * length - 1
            shown_attempt = min((trial_step + 1) // length, 2)
            np.testing.assert_array_equal(observation[3:OBSERVATION_SIZE], 0)
            np.testing.assert_allclose(
                observation[OBSERVATION_SIZE:],
                [(trial_step + 1) / 1000, shown_attempt / 2, action < own, raw * multipliers[task]],
                rtol=1e-6,
            )
            assert (terminated, truncated) == (last, False)
            assert set(info) == ({"task", *RESULTS, "success_told"} if last else set())
            if action < own:
                assert toy.actions[-1] == action
        np.testing.assert_allclose(info["attempt_returns"], returns, rtol=1e-6)
        np.testing.assert_array_equal(info["attempt_lengths"], [length] * 3)
        observation, info = env.reset()
        np.testing.assert_array_equal(observation[OBSERVATION_SIZE:], [0, 0, 1, 0])


def test_without_features_the_observation_is_the_padded_one(made):
    env = trial_env(("three",), context_features=False)
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape == (OBSERVATION_SIZE,)
    np.testing.assert_array_equal(observation, [3, made[0].number, 0, 0, 0, 0, 0])


def test_one_attempt_is_an_ordinary_episode_that_may_be_truncated(made):
    env = trial_env(("clock",), attempts=1, unscored_attempts=0)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]


def test_a_run_follows_from_its_seed_alone(made):
    fresh, used = trial_env(), trial_env()
    play(used, 57, seed=8, action_seed=1)
    expected = play(fresh, 300, seed=7)
    assert play(used, 300, seed=7) == expected
    assert play(trial_env(), 300, seed=6) != expected


def test_tasks_and_deals_do_not_depend_on_the_actions(made):
    def firsts(action):
        env = trial_env()
        observations, info = [], {}
        observation, info = env.reset(seed=2)
        for _ in range(10):
            observations.append((info["task"], observation[1]))
            done = False
            while not done:
                observation, _, done, _, _ = env.step(action)
            observation, info = env.reset()
        return observations

    assert firsts(0) == firsts(ACTIONS - 1)


def test_no_two_seeds_trials_or_attempts_share_a_deal(made):
    env = trial_env()
    for seed in range(3):
        play(env, 60, seed)
        play(trial_env(), 60, seed + 3)
    dealt = [seed for toy in made for seed in toy.seeds]
    assert len(set(dealt)) == len(dealt) > 60


def test_options_force_a_task(made):
    env = trial_env()
    for task in (2, 0, 1, 1):
        observation, info = env.reset(seed=0, options={"task": env.tasks[task]})
        assert info == {"task": task}
        assert observation[0] == TOYS[env.tasks[task]]["length"]
    with pytest.raises(envs.UnknownEnvironmentError, match="got 'clock'"):
        env.reset(options={"task": "clock"})


def test_sizes_default_to_the_largest_over_tasks(made):
    env = trial_env(("two", "wide", "three"), layout=None)
    assert env.observation_space.shape == (3 + 4,)
    assert env.action_space == spaces.Discrete(6)
    assert len(made) == 3


def test_environments_are_made_when_they_are_first_played(made):
    env = trial_env()
    assert made == []
    for _ in range(3):
        env.reset(options={"task": "five"})
    assert [toy.length for toy in made] == [5]


@pytest.mark.parametrize(
    ("changes", "message"), [({"observation_size": 2}, "observation_size"), ({"actions": 3}, "actions")]
)
def test_a_task_larger_than_the_given_size_is_an_error(made, changes, message):
    sizes = {"observation_size": 3, "actions": 4, **changes}
    layout = envs.Layout(spaces.Box(-1, 1, (sizes["observation_size"],)), spaces.Discrete(sizes["actions"]))
    env = trial_env(("two",), layout=layout)
    with pytest.raises(ValueError, match=f"raise {message}"):
        env.reset()
    with pytest.raises(ValueError, match=f"raise {message}"):
        envs.make_vector("toy", ("two",), environments=2, **sizes)


@pytest.mark.parametrize("changes", [{"observation_size": -1}, {"actions": -1}])
def test_sizes_are_not_negative(made, changes):
    with pytest.raises(ValueError, match="not negative"):
        envs.common_layout("toy", ("two",), **changes)


@pytest.mark.parametrize("multipliers", [(1.0,), (1.0, 1.0, 1.0, 1.0)])
def test_reward_multipliers_are_one_for_each_task(made, multipliers):
    with pytest.raises(ValueError, match="expected 3 reward multipliers"):
        trial_env(reward_multipliers=multipliers)


def test_stepping_without_reset_is_an_error(made):
    env = trial_env(("two",), attempts=1, unscored_attempts=0)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    env.step(0)
    env.step(0)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)


@pytest.mark.parametrize(("task", "step"), [("nan", 2), ("infinite", 3), ("nan_reward", 1)])
@pytest.mark.parametrize("observation_size", [OBSERVATION_SIZE, 100])
@pytest.mark.parametrize("context_features", [False, True])
def test_numbers_that_are_not_finite_are_errors(made, task, step, observation_size, context_features):
    layout = envs.common_layout("toy", (task,), observation_size)
    env = trial_env((task,), layout=layout, context_features=context_features)
    env.reset(seed=0)
    for _ in range(step - 1):
        env.step(0)
    with pytest.raises(envs.NonFiniteError, match=rf"toy task '{task}'(.|\n)* at step {step} of the trial"):
        env.step(0)


def test_a_nan_at_reset_and_finite_extremes(made, monkeypatch):
    monkeypatch.setitem(TOYS, "two", {"length": 2, "bad_step": 0})
    with pytest.raises(envs.NonFiniteError, match="at step 0"):
        trial_env(("two",)).reset(seed=0)
    monkeypatch.setitem(TOYS, "two", {"length": 2, "bad_step": 0, "bad_value": 3e38})
    for size in (OBSERVATION_SIZE, 100):
        trial_env(("two",), layout=envs.common_layout("toy", ("two",), size)).reset(seed=0)


# vectors


def vector(environments=4, **changes):
    arguments = {"attempts": 2, "unscored_attempts": 1, "observation_size": OBSERVATION_SIZE, "actions": ACTIONS}
    return envs.make_vector("toy", ("two", "three", "five"), environments=environments, **{**arguments, **changes})


def test_vector_rows_equal_single_environments_and_no_dummy_transition_appears(made):
    rows, steps = 4, 120
    seeds = envs.reset_seeds(1, 2, rows)
    actions = np.random.default_rng(0).integers(ACTIONS, size=(steps, rows))
    many = vector(rows)
    singles = [trial_env(attempts=2) for _ in range(rows)]
    observations, infos = many.reset(seed=seeds)
    for row, single in enumerate(singles):
        observation, info = single.reset(seed=seeds[row])
        np.testing.assert_array_equal(observations[row], observation)
        assert infos["task"][row] == info["task"]
    stored, copies = [], []
    for step in range(steps):
        observations, rewards, terminated, truncated, infos = many.step(actions[step])
        stored.append((observations, rewards, terminated, truncated))
        copies.append(tuple(array.copy() for array in stored[-1]))
        for row, single in enumerate(singles):
            observation, *numbers, info = single.step(actions[step, row])
            np.testing.assert_array_equal(observations[row], observation)
            assert [rewards[row], terminated[row], truncated[row]] == numbers
            for key, value in info.items():
                assert infos[f"_{key}"][row]
                np.testing.assert_array_equal(infos[key][row], value)
        if not terminated.any():
            assert infos == {}
            continue
        after, infos = envs.reset_where(many, terminated)
        np.testing.assert_array_equal(infos["_task"], terminated)
        for row, single in enumerate(singles):
            if terminated[row]:
                observation, info = single.reset()
                np.testing.assert_array_equal(after[row], observation)
                assert infos["task"][row] == info["task"]
            else:
                np.testing.assert_array_equal(after[row], observations[row])
    for arrays, kept in zip(stored, copies, strict=True):
        for array, copy in zip(arrays, kept, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_reset_where_can_force_a_task_and_needs_a_finished_row(made):
    many = vector(3)
    before, _ = many.reset(seed=0)
    after, infos = envs.reset_where(many, np.array([True, False, True]), task="five")
    np.testing.assert_array_equal(infos["_task"], [True, False, True])
    assert after[[0, 2], 0].tolist() == [5, 5]
    np.testing.assert_array_equal(after[1], before[1])
    with pytest.raises(ValueError, match="at least one True"):
        envs.reset_where(many, np.zeros(3, bool))


def test_the_vector_settles_sizes_once(made):
    many = vector(5, observation_size=0, actions=0)
    assert many.single_observation_space.shape == (7,)
    assert many.single_action_space.n == 4
    assert len(made) == 3
    with pytest.raises(ValueError, match="at least 1 environment"):
        vector(0)


def test_reset_seeds():
    seeds = envs.reset_seeds(3, 5, 64)
    assert seeds == envs.reset_seeds(3, 5, 64)
    assert seeds[:10] == envs.reset_seeds(3, 5, 10)
    assert all(type(seed) is int and 0 <= seed < 2**64 for seed in seeds)
    others = [envs.reset_seeds(*pair, 64) for pair in [(5, 3), (3, 6), (4, 5), (2, 6)]]
    assert len(set(seeds).union(*others)) == 5 * 64
    with pytest.raises(ValueError, match="not negative, got 0, -1 and 2"):
        envs.reset_seeds(0, -1, 2)
