"""Timestep encoders of grids, tokens and dicts of anything, against explicit formulas in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from compare import assert_accurate
from network_formulas import convolution, gru_states, integers, layer_norm, leaky_relu, linear, normal, perturb
from perturbation import DEVIATIONS, in_float64
from small import AGENT
from twohot.agent import AgentNetworks
from twohot.nets.grids import GridEncoder
from twohot.nets.images import RandomShift
from twohot.nets.timestep import TimestepEncoder, kind_of
from twohot.nets.tokens import TokenEncoder
from twohot.spaces import SpaceError

IMAGE = Box(0, 255, (16, 15, 3), np.uint8)
GRID = Box(0, 255, (3, 4, 2), np.uint8)
TOKENS = Box(0, 30, (6,), np.int16)
VECTOR = Box(-np.inf, np.inf, (3,), np.float32)
EVERYTHING = Dict(
    {
        "vector": VECTOR,
        "camera": IMAGE,
        "grid": GRID,
        "tokens_goal": TOKENS,
        "switches": MultiBinary(4),
        "matrix": Box(-1, 1, (2, 2), np.float64),
        "context": Box(-np.inf, np.inf, (4,), np.float32),
        "action_mask": MultiBinary(5),
    }
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def observations(space, *leading, seed=0):
    """Random entries of a Dict space, each [*leading, *shape]."""
    found = {}
    for index, (name, part) in enumerate(space.items()):
        shape = (*leading, *part.shape)
        if isinstance(part, MultiBinary):
            found[name] = integers(2, *shape, seed=seed + index, dtype=torch.int8)
        elif np.issubdtype(part.dtype, np.integer):
            dtype = getattr(torch, str(part.dtype))
            found[name] = integers(min(30, int(part.high.max()) + 1), *shape, seed=seed + index, dtype=dtype)
        else:
            found[name] = normal(*shape, seed=seed + index, dtype=getattr(torch, str(part.dtype)))
    return found


def inputs(space, *leading, seed=0, actions=5):
    """Observation, previous action, previous reward and time of windows."""
    time = torch.arange(leading[-1]).expand(leading)
    return (
        observations(space, *leading, seed=seed),
        integers(actions, *leading, seed=seed + 50),
        10 * normal(*leading, seed=seed + 51),
        time,
    )


def encoder(space=EVERYTHING, **options):
    return TimestepEncoder(space, Discrete(5), hidden=8, layers=2, width=6, **options)


# What an entry is


@pytest.mark.parametrize(
    ("name", "space", "kind"),
    [
        ("observation", IMAGE, "image"),
        ("observation", VECTOR, "vector"),
        ("grid_map", GRID, "grid"),
        ("grid", Box(0, 9, (5, 5, 1), np.int32), "grid"),
        ("map", GRID, "image"),
        ("tokens", TOKENS, "tokens"),
        ("tokens_mission", Box(0, 200, (9,), np.uint8), "tokens"),
        ("words", TOKENS, "vector"),
        ("volume", Box(-1, 1, (3, 4, 5), np.float32), "vector"),
        ("ram", Box(0, 255, (128,), np.uint8), "vector"),
        ("switches", MultiBinary(3), "vector"),
    ],
)
def test_entries_are_read_by_name_shape_and_dtype(name, space, kind):
    assert kind_of(name, space) == kind


@pytest.mark.parametrize(
    ("name", "space", "message"),
    [
        ("grid", Box(0, 1, (3, 3, 1), np.float32), "'grid': expected a grid of integers"),
        ("grid", Box(0, 9, (3, 3), np.uint8), "'grid': expected a grid of integers"),
        ("tokens", Box(0, 9, (3, 3), np.uint8), "'tokens': expected integer tokens"),
        ("tokens", Box(0, 9, (3,), np.float32), "'tokens': expected integer tokens"),
    ],
)
def test_grids_and_tokens_of_another_shape_are_refused(name, space, message):
    with pytest.raises(SpaceError, match=message):
        encoder(Dict({name: space}))


def test_an_encoder_needs_something_to_see():
    hidden = {"previous_action": False, "previous_reward": False}
    with pytest.raises(SpaceError, match="expected something to see"):
        encoder(Dict({"action_mask": MultiBinary(3)}), **hidden)
    encoder(Dict({"action_mask": MultiBinary(3)}), excluded_keys=(), **hidden)
    encoder(Dict({"action_mask": MultiBinary(3)}), previous_action=False)


# Grids and tokens


@pytest.mark.parametrize("channels", [32, 0])
def test_a_grid_encoder_equals_one_hot_formulas(channels):
    module = perturb(GridEncoder((3, 4, 2), 5, channels=channels).double(), 0.1)
    grids = integers(300, 6, 3, 4, 2, dtype=torch.int32) - 20
    actual = module(grids)
    for row in range(6):
        hidden = torch.zeros(16, 3, 4, dtype=torch.float64)
        for i, j in np.ndindex(3, 4):
            one_hot = torch.zeros(512, dtype=torch.float64)
            for channel in range(2):
                one_hot[256 * channel + min(max(int(grids[row, i, j, channel]), 0), 255)] = 1
            hidden[:, i, j] = one_hot @ module.table
        if channels:
            first, _, second, _ = module.network
            hidden = leaky_relu(convolution(second, leaky_relu(convolution(first, hidden))))
        assert_accurate(actual[row].detach(), linear(module.project, hidden.flatten()).detach(), floor=1e4)


def test_grids_are_encoded_as_asked_for():
    space = Dict({"grid": Box(0, 9, (3, 4, 2), np.uint8)})
    assert encoder(space).parts["grid"].project.in_features == 32 * 12
    assert encoder(space, grids="linear").parts["grid"].project.in_features == 16 * 12


def test_a_token_encoder_equals_a_gru_over_the_tokens_before_the_padding():
    module = perturb(TokenEncoder(9, 4, width=3, hidden=5).double())
    lines = [[1, 2, 3, 0, 0], [1, 2, 3, 4, 5], [8, 0, 0, 0, 0], [0, 0, 0, 0, 0], [7, 0, 2, 0, 0], [1, 2, 3, 0, 0]]
    tokens = torch.tensor(lines, dtype=torch.int16)
    actual = module(tokens)
    for row, line in enumerate(lines):
        length = max((index + 1 for index, token in enumerate(line) if token), default=0)
        state = torch.zeros(5, dtype=torch.float64)
        if length:
            state = gru_states(module.gru, module.embedding.weight[line[:length]])[-1]
        assert_accurate(actual[row].detach(), linear(module.project, state).detach(), floor=1e4)
    assert torch.equal(actual[0], actual[5])
    # Larger tokens count as the largest one, and padding has a row of zeros that stays.
    assert torch.equal(module(torch.tensor([[40, 8]])), module(torch.tensor([[8, 99]])))
    assert torch.equal(TokenEncoder(9, 4).embedding.weight[0], torch.zeros(64))


def test_the_state_of_a_token_encoder_stays_float32_under_autocast():
    module, states = TokenEncoder(9, 4), []
    module.gru.register_forward_hook(lambda _, inputs, outputs: states.append(outputs[0]))
    tokens = integers(9, 5, 7)
    module(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        module(tokens)
    assert torch.equal(*states)


def test_tokens_that_repeat_get_the_sum_of_their_gradients():
    module = TokenEncoder(9, 4, width=3, hidden=5).double()
    tokens = integers(3, 40, 2)
    grad_output = normal(40, 4, dtype=torch.float64)
    parameters = list(module.parameters())
    actual = torch.autograd.grad(module(tokens), parameters, grad_output)
    expected = torch.autograd.grad(module._encode(tokens), parameters, grad_output)
    for a, e in zip(actual, expected, strict=True):
        assert_accurate(a, e, floor=1e4)


# The joint encoder


@pytest.mark.parametrize("normalize", [True, False])
def test_the_first_layer_is_the_sum_of_its_shares(normalize):
    module = perturb(encoder(normalize=normalize), 0.1).double()
    observation, action, reward, time = inputs(EVERYTHING, 2, 3)
    reward = reward.double()
    module.update_statistics(observation, reward, torch.ones(2, 3) > 0)
    actual = module(observation, action, reward, time)
    for b, t in np.ndindex(2, 3):
        names = ("context", "matrix", "switches", "vector")
        vector = torch.cat([observation[name][b, t].double().flatten() for name in names])
        features = torch.cat((vector, (reward[b, t].sign() * reward[b, t].abs().log1p()).view(1)))
        if normalize:
            norm = module.normalization
            features = ((features - norm.mean) / (norm.variance + 1e-4).sqrt()).clamp(-10, 10)
        first = linear(module.inputs, features)
        if t > 0:
            first = first + module.previous_action.table[action[b, t]]
        for name in ("camera", "grid", "tokens_goal"):
            first = first + module.parts[name](observation[name][b, t].unsqueeze(0))[0]
        layers = [layer for layer in module.hidden if isinstance(layer, torch.nn.Linear)]
        expected = layer_norm(linear(layers[1], leaky_relu(linear(layers[0], leaky_relu(first)))), module.norm)
        assert_accurate(actual[b, t].detach(), expected.detach(), floor=1e4)
    assert set(module.parts) == {"camera", "grid", "tokens_goal"}
    assert (module.normalization is not None) == normalize


@pytest.mark.parametrize("name", [*EVERYTHING, "action", "reward"])
def test_what_is_hidden_changes_nothing_and_what_is_shown_does(name):
    options = {"action": {"previous_action": False}, "reward": {"previous_reward": False}}
    observation, action, reward, time = inputs(EVERYTHING, 2, 4)
    other, _, other_reward, _ = inputs(EVERYTHING, 2, 4, seed=7)
    changed = [{**observation, name: other[name]} if name in other else observation, action, reward, time]
    if name == "action":
        changed[1] = (action + 1) % 5
    if name == "reward":
        changed[2] = other_reward
    hiding = encoder(**options.get(name, {"excluded_keys": (name,)}))
    assert torch.equal(hiding(observation, action, reward, time), hiding(*changed))
    showing = encoder(excluded_keys=())
    assert (showing(observation, action, reward, time) != showing(*changed)).any(-1)[:, 1:].all()


def test_the_order_of_entries_does_not_matter():
    one = encoder(Dict({"b": VECTOR, "a": IMAGE, "c": MultiBinary(2)}))
    torch.manual_seed(0)
    observation, *rest = inputs(one_space := Dict({"c": MultiBinary(2), "b": VECTOR, "a": IMAGE}), 2, 3)
    two = encoder(one_space)
    two.load_state_dict(one.state_dict())
    turned = {name: observation[name] for name in ("b", "c", "a")}
    assert torch.equal(one(observation, *rest), two(turned, *rest))


@pytest.mark.parametrize(
    "space",
    [Dict({name: EVERYTHING[name]}) for name in ("camera", "grid", "tokens_goal", "switches", "matrix")],
    ids=lambda space: next(iter(space)),
)
def test_one_entry_is_enough(space):
    module = encoder(space, previous_action=False, previous_reward=False)
    out = module(*inputs(space, 2, 3))
    assert out.shape == (2, 3, 6)
    out.square().sum().backward()
    for name, parameter in module.named_parameters():
        if not name.startswith("norm."):  # out has variance one, whatever came before
            assert parameter.grad.ne(0).any(), name


@pytest.mark.parametrize(
    "action_space", [Discrete(5), MultiDiscrete([2, 3]), MultiBinary(4), Box(-1, 1, (2,))], ids=str
)
def test_previous_actions_of_every_kind(action_space):
    space = Dict({"grid": GRID})
    module = TimestepEncoder(space, action_space, hidden=8, layers=1, width=6)
    shape = (2, 3, *(action_space.shape or ()))
    action = normal(*shape) if isinstance(action_space, Box) else integers(2, *shape)
    observation, _, reward, time = inputs(space, 2, 3)
    assert module(observation, action, reward, time).shape == (2, 3, 6)


def test_gradients_reach_every_parameter():
    module = encoder()
    grad_output = normal(4, 6, 6)
    module(*inputs(EVERYTHING, 4, 6)).backward(grad_output)
    assert [name for name, parameter in module.named_parameters() if not parameter.grad.ne(0).any()] == []


def test_one_step_equals_its_place_in_a_window():
    module = encoder().eval()
    observation, action, reward, time = inputs(EVERYTHING, 3, 5)
    window, sensitivity = in_float64(module, observation, action, reward, time)
    assert_accurate(module(observation, action, reward, time), window, floor=DEVIATIONS, sensitivity=sensitivity)
    for t in range(5):
        step = {name: x[:, t] for name, x in observation.items()}, action[:, t], reward[:, t], time[:, t]
        assert_accurate(module(*step), window[:, t], floor=DEVIATIONS, sensitivity=sensitivity[:, t])


def test_masked_steps_change_no_other_step_and_no_gradient_bit_for_bit():
    space = Dict({name: part for name, part in EVERYTHING.items() if name != "matrix"})
    module = encoder(space, random_shift=RandomShift(2))
    mask = torch.tensor([[True] * 5 + [False] * 2, [True] * 3 + [False] * 4, [True] * 7])
    observation, action, reward, time = inputs(space, 3, 7)
    junk, junk_action, junk_reward, _ = inputs(space, 3, 7, seed=20)

    def mixed(x, other):
        return torch.where(mask.view(*mask.shape, *[1] * (x.dim() - 2)), x, other)

    results = []
    for seen in (False, True):
        chosen = {name: mixed(x, junk[name] if seen else torch.zeros_like(x)) for name, x in observation.items()}
        batch = chosen, mixed(action, junk_action * seen), mixed(reward, junk_reward * seen), time
        torch.manual_seed(3)
        module.zero_grad()
        out = module(*batch, mask)
        out[mask].square().mul(normal(int(mask.sum()), 6)).sum().backward()
        results.append([out[mask].detach(), *(parameter.grad.clone() for parameter in module.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    torch.manual_seed(3)
    whole, sensitivity = in_float64(module, observation, action, reward, time)
    assert_accurate(results[0][0], whole[mask], floor=DEVIATIONS, sensitivity=sensitivity[mask])


def test_images_are_shifted_in_training_only():
    space = Dict({"camera": IMAGE})
    module = encoder(space, random_shift=RandomShift(3))
    batch = inputs(space, 2, 3)
    assert not torch.equal(module(*batch), module(*batch))
    module.eval()
    still = encoder(space)
    still.load_state_dict(module.state_dict())
    assert torch.equal(module(*batch), still(*batch))


def test_statistics_are_those_of_the_vectors_and_survive_a_checkpoint(tmp_path):
    from safetensors.torch import load_file, save_file

    module = encoder()
    observation, _, reward, _ = inputs(EVERYTHING, 4, 6)
    mask = torch.arange(6) < torch.tensor([[6], [2], [3], [1]])
    module.update_statistics(observation, reward, mask)
    rows = torch.cat([observation[n].flatten(2).double() for n in ("context", "matrix", "switches", "vector")], -1)[
        mask
    ]
    assert module.normalization.mean[:-1].numpy() == pytest.approx(rows.mean(0).numpy(), abs=1e-6)
    assert module.normalization.count == 12
    save_file(module.state_dict(), tmp_path / "encoder.safetensors")
    again = encoder()
    again.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    batch = inputs(EVERYTHING, 2, 3)
    assert torch.equal(module.eval()(*batch), again.eval()(*batch))
    assert encoder(normalize=False).update_statistics(observation, reward, mask) is None


def test_autocast_is_near_float32():
    module = encoder().eval()
    batch = inputs(EVERYTHING, 3, 4)
    module.update_statistics(batch[0], batch[2], torch.ones(3, 4) > 0)
    exact, sensitivity = in_float64(module, *batch, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        actual = module(*batch)
    actual.float().sum().backward()
    assert_accurate(actual.bfloat16(), exact, floor=DEVIATIONS, sensitivity=sensitivity)


def test_an_agent_sees_every_entry_that_is_not_hidden():
    config = dataclasses.replace(AGENT, excluded_keys=("camera",), previous_reward=False, images="drq")
    agent = AgentNetworks(config, EVERYTHING, Discrete(5)).eval()
    observation, action, reward, time = inputs(EVERYTHING, 2, 4)
    h = agent.encode(observation, action, reward, time)
    for name in EVERYTHING:
        changed = {**observation, name: observations(EVERYTHING, 2, 4, seed=9)[name]}
        assert torch.equal(agent.encode(changed, action, reward, time), h) == (name == "camera")
