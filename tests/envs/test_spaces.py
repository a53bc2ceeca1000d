"""Trials of tasks with images, parts, masks and every kind of action, and what attempts share."""

import numpy as np
import pytest
from gymnasium import Env, Wrapper, spaces

from twohot import envs
from twohot.envs import registry

UNBOUNDED = {"low": -np.inf, "high": np.inf, "dtype": np.float32}


class Puppet(Env):
    """Shows samples of its space, keeps the actions it got, and ends after `length` steps."""

    def __init__(self, observation_space, action_space=None, length=3, success=()):
        self.observation_space = observation_space
        self.action_space = action_space or spaces.Discrete(2)
        self.length, self.success = length, success
        self.actions, self.shown, self.options = [], [], []
        self.resets = 0

    def observe(self):
        self.observation_space.seed(int(self.np_random.integers(2**30)))
        self.shown.append(self.observation_space.sample())
        return self.shown[-1]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.options.append(options)
        self.steps = 0
        self.resets += 1
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.actions.append(action)
        self.steps += 1
        info = {"success": 1.0} if (self.resets - 1, self.steps) in self.success else {}
        return self.observe(), 1.0, self.steps == self.length, False, info


class Hidden(Puppet):
    hidden_task = True


def image(height=4, channels=3):
    return spaces.Box(0, 255, (height, 4, channels), np.uint8)


def vector(size):
    return spaces.Box(-1, 1, (size,), np.float64)


def tokens(size, vocabulary=9, dtype=np.int16):
    return spaces.Box(0, vocabulary, (size,), dtype)


def mask(size):
    return spaces.Box(0, 1, (size,), np.int8)


@pytest.fixture
def suite(monkeypatch):
    """From a dict of environments to the suite "puppets" of those tasks."""
    monkeypatch.setattr(registry, "_SUITES", registry.registered_suites())

    def make_suite(puppets, **fields):
        calls = []

        def make(task, split, render=False):
            calls.append((task, split, render))
            return puppets[task]

        envs.register(envs.Suite("puppets", "Puppets.", (), "", tuple(puppets), make, **fields))
        return calls

    return make_suite


def trial(*names, **changes):
    return envs.TrialEnv("puppets", names, **changes)


def steps_of(env, task, actions):
    """(observation, reward, ...) of `actions` in a trial at `task`, after the observation of the reset."""
    observation, _ = env.reset(seed=0, options={"task": task})
    assert env.observation_space.contains(observation), observation
    result = [(observation,)]
    for action in actions:
        result.append(env.step(action))
        assert env.observation_space.contains(result[-1][0])
    return result


# observations


def test_an_image_stands_beside_the_context(suite):
    puppet = Puppet(image())
    suite({"a": puppet})
    env = trial("a", attempts=2, reward_multipliers=(3.0,))
    assert env.observation_space == spaces.Dict(
        {"observation": image(), "context": spaces.Box(shape=(4,), **UNBOUNDED)}
    )
    found = steps_of(env, "a", [0, 1, 0, 1])
    for (observation, *_), shown in zip(found[:3], puppet.shown[:3], strict=True):
        np.testing.assert_array_equal(observation["observation"], shown)
    np.testing.assert_allclose(
        [row[0]["context"] for row in found], [[0, 0, 1, 0], *([i / 1000, i > 2, 1, 3] for i in range(1, 5))]
    )
    assert found[1][0]["context"].dtype == np.float32


def test_parts_are_padded_and_what_a_task_lacks_is_zero(suite):
    one = Puppet(spaces.Dict({"image": image(), "speed": vector(2), "tokens": tokens(3)}))
    two = Puppet(spaces.Dict({"speed": vector(5), "tokens": tokens(4, 20, np.uint8)}))
    three = Puppet(vector(2))
    suite({"one": one, "two": two, "three": three})
    env = trial("one", "two", "three", context_features=False)
    assert env.observation_space == spaces.Dict(
        {
            "image": image(),
            "speed": spaces.Box(shape=(5,), **UNBOUNDED),
            "tokens": spaces.Box(0, 20, (4,), np.int16),
            "observation": spaces.Box(shape=(2,), **UNBOUNDED),
        }
    )
    for name, puppet in (("one", one), ("two", two), ("three", three)):
        before = len(puppet.shown)
        for observation, *_ in steps_of(env, name, [0, 1]):
            shown = puppet.shown[before]
            shown = shown if isinstance(shown, dict) else {"observation": shown}
            before += 1
            for part, space in env.observation_space.items():
                expected = np.zeros(space.shape, space.dtype)
                if part in shown:
                    expected[tuple(map(slice, shown[part].shape))] = shown[part]
                np.testing.assert_array_equal(observation[part], expected)
                assert observation[part].dtype == space.dtype


def test_flat_observations_of_many_sizes_stay_one_vector(suite):
    suite({"a": Puppet(vector(2)), "b": Puppet(vector(5))})
    assert trial("a", "b").observation_space == spaces.Box(shape=(9,), **UNBOUNDED)


@pytest.mark.parametrize(
    ("first", "second", "error", "message"),
    [
        (image(4), image(5), ValueError, "images of one shape"),
        (image(), spaces.Dict({"observation": vector(3)}), ValueError, "images of one shape"),
        (spaces.Dict({"tokens": tokens(3, 2**40, np.int64)}), None, envs.UnsupportedSpaceError, "'tokens'.*2147483647"),
        (spaces.Dict({"who": spaces.Text(3)}), None, envs.UnsupportedSpaceError, "'who'.*FilterObservation"),
    ],
)
def test_observations_that_do_not_fit_are_named(suite, first, second, error, message):
    suite({"a": Puppet(first), "b": Puppet(second or first)})
    with pytest.raises(error, match=message):
        trial("a", "b")


def test_an_observation_size_is_for_flat_observations(suite):
    suite({"a": Puppet(image())})
    with pytest.raises(ValueError, match="observation_size 0 where"):
        envs.common_layout("puppets", ("a",), observation_size=4)


def test_a_nan_in_a_part_is_an_error(suite):
    puppet = Puppet(spaces.Dict({"image": image(), "speed": vector(2)}))
    puppet.observe = lambda: {"image": np.zeros((4, 4, 3), np.uint8), "speed": np.array([0, np.nan])}
    suite({"a": puppet})
    with pytest.raises(envs.NonFiniteError, match="task 'a'"):
        trial("a").reset(seed=0)


# masks


def test_masks_forbid_what_the_task_forbids_and_what_it_lacks(suite):
    masked = Puppet(spaces.Dict({"image": image(), "action_mask": mask(3)}), spaces.Discrete(3))
    free = Puppet(image(), spaces.Discrete(2))
    masked.observe = lambda: {"image": np.zeros((4, 4, 3), np.uint8), "action_mask": np.array([0, 1, 1], np.int8)}
    suite({"masked": masked, "free": free})
    env = trial("masked", "free")
    assert env.observation_space["action_mask"] == spaces.MultiBinary(3)
    assert [row[0]["action_mask"].tolist() for row in steps_of(env, "masked", [1])] == [[0, 1, 1]] * 2
    assert [row[0]["action_mask"].tolist() for row in steps_of(env, "free", [1])] == [[1, 1, 0]] * 2


def test_masks_of_several_choices_stand_side_by_side(suite):
    masked = Puppet(spaces.Dict({"image": image(), "action_mask": mask(5)}), spaces.MultiDiscrete([2, 3]))
    masked.observe = lambda: {"image": np.zeros((4, 4, 3), np.uint8), "action_mask": np.array([0, 1, 1, 0, 1])}
    wide = Puppet(image(), spaces.MultiDiscrete([4, 2, 3]))
    suite({"masked": masked, "wide": wide})
    env = trial("masked", "wide")
    shown = steps_of(env, "masked", [])[0][0]["action_mask"]
    # The task has no third part: there, one choice is left so that there is something to choose.
    assert shown.tolist() == [0, 1, 0, 0, 1, 0, 1, 1, 0, 0]
    assert steps_of(env, "wide", [])[0][0]["action_mask"].tolist() == [1, 1, 1, 1, 1, 1, 0, 1, 1, 1]


def test_numbers_have_no_mask(suite):
    suite({"a": Puppet(spaces.Dict({"image": image(), "action_mask": mask(2)}), spaces.Box(-1, 1, (2,)))})
    with pytest.raises(envs.UnsupportedSpaceError, match="with an action mask, got Box"):
        trial("a")


# actions


def test_numbers_are_rescaled_to_the_bounds(suite):
    bounded = spaces.Box(np.array([0.0, -3.0]), np.array([1.0, 5.0]), dtype=np.float64)
    plain = spaces.Box(-1, 1, (3,), np.float32)
    low, high = Puppet(vector(1), bounded), Puppet(vector(1), plain)
    suite({"bounded": low, "plain": high})
    env = trial("bounded", "plain")
    assert env.action_space == spaces.Box(-1, 1, (3,), np.float32)
    actions = [np.array(values, np.float32) for values in ([-1, -1, 0.3], [0, 1, 0], [7, -0.5, 0])]
    steps_of(env, "bounded", actions)
    np.testing.assert_allclose(low.actions, [[0, -3], [0.5, 5], [1, -1]])
    steps_of(env, "plain", actions)
    np.testing.assert_array_equal(high.actions, np.clip(actions, -1, 1))


def test_several_choices_are_padded(suite):
    small = Puppet(vector(1), spaces.MultiDiscrete([2, 3], start=[5, -1]), length=10_000)
    suite({"small": small, "wide": Puppet(vector(1), spaces.MultiDiscrete([4, 2, 3]))})
    env = trial("small", "wide")
    assert env.action_space == spaces.MultiDiscrete([4, 3, 3])
    found = steps_of(env, "small", [np.array([1, 2, 2])] + [np.array([3, 1, 0])] * 600)
    assert small.actions[0].tolist() == [6, 1]
    assert [row[0][3 + 0] for row in found[1:3]] == [1, 0]  # legal
    replaced = np.stack(small.actions[1:])
    assert (replaced[:, 1] == 0).all()
    # Binomial(600, 1 / 2): deviation 12; five of them.
    assert abs((replaced[:, 0] == 5).sum() - 300) < 61
    with pytest.raises(ValueError, match=r"expected actions \[3\] of MultiDiscrete\(\[4 3 3\]\)"):
        env.step(np.array([1, 3, 0]))


def test_binary_choices_are_padded(suite):
    small, large = Puppet(vector(1), spaces.MultiBinary(2)), Puppet(vector(1), spaces.MultiBinary(4))
    suite({"small": small, "large": large})
    env = trial("small", "large")
    assert env.action_space == spaces.MultiBinary(4)
    steps_of(env, "small", [np.array([1, 0, 1, 1])])
    steps_of(env, "large", [np.array([0, 1, 1, 1])])
    assert (small.actions[0].tolist(), large.actions[0].tolist()) == ([1, 0], [0, 1, 1, 1])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (spaces.Discrete(2), spaces.Box(-1, 1, (1,)), "one kind of action, got Box and Discrete"),
        (spaces.Box(-np.inf, 1, (1,)), None, "bounds on all sides"),
        (spaces.Text(3), None, "got Text"),
    ],
)
def test_actions_that_do_not_fit_are_named(suite, first, second, message):
    suite({"a": Puppet(vector(1), first), "b": Puppet(vector(1), second or first)})
    with pytest.raises(envs.UnsupportedSpaceError, match=message):
        trial("a", "b")


@pytest.mark.parametrize(
    ("space", "wrapper"),
    [
        (spaces.MultiBinary(3), lambda env: envs.PadBinary(env, 2)),
        (spaces.Box(-1, 1, (3,)), lambda env: envs.RescaleActions(env, 2)),
        (spaces.MultiDiscrete([3]), lambda env: envs.PadChoices(env, [2])),
        (spaces.MultiDiscrete([2, 2]), lambda env: envs.PadChoices(env, [2])),
    ],
)
def test_a_task_larger_than_all_is_an_error(space, wrapper):
    with pytest.raises(ValueError, match="expected at most"):
        wrapper(Puppet(vector(1), space))


def test_a_given_number_of_actions(suite):
    suite({"a": Puppet(vector(1), spaces.MultiBinary(2)), "b": Puppet(vector(1), spaces.MultiDiscrete([2]))})
    assert envs.common_layout("puppets", ("a",), actions=5).action == spaces.MultiBinary(5)
    with pytest.raises(ValueError, match="at most 1 actions, got 2"):
        envs.common_layout("puppets", ("a",), actions=1)
    with pytest.raises(ValueError, match="MultiDiscrete, got 3"):
        envs.common_layout("puppets", ("b",), actions=3)


# attempts, splits and tasks


@pytest.mark.parametrize("wrap", [lambda env: env, Wrapper])
def test_attempts_at_a_hidden_task_are_numbered(suite, wrap):
    hidden, plain = Hidden(vector(1), length=1), Puppet(vector(1), length=1)
    suite({"hidden": wrap(hidden), "plain": plain})
    env = trial("hidden", "plain", attempts=3)
    for _ in range(2):
        steps_of(env, "hidden", [0, 0, 0])
    steps_of(env, "plain", [0, 0, 0])
    assert hidden.options == [{"attempt": 0}, {"attempt": 1}, {"attempt": 2}] * 2
    assert plain.options == [None] * 3


def test_a_success_at_any_step_marks_its_attempt(suite):
    suite({"a": Puppet(vector(1), length=3, success={(0, 1), (2, 3)})})
    env = trial("a", attempts=4)
    found = steps_of(env, "a", [0] * 12)
    success = found[-1][4]["attempt_success"]
    assert (success.tolist(), success.dtype) == ([True, False, True, False], np.bool_)
    assert all(row[4] == {} for row in found[1:-1])
    assert not steps_of(env, "a", [0] * 12)[-1][4]["attempt_success"].any()


def test_the_split_and_images_are_asked_for(suite):
    puppet = Puppet(vector(1))
    puppet.render, puppet.render_mode = lambda: "picture", "rgb_array"
    calls = suite({"a": puppet}, splits=("train", "test"))
    env = trial("a", split="test", render=True)
    with pytest.raises(envs.registry.gym.error.ResetNeeded, match="before render"):
        env.render()
    env.reset(seed=0)
    assert env.render() == "picture"
    assert env.render_mode == "rgb_array"
    assert calls == [("a", "test", False), ("a", "test", True)]
    with pytest.raises(envs.UnknownEnvironmentError, match="a split of 'puppets', train or test, got 'valid'"):
        trial("a", split="valid")


def test_one_task_speaks_for_uniform_ones(suite):
    calls = suite({"a": Puppet(image()), "b": Puppet(image())}, uniform=True)
    trial("a", "b")
    assert [task for task, _, _ in calls] == ["a"]


def test_an_open_ended_suite_makes_what_it_does_not_list(suite):
    suite({"a": Puppet(vector(1))}, open_ended=True)
    with pytest.raises(envs.BrokenEnvironmentError, match="puppets task 'b' raised KeyError in `__init__`"):
        envs.make_task("puppets", "b")


def test_only_some_tasks_may_be_drawn(suite):
    suite({name: Puppet(vector(1)) for name in "abc"})
    env = trial("a", "b", "c", plays=(0, 2))
    drawn = {env.reset(seed=seed)[1]["task"] for seed in range(20)}
    assert drawn == {0, 2}


@pytest.mark.parametrize(
    "action_space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3), spaces.Box(-1, 1, (2,))]
)
def test_vector_rows_of_parts_equal_single_trials(suite, monkeypatch, action_space):
    space = spaces.Dict({"image": image(), "speed": vector(2)})
    suite({"a": Puppet(space)})
    make = lambda task, split, render=False: Puppet(space, action_space)  # noqa: E731
    monkeypatch.setitem(registry._SUITES, "puppets", envs.Suite("puppets", "", (), "", ("a",), make))
    many = envs.make_vector("puppets", ("a",), environments=3)
    single = trial("a")
    many.action_space.seed(0)
    observations, _ = many.reset(seed=[5, 6, 7])
    observation, _ = single.reset(seed=6)
    for _ in range(2):
        actions = many.action_space.sample()
        np.testing.assert_equal({name: part[1] for name, part in observations.items()}, observation)
        observations, rewards, *_ = many.step(actions)
        observation, reward, *_ = single.step(actions[1])
        assert rewards[1] == reward
    assert many.observation_space.contains(observations)
