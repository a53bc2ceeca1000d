"""The ensemble of critics in tiles, against its plain layers: values, loss, every gradient, in every form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gymnasium import spaces

from compare import assert_accurate, error_in_eps
from perturbation import DEVIATIONS, product_sensitivity
from twohot.agent import AgentNetworks
from twohot.kernels.critics import native, op, tiled
from twohot.losses import ValueBins, linear_bin_expectation, linear_hl_gauss_cross_entropy, linear_two_hot_cross_entropy
from twohot.nets.critic import CriticEnsemble
from twohot.nets.values import ClassValues
from twohot.presets.preset import small_agent

pytestmark = pytest.mark.usefixtures("one_thread")

BINS = ValueBins(-50.0, 200.0, 9)
DISCOUNTS = (0.5, 0.9, 0.99)
CRITICS, WIDTH, STEPS = 2, 5, 40
SPACES = {
    "discrete": spaces.Discrete(4),
    "several": spaces.MultiDiscrete([2, 3]),
    "binary": spaces.MultiBinary(3),
    "box": spaces.Box(-1, 1, (2,)),
}


@pytest.fixture
def form(request, monkeypatch):
    """Who computes: native code, or products of torch; rows in tiles of a few."""
    if request.param == "plain":
        monkeypatch.setattr(native, "runs", lambda critics: False)
    monkeypatch.setattr(tiled, "_TILE_ELEMENTS", 250)
    return request.param


def make(space, depth: int, hidden: int = 7, outputs: int = BINS.count) -> CriticEnsemble:
    torch.manual_seed(0)
    critics = CriticEnsemble(WIDTH, hidden, depth, CRITICS, DISCOUNTS, space, outputs)
    with torch.no_grad():
        for parameter in critics.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return critics.double()


def example(space) -> tuple[torch.Tensor, ...]:
    """h, actions, targets, and which steps are real; in float64."""
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(STEPS, WIDTH, generator=generator, dtype=torch.float64)
    space.seed(2)
    action = torch.stack([torch.as_tensor(space.sample()) for _ in range(STEPS)])
    target = 30 * torch.randn(STEPS, len(DISCOUNTS), generator=generator, dtype=torch.float64)
    return h, action, target, torch.rand(STEPS, generator=generator) < 0.7


def by_layers(critics: CriticEnsemble, h, action, target, mask, sigma):
    """Loss and values by the layers one after another."""
    features = critics.features(critics.state_features(h), action.unsqueeze(1))
    arguments = (features, *critics.head, target, BINS, *([sigma] if sigma else []))
    loss = linear_hl_gauss_cross_entropy if sigma else linear_two_hot_cross_entropy
    return loss(*arguments, mask=mask.unsqueeze(-1), return_readout=True)


def outcome(critics: CriticEnsemble, h, evaluate) -> dict[str, torch.Tensor]:
    """Loss, values and the gradients of h and of every parameter."""
    critics.zero_grad()
    h = h.clone().requires_grad_()
    loss, value = evaluate(critics, h)
    (3 * loss).backward()
    found = {f"gradient of {name}": parameter.grad.clone() for name, parameter in critics.named_parameters()}
    return {"loss": loss.detach(), "value": value, "gradient of h": h.grad, **found}


def exactly(critics: CriticEnsemble, h, evaluate, dtype) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The outcome in float64, and what an eps of a dtype in each product moves it by."""
    truth = outcome(critics, h, evaluate)
    found = product_sensitivity(lambda: tuple(outcome(critics, h, evaluate).values()), dtype)
    return truth, dict(zip(truth, found, strict=True))


def assert_outcome(actual, truth, plain, sensitivity, dtype) -> None:
    """As `assert_accurate`, in eps of the dtype of products, which is what losses and values are off by as well."""
    for name, right in truth.items():
        bound = DEVIATIONS + 2 * error_in_eps(plain[name], right, dtype, sensitivity[name])
        assert error_in_eps(actual[name], right, dtype, sensitivity[name]) <= bound, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("kind", "depth", "sigma"),
    [("discrete", 1, None), ("discrete", 2, 0.75), ("box", 3, None), ("several", 2, None), ("binary", 2, None)],
)
@pytest.mark.parametrize("form", ["native", "plain"], indirect=True)
def test_loss_values_and_every_gradient(form, kind, depth, sigma, dtype) -> None:
    space = SPACES[kind]
    h, action, target, mask = example(space)
    critics = make(space, depth)
    truth, of = exactly(critics, h, lambda critics, h: by_layers(critics, h, action, target, mask, sigma), dtype)
    assert truth["value"].abs().max() > 1
    critics, h, target = critics.to(dtype), h.to(dtype), target.float() if dtype != torch.float64 else target

    def in_tiles(critics, h):
        return critics.cross_entropy(critics.state_features(h), action, target, BINS, mask, sigma)

    actual = outcome(critics, h, in_tiles)
    plain = outcome(critics, h, lambda critics, h: by_layers(critics, h, action, target, mask, sigma))
    assert actual["value"][:, ~mask].eq(0).all()
    assert_outcome(actual, truth, plain, of, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("kind", "depth"), [("discrete", 1), ("box", 2)])
@pytest.mark.parametrize("form", ["native", "plain"], indirect=True)
def test_squared_errors_of_one_output_and_every_gradient(form, kind, depth, dtype) -> None:
    space = SPACES[kind]
    h, action, target, mask = example(space)
    target = target / 30
    critics = make(space, depth, outputs=1)
    factor, offset = torch.tensor([0.5, -2.0, 1.0]), torch.tensor([0.0, 3.0, -1.0])

    def plain(critics, h):
        features = critics.features(critics.state_features(h), action.unsqueeze(1))
        weight, bias = critics.head
        x = factor * ((features * weight.unsqueeze(1)).sum(-1) + bias.unsqueeze(-1)) + offset
        counted = mask.unsqueeze(-1)
        loss = ((x - target) * counted).square().sum() / (counted.sum() * x.shape[0] * x.shape[2])
        return loss, x.detach() * counted

    truth, of = exactly(critics, h, plain, dtype)
    critics, h, target = critics.to(dtype), h.to(dtype), target.float() if dtype != torch.float64 else target

    def in_tiles(critics, h):
        return critics.squared_error(critics.state_features(h), action, target, factor, offset, mask)

    actual, composed = outcome(critics, h, in_tiles), outcome(critics, h, plain)
    assert_outcome(actual, truth, composed, of, dtype)
    if dtype != torch.bfloat16:
        step, discount = mask.nonzero().squeeze(-1), torch.ones(int(mask.sum()), dtype=torch.int64)
        output = critics.outputs(critics.state_features(h), step, discount, action[step])
        assert_accurate(factor[1] * output + offset[1], truth["value"][:, step, 1], floor=64)


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("form", ["native", "plain"], indirect=True)
def test_values_of_rows(form, dtype, kind) -> None:
    space = SPACES[kind]
    h, action, *_ = example(space)
    critics = make(space, 2)
    features = critics.features(critics.state_features(h), action.unsqueeze(1))
    truth = linear_bin_expectation(features, *critics.head, BINS).detach()
    critics, h = critics.to(dtype), h.to(dtype)
    step = torch.randperm(STEPS, generator=torch.Generator().manual_seed(3))[:31]
    discount = torch.arange(31) % len(DISCOUNTS)
    values = critics.values(critics.state_features(h), step, discount, action[step], BINS)
    assert values.dtype == dtype
    assert_accurate(values, truth[:, step, discount], floor=64)


def test_values_of_choices_are_those_that_are_wanted() -> None:
    space = SPACES["discrete"]
    h, *_ = example(space)
    critics = make(space, 2)
    state = critics.state_features(h)
    wanted = torch.rand(STEPS, len(DISCOUNTS), 4, generator=torch.Generator().manual_seed(4)) < 0.4
    truth = linear_bin_expectation(critics.all_features(state), *critics.head, BINS).detach()
    values = ClassValues(len(DISCOUNTS), BINS)
    assert_accurate(values.decode_choices(critics, state, wanted), truth * wanted, floor=64)
    assert values.decode_choices(critics, state, torch.zeros_like(wanted)).eq(0).all()


@pytest.mark.parametrize("kind", ["discrete", "box"])
def test_where_the_number_of_rows_is_fixed_nothing_else_changes(monkeypatch, kind) -> None:
    space = SPACES[kind]
    h, action, target, mask = example(space)
    critics = make(space, 2)
    wanted = torch.rand(STEPS, len(DISCOUNTS), 4, generator=torch.Generator().manual_seed(4)) < 0.4
    counts = mask & (torch.arange(STEPS) > 3)
    several = action.unsqueeze(1).expand(-1, len(DISCOUNTS), *action.shape[1:])
    values = ClassValues(len(DISCOUNTS), BINS)

    def found():
        results = outcome(critics, h, lambda c, h: c.cross_entropy(c.state_features(h), action, target, BINS, mask))
        state = critics.state_features(h)
        results["actions"] = values.decode_actions(critics, state, several, counts) * counts[:, None]
        if kind == "discrete":
            results["choices"] = values.decode_choices(critics, state, wanted) * wanted
        return results

    free = found()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    asked = []
    monkeypatch.setattr(torch.Tensor, "nonzero", lambda *_, **__: asked.append(1))
    fixed = found()
    assert not asked
    for name, right in free.items():
        assert_accurate(fixed[name], right, floor=64)


def arguments(dtype=torch.float32, outputs: int = BINS.count) -> tuple:
    """Of the operation, for the critics and steps of the example."""
    critics = make(SPACES["discrete"], 2, outputs=outputs).to(dtype)
    h, action, target, mask = example(SPACES["discrete"])
    rows = critics._rows(torch.arange(STEPS), torch.arange(STEPS) % len(DISCOUNTS), action, dtype)
    ensemble = [
        None if x is None else x.detach().requires_grad_()
        for x in critics._ensemble(critics.state_features(h.to(dtype)), rows)
    ]
    return *ensemble, *rows, target[:, 0].to(dtype).contiguous(), mask, *BINS.support, "two_hot", 0.0


def test_rows_that_do_not_count_are_as_if_they_were_not_there() -> None:
    everything = arguments(torch.float64)
    *ensemble, step, entry, action, target, mask = everything[:12]
    loss, readout = op.cross_entropy(*everything)
    fewer = (*ensemble, step[mask], entry[mask], action, target[mask], None, *everything[12:])
    right, values = op.cross_entropy(*fewer)
    assert loss.item() == pytest.approx(right.item(), rel=1e-12)
    assert readout[:, ~mask].eq(0).all()
    assert_accurate(readout[:, mask], values, floor=16)
    wanted = [x for x in ensemble if x is not None]
    for one, other in zip(torch.autograd.grad(loss, wanted), torch.autograd.grad(right, wanted), strict=True):
        assert_accurate(one, other, floor=16)


def test_no_rows_at_all() -> None:
    critics, h = make(SPACES["discrete"], 2), example(SPACES["discrete"])[0]
    nothing = torch.zeros(STEPS, dtype=torch.bool)
    target = torch.zeros(STEPS, len(DISCOUNTS), dtype=torch.float64)
    loss, value = critics.cross_entropy(critics.state_features(h), torch.zeros(STEPS).long(), target, BINS, nothing)
    loss.backward()
    assert loss.item() == 0
    assert value.eq(0).all()
    assert critics.state.grad.eq(0).all()


def test_the_operations_are_registered_well() -> None:
    everything = arguments()
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(op.critics_cross_entropy, everything, test_utils=checks)
    values = [x.detach() if isinstance(x, torch.Tensor) else x for x in everything[:10]]
    torch.library.opcheck(op.critics_expectation, (*values, *BINS.support), test_utils=checks)
    *one, target, mask = arguments(outputs=1)[:12]
    everything = (*one, target, torch.ones_like(target), torch.zeros_like(target), mask)
    torch.library.opcheck(op.critics_squared_error, everything, test_utils=checks)
    values = [x.detach() if isinstance(x, torch.Tensor) else x for x in one]
    torch.library.opcheck(op.critics_output, tuple(values), test_utils=checks)


def test_under_autocast_products_run_in_bfloat16_and_sums_in_float32() -> None:
    space = SPACES["discrete"]
    h, action, target, mask = example(space)
    critics = make(space, 2)
    h, target = h.float(), target.float()
    exact = critics, h.double(), lambda c, h: by_layers(c, h, action, target.double(), mask, None)
    right, of = exactly(*exact, torch.bfloat16)
    critics = critics.float()

    def autocast(critics, h):
        with torch.autocast("cpu", torch.bfloat16):
            state = critics.state_features(h)
            assert state.dtype == torch.bfloat16
            return critics.cross_entropy(state, action, target, BINS, mask)

    actual = outcome(critics, h, autocast)
    assert actual["loss"].dtype == actual["value"].dtype == torch.float32
    assert all(x.dtype == torch.float32 for x in actual.values())
    eps = torch.finfo(torch.bfloat16).eps
    errors = {name: ((actual[name] - truth).norm() / of[name].norm() / eps).item() for name, truth in right.items()}
    assert max(errors.values()) > 0.01, "products in float32"
    assert max(errors.values()) < DEVIATIONS, errors


@pytest.mark.parametrize("critic", ["two_hot", "hl_gauss", "scalar"])
def test_the_scale_of_logits_is_of_initial_weights_of_critics_that_classify(critic: str) -> None:
    agents = []
    for scale in (1.0, 8.0):
        torch.manual_seed(0)
        config = replace(small_agent(context=4), critic=critic, logit_scale=scale)
        agents.append(AgentNetworks(config, spaces.Box(-1, 1, (3,)), SPACES["discrete"]))
    plain, scaled = (agent.state_dict() for agent in agents)
    heads = [name for name in plain if not torch.equal(plain[name], scaled[name])]
    expected = [] if critic == "scalar" else ["critics.weights.1", "target_critics.weights.1"]
    assert heads == expected
    for name in heads:
        assert torch.equal(8.0 * plain[name], scaled[name])
