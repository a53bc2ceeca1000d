"""Spaces as replay columns and as JSON, and actions as inputs of a layer."""

import json

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text

from small_spaces import flat
from twohot.data.rollout import UniformPolicy, seeded_generator
from twohot.nets.actions import ActionLinear
from twohot.replay import Field
from twohot.rl.exploration import random_choices
from twohot.spaces import (
    SpaceError,
    as_dict_space,
    check_action_space,
    replay_schema,
    space_from_json,
    space_to_json,
)

ACTIONS = [Discrete(4), MultiDiscrete([2, 3, 4]), MultiBinary(5), Box(-1, 1, (3,))]


def test_a_box_is_the_observation():
    assert as_dict_space(flat(3)["observation"]) == flat(3)
    assert as_dict_space(flat(3)) == flat(3)
    with pytest.raises(SpaceError, match="observation 'text'"):
        as_dict_space(Dict({"text": Text(3)}))
    with pytest.raises(SpaceError, match="with entries"):
        as_dict_space(Box(0, 1, (0,)))


@pytest.mark.parametrize(
    ("space", "field"),
    list(
        zip(ACTIONS, [Field("int32"), Field("int32", (3,)), Field("int8", (5,)), Field("float32", (3,))], strict=True)
    ),
)
def test_columns_of_a_replay(space, field):
    check_action_space(space)
    observation = Dict({"image": Box(0, 255, (4, 4, 3), np.uint8), "mask": MultiBinary(2)})
    schema = replay_schema(observation, space)
    assert schema.action == field
    assert dict(schema.observation) == {"image": Field("uint8", (4, 4, 3)), "mask": Field("int8", (2,))}


@pytest.mark.parametrize("space", ACTIONS)
def test_action_spaces_survive_json(space):
    assert space_from_json(json.loads(json.dumps(space_to_json(space))), action=True) == space


def test_observation_spaces_survive_json_without_bounds():
    space = Dict({"image": Box(0, 255, (4, 4, 3), np.uint8), "x": Box(-2, 7, (2,)), "mask": MultiBinary(2)})
    found = space_from_json(json.loads(json.dumps(space_to_json(space))))
    assert found["image"] == space["image"]
    assert found["mask"] == space["mask"]
    assert found["x"] == Box(-np.inf, np.inf, (2,))
    with pytest.raises(SpaceError, match="got 'Text'"):
        space_from_json({"kind": "Text"})
    with pytest.raises(SpaceError, match="expected Box"):
        space_to_json(Text(3))


@pytest.mark.parametrize("space", ACTIONS)
def test_a_uniform_policy_plays_the_whole_space(space):
    policy = UniformPolicy(space)
    actions = policy.act(None, {}, None, torch.zeros(400), generator=seeded_generator(0, 0)).numpy()
    assert actions.shape == (400, *space.shape)
    assert all(space.contains(action.astype(space.dtype)) for action in actions)
    for part in actions.reshape(400, -1).T:
        if isinstance(space, Box):
            assert np.histogram(part, 4, (-1, 1))[0].min() > 60
        else:
            assert np.unique(part, return_counts=True)[1].min() > 60
    counts = {"Discrete": [4], "MultiDiscrete": [2, 3, 4], "MultiBinary": [2] * 5, "Box": [400] * 3}
    found = [len(np.unique(part)) for part in actions.reshape(400, -1).T]
    assert found == counts[type(space).__name__]


def vector(space, action):
    """The action as the vector that a linear layer would read."""
    if isinstance(space, Discrete):
        return np.eye(space.n)[action]
    if isinstance(space, MultiDiscrete):
        return np.concatenate([np.eye(n)[a] for n, a in zip(space.nvec, action, strict=True)])
    return np.asarray(action, np.float64)


@pytest.mark.parametrize("space", ACTIONS)
def test_an_action_layer_is_a_linear_layer_over_the_vector(space):
    torch.manual_seed(0)
    layer = ActionLinear(space, 6, 0.5).double()
    actions = [[space.sample() for _ in range(4)] for _ in range(2)]
    vectors = torch.as_tensor(np.array([[vector(space, action) for action in row] for row in actions]))
    expected = vectors @ layer.table
    assert torch.allclose(layer(torch.as_tensor(np.array(actions))), expected)
    assert torch.allclose(layer.relaxed(vectors), expected)
    entries = {"Discrete": 1, "MultiDiscrete": 3, "MultiBinary": 5, "Box": 3}[type(space).__name__]
    assert 0.3 < layer.table.abs().max().item() * entries**0.5 <= 0.5 + 1e-6


def test_random_bits_stay_where_they_are_legal():
    space, rows = MultiBinary(4), 200
    mask = np.tile(np.array([1, 0, 1, 0], np.int8), (rows, 1))
    seen = {"action_mask": torch.from_numpy(mask)}
    drawn = UniformPolicy(space).act(None, seen, None, torch.zeros(rows), generator=seeded_generator(0, 0)).numpy()
    for bits in (drawn, random_choices(space, np.random.default_rng(0), rows, mask)):
        assert bits.shape == (rows, 4)
        assert bits.mean(0)[[1, 3]].tolist() == [0, 0]
        assert (np.abs(bits.mean(0)[[0, 2]] - 0.5) < 0.2).all()
