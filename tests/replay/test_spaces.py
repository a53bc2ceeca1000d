"""Schemas from gymnasium's spaces, and steps as its environments give them."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from twohot.replay import Field, Replay, Schema
from twohot.replay.spaces import cast_array

NUMBERS = spaces.Box(-1, 1, (3,), np.float32)
CHOICE = spaces.Discrete(4)
LARGEST = np.finfo(np.float32).max


def replay_of(schema: Schema) -> Replay:
    return Replay.create(schema, capacity_steps=10_000)


# Schemas


@pytest.mark.parametrize(
    ("space", "fields"),
    [
        (NUMBERS, {"observation": Field("float32", (3,))}),
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), {"observation": Field("uint8", (8, 8, 3))}),
        (CHOICE, {"observation": Field("int64")}),
        (spaces.MultiDiscrete([2, 3]), {"observation": Field("int64", (2,))}),
        (spaces.MultiBinary([2, 3]), {"observation": Field("int8", (2, 3))}),
        (spaces.Tuple((CHOICE, NUMBERS)), {"0": Field("int64"), "1": Field("float32", (3,))}),
        (
            spaces.Dict({"arm": spaces.Dict({"a": NUMBERS, "b": spaces.Tuple((CHOICE,))}), "goal": NUMBERS}),
            {"arm/a": Field("float32", (3,)), "arm/b/0": Field("int64"), "goal": Field("float32", (3,))},
        ),
    ],
)
def test_a_schema_is_what_the_spaces_are(space: gym.Space, fields: dict[str, Field]) -> None:
    schema = Schema.from_spaces(space, CHOICE, step={"value": Field("float32")})
    assert schema == Schema(fields, Field("int64"), {"value": Field("float32")})
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        assert Schema.from_spaces(NUMBERS, space).action == fields["observation"]


@pytest.mark.parametrize(
    "space", [spaces.Text(3), spaces.Sequence(NUMBERS), spaces.Graph(NUMBERS, None), spaces.OneOf((NUMBERS, CHOICE))]
)
def test_spaces_without_arrays_are_refused_by_name(space: gym.Space) -> None:
    with pytest.raises(ValueError, match=f"observation 'observation': expected Box, .* got {type(space).__name__}"):
        Schema.from_spaces(space, CHOICE)
    with pytest.raises(ValueError, match=f"observation 'say/0': expected Box, .* got {type(space).__name__}"):
        Schema.from_spaces(spaces.Dict({"say": spaces.Tuple((space,)), "x": NUMBERS}), CHOICE)
    with pytest.raises(ValueError, match="action: expected Box"):
        Schema.from_spaces(NUMBERS, space)


def test_what_cannot_be_columns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"action: expected Box, .* got Tuple"):
        Schema.from_spaces(NUMBERS, spaces.Tuple((CHOICE, CHOICE)))
    with pytest.raises(ValueError, match=r"observation 'x': shape: expected extents of at least 1, got \(0,\)"):
        Schema.from_spaces(spaces.Dict({"x": spaces.Box(-1, 1, (0,))}), CHOICE)
    twice = spaces.Dict({"a/b": NUMBERS, "a": spaces.Dict({"b": CHOICE})})
    with pytest.raises(ValueError, match="observation: expected parts of different names, got a/b, a/b"):
        Schema.from_spaces(twice, CHOICE)


def test_what_is_no_space_is_refused(monkeypatch) -> None:
    with pytest.raises(TypeError, match=r"observation: expected a space of gymnasium, such as .*; got \(3,\)"):
        Schema.from_spaces((3,), CHOICE)
    with pytest.raises(TypeError, match=r"action: expected a space of gymnasium, such as .*; got 4"):
        Schema.from_spaces(NUMBERS, 4)
    monkeypatch.delitem(sys.modules, "gymnasium")
    with pytest.raises(TypeError, match="observation: expected a space of gymnasium"):
        Schema.from_spaces(NUMBERS, CHOICE)


# Loops without a line that converts


@pytest.mark.parametrize(
    "name", ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "FrozenLake-v1", "Blackjack-v1"]
)
def test_a_plain_loop_needs_no_conversion(name: str) -> None:
    env = gym.make(name)
    env.action_space.seed(0)
    replay = replay_of(Schema.from_spaces(env.observation_space, env.action_space))
    writer = replay.writer(1, cast=True)
    observation, _ = env.reset(seed=0)
    writer.begin(observation)
    seen: list[list[Any]] = [[observation]]
    steps: list[list[tuple[Any, ...]]] = [[]]
    for _ in range(250):
        action = env.action_space.sample()
        observation, reward, terminated, truncated, _ = env.step(action)
        writer.append(action, reward, terminated, truncated, observation)
        seen[-1].append(observation)
        steps[-1].append((action, reward, terminated, truncated))
        if terminated or truncated:
            observation, _ = env.reset()
            writer.begin(observation)
            seen.append([observation])
            steps.append([])
    writer.cut()
    assert len(replay) == sum(map(bool, steps))
    for trajectory, observations, taken in zip(replay.ids(), seen, steps, strict=False):
        stored = replay.get(trajectory)
        action, reward, terminated, _ = zip(*taken, strict=True)
        assert stored["action"].tolist() == np.array(action, stored["action"].dtype).tolist()
        assert stored["reward"].tolist() == np.array(reward, np.float32).tolist()
        assert stored["terminated"].tolist() == list(map(bool, terminated))
        parts = zip(*observations, strict=True) if isinstance(observations[0], tuple) else [observations]
        for (part, array), values in zip(stored["observation"].items(), parts, strict=True):
            assert array.tolist() == np.array(values, replay.schema.observation[part].dtype).tolist()


def test_a_loop_over_a_vector_needs_no_conversion() -> None:
    how = {"autoreset_mode": AutoresetMode.DISABLED}
    envs = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync", vector_kwargs=how)
    replay = replay_of(Schema.from_spaces(envs.single_observation_space, envs.single_action_space))
    writer = replay.writer(3)
    envs.action_space.seed(0)
    observation, _ = envs.reset(seed=0)
    writer.begin(observation, cast=True, task=[0, 1, 2])
    for _ in range(100):
        action = envs.action_space.sample()
        observation, reward, terminated, truncated, _ = envs.step(action)
        assert reward.dtype == np.float64
        writer.append(action, reward, terminated, truncated, observation, cast=True)
        ended = terminated | truncated
        if ended.any():
            observation, _ = envs.reset(options={"reset_mask": ended})
            writer.begin(observation, mask=ended.tolist(), task=(1, 2, 3), cast=True)
    assert len(replay) > 5
    assert replay.lengths().tolist() == replay.returns().tolist()
    assert set(replay.tasks().tolist()) == {0, 1, 2, 3}


def test_nested_observations_and_step_fields_are_cast() -> None:
    space = spaces.Dict({"arm": spaces.Dict({"at": NUMBERS}), "two": spaces.Tuple((CHOICE, spaces.MultiBinary(2)))})
    schema = Schema.from_spaces(space, CHOICE, step={"value": Field("float32"), "legal": Field("bool", (2,))})
    replay = replay_of(schema)
    writer = replay.writer(1, cast=True)
    seen = {"arm": {"at": [1.5, 2, 3]}, "two": (3, [True, False])}
    writer.begin(seen)
    writer.append(2, 1, False, np.True_, seen, step={"value": torch.tensor(0.25), "legal": [1, 0]})
    stored = replay.get(0)
    assert {name: array[1].tolist() for name, array in stored["observation"].items()} == {
        "arm/at": [1.5, 2.0, 3.0],
        "two/0": 3,
        "two/1": [1, 0],
    }
    assert (stored["action"].tolist(), stored["reward"].tolist()) == ([2], [1.0])
    assert (stored["step"]["value"].tolist(), stored["step"]["legal"].tolist()) == ([0.25], [[True, False]])
    writer.begin(seen)
    with pytest.raises(ValueError, match="arm/at"):
        writer.append(2, 1, False, False, {"arm": {}, "two": (3, [True, False])})


# Values


@pytest.mark.parametrize(
    ("value", "dtype", "shape", "expected"),
    [
        (1.1, "float32", (1,), [np.float32(1.1)]),
        (np.float64(1e-50), "float32", (1,), [0.0]),
        (np.array([1.1, np.nan, np.inf, -np.inf]), "float32", (4,), [np.float32(1.1), np.nan, np.inf, -np.inf]),
        (2**24, "float32", (1,), [2.0**24]),
        (True, "float32", (1,), [1.0]),
        (np.float16(0.5), "float64", (1,), [0.5]),
        ([1, 2], "int8", (2,), [1, 2]),
        (np.uint64(7), "int64", (1,), [7]),
        (True, "int64", (1,), [1]),
        (False, "bool", (1,), [False]),
        (np.bool_(True), "bool", (1,), [True]),
        (np.array([0, 1], np.int8), "bool", (2,), [False, True]),
        (torch.tensor([[1, 2]]), "uint8", (1, 2), [[1, 2]]),
        (np.arange(4)[::2], "int64", (2,), [0, 2]),
        (np.arange(6.0).reshape(2, 3).T, "float32", (3, 2), [[0, 3], [1, 4], [2, 5]]),
        (np.array([3, 4], ">i4"), "int32", (2,), [3, 4]),
    ],
)
def test_safe_values_are_cast(value: Any, dtype: str, shape: tuple[int, ...], expected: list) -> None:
    array = cast_array("it", value, dtype, shape)
    assert (array.dtype, array.shape) == (dtype, shape)
    assert array.flags.c_contiguous
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("value", "dtype", "shape", "message"),
    [
        (2 * float(LARGEST), "float32", (1,), "expected numbers within float32, got 6.8"),
        (70000.0, "float16", (1,), "expected numbers within float16, got 70000"),
        (2**24 + 1, "float32", (1,), "expected numbers that float32 holds exactly, got 16777217"),
        (1.0, "int64", (1,), "expected integers of int64, got float64"),
        (128, "int8", (1,), "expected integers of int8, got 128 to 128"),
        (-1, "uint8", (1,), "expected integers of uint8, got -1 to -1"),
        (2, "bool", (1,), r"expected bools, or integers 0 and 1; got int64: \[2\]"),
        (1.0, "bool", (1,), "expected bools, or integers 0 and 1; got float64"),
        (None, "float32", (1,), "expected real numbers, got ndarray of object"),
        ("1", "float32", (1,), "expected real numbers"),
        (1j, "float32", (1,), "expected real numbers"),
        ([[1.0], [1.0, 2.0]], "float32", (2,), "expected what numpy can read, got list"),
        (1.0, "float32", (2,), r"expected the shape \(2,\), got \(\)"),
        ([[1.0]], "float32", (1,), r"expected the shape \(1,\), got \(1, 1\)"),
        ([1.0, 2.0], "float32", (2, 2), r"expected the shape \(2, 2\), got \(2,\)"),
    ],
)
def test_unsafe_values_are_refused(value: Any, dtype: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^it: {message}"):
        cast_array("it", value, dtype, shape)


def test_what_is_an_array_of_the_schema_already_is_not_copied() -> None:
    array = np.zeros((2, 3), np.float32)
    assert cast_array("it", array, "float32", (2, 3)) is array


# Arrays without cast, as ever


def test_without_cast_an_error_says_where_it_would_help() -> None:
    replay = replay_of(Schema.from_spaces(NUMBERS, CHOICE))
    writer = replay.writer(2)
    with pytest.raises(ValueError, match=r"float32 array of shape .* got float64 .*; cast=True converts it$"):
        writer.begin({"observation": np.zeros((2, 3))})
    writer.begin({"observation": np.zeros((2, 3), np.float32)})
    step = [np.zeros(2, np.int64), np.zeros(2, np.float32), np.zeros(2, bool), np.zeros(2, bool)]
    seen = {"observation": np.zeros((2, 3), np.float32)}
    with pytest.raises(TypeError, match=r"reward: .* got list; cast=True converts it$"):
        writer.append(step[0], [1, 1], *step[2:], seen)
    with pytest.raises(TypeError, match=r"reward: .* got float$"):  # no cast makes two rewards of one
        writer.append(step[0], 1.0, *step[2:], seen)
    with pytest.raises(ValueError, match="reward") as caught:  # of an array as it has to be
        writer.append(step[0], np.full(2, np.nan, np.float32), *step[2:], seen)
    assert "cast" not in str(caught.value)
    with pytest.raises(TypeError, match="cast: expected True or False, got 'yes'"):
        replay.writer(2, cast="yes")
    loose = replay.writer(2, cast=True)
    loose.begin(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="got float64"):
        loose.append(step[0], np.zeros(2), *step[2:], seen, cast=False)


def test_a_failed_cast_changes_nothing() -> None:
    replay = replay_of(Schema.from_spaces(NUMBERS, CHOICE))
    writer = replay.writer(1, cast=True)
    writer.begin([0, 0, 0])
    with pytest.raises(ValueError, match=r"observation 'observation': expected the shape \(1, 3\), got \(2,\)"):
        writer.append(0, 0.0, True, False, [1, 1])
    writer.append(3, 5, True, False, [1, 1, 1])
    assert replay.get(0)["observation"]["observation"].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_the_length_of_a_replay_is_its_trajectories() -> None:
    replay = replay_of(Schema.from_spaces(NUMBERS, CHOICE))
    assert len(replay) == 0
    assert replay
    writer = replay.writer(2, cast=True)
    writer.begin(np.zeros((2, 3)))
    assert len(replay) == 0
    for end in (False, True):
        writer.append([0, 1], [0, 0], [end, False], [False, end], np.zeros((2, 3)))
    assert len(replay) == len(replay.ids()) == 2
    assert replay.stats().steps == 4
