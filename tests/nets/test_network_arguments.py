"""What native passes of networks are given: indices, widths, dtypes, devices; each is right or a sentence."""

import pytest
import torch
from gymnasium import spaces

from twohot.kernels.critics import op as critics_op
from twohot.kernels.images.op import max_pool, residual_norm
from twohot.kernels.transformer_layer import op as layer_op
from twohot.losses import ValueBins
from twohot.nets.actions import ActionLinear
from twohot.nets.critic import CriticEnsemble
from twohot.nets.frozen_networks import freeze_network
from twohot.nets.packed import PackedMLP
from twohot.nets.positions import LearnedPositions
from twohot.nets.timestep import TimestepEncoder
from twohot.nets.tokens import TokenEncoder
from twohot.nets.transformer import Transformer, TransformerLayer

pytestmark = pytest.mark.usefixtures("one_thread", "nothing_forced")
BINS = ValueBins.amago2(16)
CRITICS = {
    "state": torch.zeros(2, 3, 8),
    "table": torch.zeros(2, 4, 8),
    "action_weight": torch.zeros(2, 3, 8),
    "weights": torch.zeros(1, 2, 8, 8),
    "biases": torch.zeros(1, 2, 8),
    "head": torch.zeros(2, 8, 16),
    "head_bias": torch.zeros(2, 16),
    "step": torch.zeros(5, dtype=torch.int64),
    "entry": torch.zeros(5, dtype=torch.int64),
    "action": torch.zeros(5, 3),
    "target": torch.zeros(5),
    "mask": torch.ones(5, dtype=torch.bool),
}


def critics(**changed):
    return critics_op.cross_entropy(*(CRITICS | changed).values(), *BINS.support, "two_hot", 0.0)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (ActionLinear(spaces.Discrete(4), 8, 1.0), (3,)),
        (ActionLinear(spaces.MultiDiscrete([2, 3]), 8, 1.0), (3, 2)),
        (LearnedPositions(8, 16), (3,)),
        (TokenEncoder(5, 8), (3, 2)),
    ],
    ids=["one choice", "choices", "times", "tokens"],
)
def test_indices_on_another_device_are_refused(network, shape):
    """torch's own embedding would take their address."""
    assert network(torch.zeros(shape, dtype=torch.int64)).isfinite().all()
    with pytest.raises(ValueError, match=r"expected \w+ on cpu, as [a-z ]+ is, got \w+ on meta"):
        network(torch.zeros(shape, dtype=torch.int64, device="meta"))


@pytest.mark.parametrize("index", [-1, 4, 2**40, -(2**63)])
@pytest.mark.parametrize("name", ["step", "entry"])
def test_indices_are_of_what_there_is(name, index):
    odd = CRITICS[name].clone()
    odd[3] = index
    with pytest.raises(ValueError, match=rf"{name}: expected indices of 0 to \d, got {index}"):
        critics(**{name: odd})
    arguments = [value for key, value in (CRITICS | {name: odd}).items() if key not in ("target", "mask")]
    with pytest.raises(ValueError, match=f"{name}: expected indices"):
        critics_op.critics_expectation(*arguments, *BINS.support)


@pytest.mark.parametrize("name", CRITICS)
def test_parts_of_an_ensemble_fit_each_other(name):
    x = CRITICS[name]
    for odd in (x[:-1], x.unsqueeze(0), x.to("meta"), x.to(torch.float64 if x.is_floating_point() else torch.int32)):
        if name == "state" and odd.dtype == torch.float64:
            continue  # torch's own passes take it
        with pytest.raises((ValueError, RuntimeError)):
            critics(**{name: odd})
    if name not in ("step", "entry", "mask"):
        strided = torch.stack((x, x), -1)[..., 0]
        assert torch.equal(critics(**{name: strided})[0], critics()[0])


@pytest.mark.parametrize("choice", [-1, 3, 100])
def test_a_choice_beyond_its_space_reads_nothing(choice):
    ensemble = CriticEnsemble(4, 8, 1, 2, (0.9,), spaces.Discrete(3), 16)
    state = ensemble.state_features(torch.zeros(2, 4))
    step = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="entry: expected indices of 0 to 2"):
        ensemble.values(state, step, step, torch.tensor([0, choice]), BINS)
    with pytest.raises(ValueError, match="entry: expected indices of 0 to 2"):
        ensemble.cross_entropy(
            state, torch.tensor([0, choice]), torch.zeros(2, 1), BINS, torch.ones(2, dtype=torch.bool)
        )


def test_rows_on_another_device_give_nothing_made_up():
    ensemble = CriticEnsemble(4, 8, 1, 2, (0.9,), spaces.Box(-1, 1, (2,)), 16)
    state, index = ensemble.state_features(torch.zeros(2, 4)), torch.zeros(2, dtype=torch.int64)
    for step, discount, action in (
        (index.to("meta"), index, torch.zeros(2, 2)),
        (index, index.to("meta"), torch.zeros(2, 2)),
        (index, index, torch.zeros(2, 2, device="meta")),
    ):
        with pytest.raises(ValueError, match="expected tensors on one device, got them on cpu, meta"):
            ensemble.values(state, step, discount, action, BINS)


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(-1, 1, (2,))], ids=str)
@pytest.mark.parametrize("bins", [16, 1])
def test_critics_without_data_have_shapes(space, bins):
    with torch.device("meta"):
        ensemble = CriticEnsemble(4, 8, 1, 2, (0.9, 0.99), space, bins)
        h = torch.zeros(5, 4, requires_grad=True)
        action = torch.zeros(5, *space.shape, dtype=torch.int64 if space.shape == () else torch.float32)
        target, mask = torch.zeros(5, 2), torch.ones(5, dtype=torch.bool)
        state = ensemble.state_features(h)
        if bins > 1:
            loss, read = ensemble.cross_entropy(state, action, target, BINS, mask)
        else:
            loss, read = ensemble.squared_error(state, action, target, torch.ones(2), torch.zeros(2), mask)
        loss.backward()
    assert (loss.shape, read.shape, h.grad.shape) == ((), (2, 5, 2), (5, 4))
    assert loss.is_meta
    assert read.is_meta


def test_networks_without_data_have_shapes():
    with torch.device("meta"):
        transformer = Transformer(32, 1, 2, 64, 0.0, 4)
        out = transformer(torch.zeros(2, 3, 32), torch.zeros(2, 3, dtype=torch.int64))
        step = transformer.step(torch.zeros(2, 32), torch.zeros(2, dtype=torch.int64), transformer.initial_cache(2))
    assert (out.shape, step.shape) == ((2, 3, 32), (2, 32))


@pytest.mark.parametrize("name", ["weight", "bias", "residual"])
def test_norms_of_images_read_what_they_are_given(name):
    given = {"residual": torch.randn(2, 16, 4, 4), "weight": torch.ones(16), "bias": torch.zeros(16)}
    x = torch.randn(2, 16, 4, 4)

    def norm(**changed):
        now = given | changed
        return residual_norm(x, now["residual"], 4, now["weight"], now["bias"], 1e-5)

    for odd in (given[name][:1], given[name].to("meta"), given[name].to(torch.int32)):
        if odd.is_meta or name != "residual":  # torch's own sum takes other residuals
            with pytest.raises((RuntimeError, ValueError)):
                norm(**{name: odd})
    strided = torch.stack((given[name], given[name]), -1)[..., 0]
    assert torch.equal(norm(**{name: strided}), norm())
    for groups in (0, -4, 3):
        with pytest.raises((RuntimeError, ValueError, ZeroDivisionError)):
            residual_norm(x, x, groups, given["weight"], given["bias"], 1e-5)


def test_a_layers_parameters_fit_its_width():
    parameters = TransformerLayer(32, 2, 64, 0.0).folded()
    settings = layer_op.Settings(2, None, 1e-5, 0.01, 0.0)
    x = torch.randn(2, 3, 32)
    for name, value in parameters._asdict().items():
        for odd in (value[:-1], value.to(torch.bfloat16), value.to("meta")):
            with pytest.raises(ValueError, match="expected a tensor"):
                layer_op.run(x, torch.float32, settings, parameters._replace(**{name: odd}))
    for odd in (x.double(), x[0], x[..., :16], x.to("meta")):
        with pytest.raises(ValueError, match="expected a "):
            layer_op.run(odd, torch.float32, settings, parameters)
    with pytest.raises(ValueError, match="x: expected a contiguous tensor"):
        layer_op.dropout(x.double(), 0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_defaults_of_torch_change_nothing(dtype):
    """A default of half a number made the memory of packed weights too small."""
    module = TransformerLayer(32, 2, 64, 0.0, rotary=100.0)
    x = torch.randn(2, 5, 32, requires_grad=True)
    image = torch.randn(2, 16, 5, 5, requires_grad=True)

    def passes():
        layer = module(x)
        pooled = max_pool(image)
        found = torch.autograd.grad((layer**2).sum() + (pooled**2).sum(), (x, image, *module.parameters()))
        return layer, pooled, *found

    expected = passes()
    try:
        torch.set_default_dtype(dtype)
        torch.set_default_device("meta")
        found = passes()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@torch.no_grad()
def test_steps_are_of_the_width_of_their_weights():
    first, second = ((torch.zeros(size, inputs), torch.zeros(size)) for size, inputs in ((16, 6), (32, 16)))
    packed = PackedMLP([first, second])
    packed(torch.zeros(2, 6))
    for odd in (torch.zeros(2, 5), torch.zeros(2, 7), torch.zeros(2, 6, device="meta"), torch.zeros(2, 6).double()):
        with pytest.raises(ValueError, match="x: expected"):
            packed(odd)
    for odd in (torch.zeros(32, 8), torch.zeros(32, 16, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match="a weight of a network that acts: expected"):
            PackedMLP([first, (odd, second[1])])


@torch.no_grad()
def test_a_step_of_a_transformer_has_its_time_and_cache():
    transformer = freeze_network(Transformer(32, 2, 2, 64, 0.0, 4, positions="rotary"))
    x, time = torch.randn(3, 32), torch.zeros(3, dtype=torch.int64)
    for odd in (time.to("meta"), time[:1], time.unsqueeze(0)):
        with pytest.raises(ValueError, match="Transformer: expected a time for each step"):
            transformer.step(x, odd, transformer.initial_cache(3))
    for name, odd in (
        ("cache_position", torch.tensor([0, -1, 0])),
        ("cache_position", torch.zeros(3, dtype=torch.int32)),
        ("keys", torch.zeros(2, 3, 2, 16, 4).mT),
        ("values", torch.zeros(2, 3, 2, 3, 16)),
        ("values", None),
    ):
        cache = transformer.initial_cache(3)
        setattr(cache, name, odd)
        with pytest.raises((ValueError, TypeError), match=f"{name}: expected"):
            transformer.step(x, time, cache)


@torch.no_grad()
def test_an_encoder_puts_each_number_in_its_place():
    seen = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Box(-1, 1, (2,))})
    encoder = freeze_network(TimestepEncoder(seen, spaces.Discrete(4), hidden=16, layers=1, width=32))
    right = {"a": torch.zeros(2, 3), "b": torch.zeros(2, 2)}
    action, reward, time = torch.zeros(2, dtype=torch.int64), torch.zeros(2), torch.ones(2, dtype=torch.int64)
    encoder(right, action, reward, time)
    for observation, words in (
        (right | {"a": torch.zeros(2, 2)}, "observation: expected 6 numbers, reward included, got 5"),
        (right | {"a": torch.zeros(0, 3)}, "observation 'a': expected a C-contiguous array of float32 with 2 rows"),
        (right | {"a": torch.zeros(1, 6)}, "observation 'a': expected a C-contiguous array of float32 with 2 rows"),
    ):
        with pytest.raises(ValueError, match=words):
            encoder(observation, action, reward, time)
    for choice in (-1, 4, 2**40):
        with pytest.raises(ValueError, match="previous_action: expected choices of 0 to 3"):
            encoder(right, torch.tensor([0, choice]), reward, time)
    with pytest.raises(ValueError, match="previous_action: expected a C-contiguous array of int64 with 2 rows"):
        encoder(right, action[:1], reward, time)
    with pytest.raises(ValueError, match=r"previous_action: expected a C-contiguous array of int64 .* got float32"):
        encoder(right, action.float(), reward, time)
