"""A Transformer's layer in two native passes around its attention, against its parts one by one."""

import copy

import pytest
import torch

from compare import assert_accurate
from perturbation import DEVIATIONS, product_sensitivity
from two_hot_truth import normal
from twohot.kernels.transformer_layer import op
from twohot.nets.transformer import Transformer, TransformerLayer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _by_itself(monkeypatch):
    monkeypatch.delenv("TWOHOT_BACKEND", raising=False)
    monkeypatch.delenv("TWOHOT_ATTENTION", raising=False)


def perturbed(make, *arguments, **options):
    """A module of the same weights each time, away from gains of one and biases of zero."""
    torch.manual_seed(0)
    module = make(*arguments, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * parameter.std(correction=0) * torch.randn_like(parameter) + 0.02)
    return module


def make_layer(width=64, heads=2, feed_forward=96, dropout=0.0, rotary=None) -> TransformerLayer:
    return perturbed(TransformerLayer, width, heads, feed_forward, dropout, rotary)


def run(module, x, grad_output, bfloat16=False):
    """Output, gradient of x, and those of the parameters by name."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        out = module(x)
    out.backward(grad_output)
    gradients = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
    module.zero_grad()
    return {"output": out.detach(), "x": x.grad, **gradients}


def by_parts(module, *arguments, monkeypatch, **options):
    with monkeypatch.context() as patch:
        patch.setattr(op, "products_dtype", lambda *_: None)
        return run(module, *arguments, **options)


SHAPES = {
    "one row": (1, 1, {"width": 32, "feed_forward": 32}),
    "blocks": (3, 33, {}),
    "odd panels, rotary": (2, 50, {"width": 96, "heads": 3, "feed_forward": 160, "rotary": 100.0}),
    "chunks": (5, 250, {"width": 32, "heads": 2, "feed_forward": 32}),
}


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("batch", "steps", "sizes"), SHAPES.values(), ids=SHAPES.keys())
def test_native_layers_are_accurate(batch, steps, sizes, bfloat16, monkeypatch):
    module = make_layer(**sizes)
    x, grad_output = (
        normal(batch, steps, module.out.bias.shape[0]),
        normal(batch, steps, module.out.bias.shape[0], seed=3),
    )
    assert op.products_dtype(x, module.heads, module.up.bias.shape[0]) is not None
    native = run(module, x, grad_output, bfloat16)
    plain = by_parts(module, x, grad_output, bfloat16, monkeypatch=monkeypatch)
    exact = copy.deepcopy(module).double()
    truth = run(exact, x.double(), grad_output.double())
    found = product_sensitivity(lambda: tuple(run(exact, x.double(), grad_output.double()).values()))
    sensitivity = dict(zip(truth, found, strict=True))
    for name, value in native.items():
        assert value.dtype == torch.float32
        if not bfloat16:
            assert_accurate(value, truth[name], plain[name], floor=DEVIATIONS, sensitivity=sensitivity[name])
            continue
        if name == "head_scale" or name.endswith(".gain"):
            # Rests of larger numbers: a norm behind a linear layer cancels what scales all of its outputs.
            weight = "out.weight" if name == "head_scale" else name.replace("gain", "weight")
            size = truth[weight].norm() * module.get_parameter(weight).norm()
            assert (value - truth[name]).abs().max() <= 5e-3 * size, name
            continue
        error, other = ((given[name] - truth[name]).square().mean().sqrt() for given in (native, plain))
        assert error <= 2.5 * other + 0.01 * truth[name].square().mean().sqrt(), name


def test_native_layers_run_where_they_can(monkeypatch):
    x = normal(2, 3, 64)
    assert op.products_dtype(x, 2, 96) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert op.products_dtype(x, 2, 96) == torch.bfloat16
    with torch.autocast("cpu", torch.float16):
        assert op.products_dtype(x, 2, 96) is None
    assert op.products_dtype(x.double(), 2, 96) is None
    assert op.products_dtype(x[:0], 2, 96) is None
    assert op.products_dtype(x, 2, 80) is None
    assert op.products_dtype(normal(2, 3, 48), 3, 96) is None
    assert op.products_dtype(x, 8, 96) is None  # the native attention takes no heads of 8
    monkeypatch.setenv("TWOHOT_BACKEND", "reference")
    assert op.products_dtype(x, 2, 96) is None


def test_a_layer_has_gradients_under_functorch():
    module, x = make_layer(), normal(3, 5, 64)
    gradient = torch.func.grad(lambda x: module(x).square().sum())(x)
    expected = x.clone().requires_grad_()
    module(expected).square().sum().backward()
    torch.testing.assert_close(gradient, expected.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("function", [make_layer(), lambda x: op.dropout(x, 0.5)], ids=["layer", "dropout"])
def test_second_derivatives_are_refused(function):
    x = normal(1, 3, 64).requires_grad_()
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(function(x).sum(), x, create_graph=True)


def test_any_number_of_threads_gives_the_same_bits():
    module = make_layer(dropout=0.3)
    x, grad_output = normal(4, 90, 64), normal(4, 90, 64, seed=3)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(5)
        results.append(run(module, x, grad_output))
    torch.set_num_threads(1)
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_dropout_leaves_out_its_share_and_scales_the_rest():
    module = make_layer(dropout=0.25)
    x, grad_output = normal(4, 50, 64), normal(4, 50, 64, seed=3)
    torch.manual_seed(1)
    result = run(module, x, grad_output)
    with torch.no_grad():
        module.down.bias += 100
    torch.manual_seed(1)
    kept = (run(module, x, grad_output)["output"] - result["output"]).abs() > 50
    assert kept.float().mean().item() == pytest.approx(0.75, abs=4 * (0.25 * 0.75 / kept.numel()) ** 0.5)
    torch.testing.assert_close(result["down.bias"], (grad_output * kept / 0.75).sum((0, 1)))
    torch.manual_seed(2)
    other = (run(module, x, grad_output)["output"] - result["output"]).abs() > 50
    assert (other == kept).float().mean() < 0.7
    module.eval()
    assert torch.equal(run(module, x, grad_output)["output"], run(module, x, grad_output)["output"])


def test_dropout_of_the_input_is_drawn_from_torch_and_is_its_own_derivative():
    x = torch.full((300, 7), 2.0, requires_grad=True)
    torch.manual_seed(1)
    out = op.dropout(x, 0.25)
    out.backward(torch.full_like(x, 3.0))
    assert out.unique().tolist() == pytest.approx([0.0, 2 / 0.75])
    assert torch.equal(x.grad, 1.5 * out.detach())
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / x.numel()) ** 0.5)
    torch.manual_seed(1)
    assert torch.equal(op.dropout(x, 0.25), out)
    assert not torch.equal(op.dropout(x, 0.25), out)


def test_neighbouring_places_and_draws_of_dropout_are_independent():
    draws = torch.stack([op.dropout(torch.ones(256, 256), 0.5) == 0 for _ in range(8)]).float() - 0.5
    bound = 5 / (4 * draws[0].numel() ** 0.5)
    for rows in (1, 3, 16):
        assert (draws[:, rows:] * draws[:, :-rows]).mean((1, 2)).abs().max() < bound
    for columns in (1, 2, 16):
        assert (draws[:, :, columns:] * draws[:, :, :-columns]).mean((1, 2)).abs().max() < bound
    assert (draws[1:] * draws[:-1]).mean((1, 2)).abs().max() < bound


def transformer(**options):
    return perturbed(Transformer, 64, 2, 2, 96, 0.0, 32, **options).eval()


def test_layers_are_causal_and_padding_changes_nothing_bit_for_bit():
    module = transformer()
    x, time = normal(3, 60, 64), torch.arange(60).expand(3, 60)
    before = module(x, time)
    for t in (1, 31, 59):
        changed = x.clone()
        changed[:, t:] = 100 * normal(3, 60 - t, 64, seed=9)
        after = module(changed, time)
        assert torch.equal(after[:, :t], before[:, :t])
        assert (after[:, t:] != before[:, t:]).any(-1).all()


def test_the_cached_step_is_the_last_row():
    module = transformer()
    x, time = normal(4, 20, 64), torch.arange(20).expand(4, 20)
    cache = module.initial_cache(4)
    steps = torch.stack([module.step(x[:, t], time[:, t], cache) for t in range(20)], dim=1)
    torch.testing.assert_close(steps, module(x, time), rtol=0, atol=2e-5)


def test_recomputed_layers_change_no_bit_with_dropout():
    x, time = normal(3, 40, 64), torch.arange(40).expand(3, 40)
    results = []
    for recompute in (False, True):
        module = transformer(recompute=recompute).train()
        module.dropout.p = module.layers[0].dropout.p = 0.2
        torch.manual_seed(4)
        module(x, time).square().sum().backward()
        results.append([parameter.grad for parameter in module.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
