"""What an agent is given is taken exactly or refused, and a refusal leaves its memory as it was."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from gymnasium import spaces

import small
from twohot import Agent
from twohot.agent import AgentNetworks
from twohot.errors import TwohotError
from twohot.exact import exact_array
from twohot.inference.agent import ActingError
from twohot.inference.analysis import TrajectoryError

SPACE = spaces.Dict(
    {
        "numbers": spaces.Box(-np.inf, np.inf, (3,), np.float32),
        "image": spaces.Box(0, 255, (16, 16, 3), np.uint8),
        "tokens": spaces.Box(0, 300, (4,), np.int16),
        "action_mask": spaces.MultiBinary(5),
    }
)
LARGEST = float(np.finfo(np.float32).max)
ROWS = 2


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    config = replace(small.AGENT, context=8, excluded_keys=("action_mask",))
    return AgentNetworks(config, SPACE, spaces.Discrete(5)).eval()


@pytest.fixture
def agent(networks):
    """In the third step of two trials."""
    made = Agent(networks, small.CONFIG)
    made.reset(ROWS)
    made.act(shown())
    made.act(shown(), np.ones(ROWS))
    return made


def shown(rows=ROWS, **other):
    """An observation of zeros, with some parts replaced."""
    parts = {name: np.zeros((rows, *part.shape), part.dtype) for name, part in SPACE.items()}
    return {**parts, "action_mask": np.ones((rows, 5), np.int8), **other}


def seen(agent, name, value):
    """What the networks see of a part."""
    return agent._seen(shown(**{name: value}))[name].numpy()


IMAGE = np.random.default_rng(0).integers(0, 256, (ROWS, 16, 16, 3), np.uint8)
NUMBERS = np.arange(6.0).reshape(ROWS, 3)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(
            ("numbers", NUMBERS.astype(dtype), NUMBERS)
            for dtype in ("f2", "f4", "f8", ">f4", "i1", "i8", "u8", "O")[:-1]
        ),
        ("numbers", NUMBERS.tolist(), NUMBERS),
        ("numbers", torch.from_numpy(NUMBERS), NUMBERS),
        ("numbers", NUMBERS > 2, NUMBERS > 2),
        ("numbers", np.full((ROWS, 3), 2**24 - 1), np.full((ROWS, 3), 2**24 - 1)),
        ("numbers", np.full((ROWS, 3), -(2**60)), np.full((ROWS, 3), -(2.0**60))),
        ("numbers", np.full((ROWS, 3), 0.1), np.full((ROWS, 3), np.float32(0.1))),
        ("numbers", np.broadcast_to(NUMBERS[0], (ROWS, 3)), [NUMBERS[0]] * ROWS),
        ("numbers", NUMBERS[::-1], NUMBERS[::-1]),
        ("image", IMAGE, IMAGE),
        ("image", IMAGE.astype(np.int64), IMAGE),
        ("image", torch.from_numpy(IMAGE), IMAGE),
        ("image", np.broadcast_to(IMAGE[:1], IMAGE.shape), IMAGE[[0, 0]]),
        ("tokens", np.full((ROWS, 4), 300), np.full((ROWS, 4), 300)),
        ("action_mask", np.eye(5, dtype=bool)[:ROWS], np.eye(5)[:ROWS]),
        ("action_mask", np.eye(5, dtype=np.int64)[:ROWS], np.eye(5)[:ROWS]),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_numbers_are_taken_exactly(agent, name, value, expected):
    found = seen(agent, name, value)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == SPACE[name].dtype
    assert agent.act(shown(**{name: value}), np.ones(ROWS)).shape == (ROWS,)


FLOATS = "expected integers of uint8, got float"
REFUSED = [
    *(("numbers", np.where(NUMBERS == 4, bad, 0), "expected finite numbers") for bad in (np.nan, np.inf, 1e39, -1e300)),
    ("numbers", np.full((ROWS, 3), 2**24 + 1), "expected numbers that float32 holds exactly, got 16777217"),
    ("numbers", np.full((ROWS, 3), 2**60 + 1), "expected numbers that float32 holds exactly, got 1152921504606846977"),
    ("numbers", NUMBERS.astype(complex), "expected real numbers"),
    ("numbers", NUMBERS.astype(object), "expected real numbers"),
    ("numbers", NUMBERS.astype(str), "expected real numbers"),
    ("numbers", [[1.0, 2.0, 3.0], [1.0]], "expected what numpy can read, got list"),
    ("numbers", None, "expected real numbers"),
    ("numbers", np.ma.masked_array(NUMBERS, NUMBERS > 2), "expected real numbers, got MaskedArray"),
    ("numbers", torch.ones(ROWS, 3, dtype=torch.bfloat16), "numpy can read, got Tensor"),
    ("numbers", torch.ones(ROWS, 3, device="meta"), "numpy can read, got Tensor"),
    *(("numbers", np.zeros(shape), r"expected the shape \(2, 3\)") for shape in ((), (3,), (1, 3), (2, 2), (2, 3, 1))),
    ("image", (IMAGE / 255).astype(np.float32), rf"{FLOATS}32: an image in \[0, 1\] is \(255 \* image\)"),
    ("image", IMAGE.astype(np.float32), FLOATS),
    ("image", np.full(IMAGE.shape, np.nan), FLOATS),
    ("image", IMAGE.astype(np.int64) + 256, "expected integers of uint8, got 25[6-9] to 511"),
    ("image", IMAGE.astype(np.int64) - 1, "got -1 to 254"),
    ("image", IMAGE > 100, "expected integers of uint8, got bool"),
    ("image", np.moveaxis(IMAGE, -1, 1), "expected the shape"),
    ("tokens", np.full((ROWS, 4), 2**15), "expected integers of int16"),
    ("tokens", np.zeros((ROWS, 4)), "expected integers of int16, got float64"),
    ("action_mask", np.full((ROWS, 5), 2), "expected 0 or 1 in each entry"),
    ("action_mask", np.ones((ROWS, 5)), "expected integers of int8, got float64"),
    ("action_mask", np.ones((ROWS, 4), bool), r"expected the shape \(2, 5\), got \(2, 4\)"),
]


def memory(agent):
    state = agent._state
    kept = {name: value for name, value in vars(state.cache).items() if isinstance(value, torch.Tensor)}
    assert kept
    return copy.deepcopy((kept, state.time, agent._action, agent._began, agent._generator.get_state()))


def check_refused(agent, message, *given, error=ActingError, **options):
    before = memory(agent)
    with pytest.raises(error, match=message) as told:
        agent.act(*given, **options)
    assert isinstance(told.value, TwohotError)
    assert isinstance(told.value, ValueError)
    torch.testing.assert_close(memory(agent), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "value", "message"), REFUSED, ids=[f"{name} {what[:40]}" for name, _, what in REFUSED]
)
def test_what_would_have_to_be_changed_is_refused(agent, name, value, message):
    check_refused(
        agent, f"act: observation '{name}' of 2 environments: .*{message}", shown(**{name: value}), np.ones(ROWS)
    )


@pytest.mark.parametrize(
    "reward", [np.ones(2, bool), [1, 2], torch.ones(2), np.array([1.5, LARGEST]), np.float16([1, 2])]
)
def test_rewards(agent, reward):
    np.testing.assert_array_equal(agent._rewarded(reward), np.float32(np.asarray(reward)))
    agent.reset(where=[True, False])
    np.testing.assert_array_equal(agent._rewarded(reward), np.float32(np.asarray(reward)) * [0, 1])


@pytest.mark.parametrize(
    "reward",
    [
        *(np.ones((2, 1)), np.ones(3), 1.0, [1.0, np.nan], [1.0, np.inf], [1e39, 0.0], [1.0, None], ["1", "2"]),
        *([1j, 1.0], torch.ones(2, device="meta"), [[1.0], [1.0, 2.0]], None),
    ],
    ids=str,
)
def test_rewards_that_do_not_fit(agent, reward):
    check_refused(agent, "act: .*reward", shown(), reward)


def test_names_of_parts(agent):
    for observation in (
        {name: part for name, part in shown().items() if name != "image"},
        {**shown(), "extra": np.zeros((ROWS, 1))},
        {("image1" if name == "image" else name): part for name, part in shown().items()},
        {**shown(), 3: np.zeros((ROWS, 1))},
        np.zeros((ROWS, 3)),
        None,
    ):
        check_refused(
            agent, r"expected observations \['action_mask', 'image', 'numbers', 'tokens'\]", observation, [0, 0]
        )
    assert agent.act(MappingProxyType(shown()), np.ones(ROWS)).shape == (ROWS,)


@pytest.mark.parametrize("where", [[0, 1], [1.0, 0.0], [True], [[True], [False]], "ab", [True, None], [[True], []], 1])
def test_masks_of_rows(agent, where):
    before = memory(agent)
    with pytest.raises(ActingError, match="reset: expected `where` bool"):
        agent.reset(where=where)
    torch.testing.assert_close(memory(agent), before, rtol=0, atol=0)
    agent.reset(where=torch.tensor([True, False]))
    assert agent._state.time.tolist() == [0, 2]


@pytest.mark.parametrize("environments", [0, -1, 2.0, "2", np.ones(2, bool)])
def test_numbers_of_environments(agent, environments):
    with pytest.raises(ActingError, match="expected a whole number of environments"):
        agent.reset(environments)
    agent.reset(np.int64(3))
    assert agent.act(shown(3)).shape == (3,)


def test_legal_actions_are_taken_and_where_there_are_none_all_are(agent):
    mask = np.zeros((ROWS, 5), bool)
    mask[0, 3] = True
    played = [agent.act(shown(action_mask=mask), np.ones(ROWS)) for _ in range(40)]
    assert {action[0] for action in played} == {3}
    assert len({action[1] for action in played}) > 1


def test_given_arrays_are_neither_changed_nor_kept(agent):
    given, reward = shown(numbers=NUMBERS.astype(np.float32), image=IMAGE.copy()), np.ones(ROWS, np.float32)
    before = copy.deepcopy(given)
    action = agent.act(given, reward)
    np.testing.assert_equal(given, before)
    state = memory(agent)
    for array in (*given.values(), reward, action):
        array[:] = 0
    torch.testing.assert_close(memory(agent), state, rtol=0, atol=0)


def trajectory(length=4, **other):
    observation = {name: np.zeros((length + 1, *part.shape), part.dtype) for name, part in SPACE.items()}
    observation |= {name: other.pop(name) for name in tuple(other) if name in observation}
    return {"observation": observation, "action": np.arange(length), "reward": np.ones(length), **other}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"action": np.array([0, 1, 2, 5])}, r"expected actions of Discrete\(5\), got 0 to 5"),
        ({"action": np.array([0, 1, 2, -1])}, "got -1 to 2"),
        ({"action": np.ones(4)}, "'action': expected integers of int64, got float64"),
        ({"action": np.ones((4, 1), int)}, "expected 'action' of shape"),
        ({"action": np.zeros(0, int)}, "expected at least 1 rows of 'action', got 0"),
        ({"action": 3}, "expected at least 1 rows of 'action', got 0"),
        ({"reward": np.array([1, 1, np.nan, 1])}, "'reward': expected finite numbers"),
        ({"reward": np.ones((4, 1))}, "expected 'reward' of shape"),
        ({"reward": np.ones(3)}, "expected at least 4 rows of 'reward', got 3"),
        ({"image": np.zeros((5, 16, 16, 3))}, "'image': expected integers of uint8, got float64"),
        ({"numbers": np.zeros((5, 2))}, r"expected 'numbers' of shape \(5, 3\), got \(5, 2\)"),
        ({"numbers": np.full((5, 3), np.inf)}, "'numbers': expected finite numbers"),
        ({"observation": {"numbers": np.zeros((5, 3))}}, "expected 'action_mask' in it"),
    ],
)
def test_trajectories_that_do_not_fit(networks, given, message):
    agent = Agent(networks, small.CONFIG)
    assert agent.get_values([trajectory()])[0].action.shape[0] == 4
    with pytest.raises(TrajectoryError, match=f"trajectory 1: .*{message}"):
        agent.get_values([trajectory(), trajectory(**given)])
    with pytest.raises(TrajectoryError, match="expected 'reward' in it"):
        agent.get_values([{name: part for name, part in trajectory().items() if name != "reward"}])
    with pytest.raises(ValueError, match="at least 1 sample"):
        agent.get_values([trajectory()], samples=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (trajectory(), "expected a list of trajectories, got one dict"),
        ("abc", "got one str"),
        ([5], "trajectory 0: .*got a int"),
    ],
)
def test_what_is_no_list_of_trajectories(networks, given, message):
    with pytest.raises(TrajectoryError, match=message):
        Agent(networks, small.CONFIG).get_values(given)


def test_what_fits_is_not_copied():
    array = np.zeros((2, 3), np.float32)
    assert exact_array(array, np.float32) is array
    assert exact_array(np.zeros((2, 3), np.uint8), np.uint8, (2, 3)).shape == (2, 3)
