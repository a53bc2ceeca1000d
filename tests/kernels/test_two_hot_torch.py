"""The two-hot operations among torch's own: autograd, torch.library, torch.compile, torch.func, tracing."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, jacrev, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import two_hot_truth as truth
from compare import assert_accurate
from two_hot_truth import normal
from twohot.kernels.two_hot import op
from twohot.losses import ValueBins, bin_expectation, hl_gauss_cross_entropy, two_hot_cross_entropy

NAN, INFINITY = math.nan, math.inf


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Autograd


FACES = {
    "mean": two_hot_cross_entropy,
    "sum": lambda z, y, bins: hl_gauss_cross_entropy(z, y, bins, reduction="sum"),
    "none": lambda z, y, bins: two_hot_cross_entropy(z, y, bins, reduction="none").sum(),
    "readout": lambda z, y, bins: bin_expectation(z, bins).sum(),
}
every_face = pytest.mark.parametrize("face", FACES.values(), ids=FACES.keys())
SUPPORT = ValueBins.amago2(16)
REFUSED = r"can be differentiated once\. .*TWOHOT_BACKEND=reference"


@every_face
@pytest.mark.parametrize("rows", [5, 17_000])  # the second's gradient is in pooled memory
def test_one_graph_may_go_backward_again_and_again(face, rows: int) -> None:
    z, y = normal(rows, 16).requires_grad_(), normal(rows, seed=1)
    loss = face(z, y, SUPPORT)
    first, second = (torch.autograd.grad(loss, z, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    expected = first.clone()
    for count in (1, 2, 3):
        loss.backward(retain_graph=True)
        assert_accurate(z.grad, (count * expected).double())
    z.grad = None
    loss.backward()
    assert torch.equal(z.grad, expected)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@every_face
@pytest.mark.parametrize("factor", [2.0, -0.5, 0.0, NAN, INFINITY])
def test_a_loss_may_be_used_with_a_factor(face, factor: float) -> None:
    z, y = normal(5, 16).requires_grad_(), normal(5, seed=1)
    (once,) = torch.autograd.grad(face(z, y, SUPPORT), z)
    for loss in (factor * face(z, y, SUPPORT), face(z, y, SUPPORT) * torch.tensor(factor)):
        (scaled,) = torch.autograd.grad(loss, z)
        assert_accurate(scaled, factor * once.double())
    (scaled,) = torch.autograd.grad(face(z, y, SUPPORT), z, torch.tensor(factor))
    assert_accurate(scaled, factor * once.double())
    # And beside another path to the same logits.
    loss = face(z, y, SUPPORT)
    (both,) = torch.autograd.grad(2 * loss + loss + (3 * z).sum(), z)
    assert_accurate(both, 3 * once.double() + 3)


def test_a_loss_scale_saves_the_gradients_of_float16() -> None:
    # Of a mean over so many rows, 1e-3 / 30 000 is a float16 of 0; a factor that comes later must come first.
    rows, scale = 30_000, 2.0**16
    z, y = normal(rows, 16, dtype=torch.float16).requires_grad_(), normal(rows, seed=1)
    exact = z.detach().double().requires_grad_()
    expected = scale * truth.cross_entropy(exact, truth.labels(y.double(), SUPPORT)).mean()
    expected = truth.gradient(expected, exact)
    for loss in (FACES["mean"](z, y, SUPPORT), FACES["none"](z, y, SUPPORT) / rows):
        found = truth.gradient(scale * loss, z)
        # Where a number is small, so is its error.
        assert ((found.double() - expected).abs() <= 1e-6 + 2e-3 * expected.abs()).all()


@every_face
def test_gradients_add_up_in_a_leaf(face) -> None:
    z, y = normal(5, 16).requires_grad_(), normal(5, seed=1)
    (once,) = torch.autograd.grad(face(z, y, SUPPORT), z)
    for count in (1, 2, 3):
        face(z, y, SUPPORT).backward()
        assert_accurate(z.grad, (count * once).double())
    inner = 2 * z  # not a leaf, and used twice
    (twice,) = torch.autograd.grad(face(inner, y, SUPPORT) + face(inner, y, SUPPORT), z, retain_graph=True)
    (plain,) = torch.autograd.grad(face(inner, y, SUPPORT), z)
    assert_accurate(twice, 2 * plain.double())


@every_face
def test_no_two_gradients_share_memory(face) -> None:
    z, y = normal(17_000, 16).requires_grad_(), normal(17_000, seed=1)
    loss = face(z, y, SUPPORT)
    found = [torch.autograd.grad(loss, z, retain_graph=True)[0] for _ in range(2)]
    found += [torch.autograd.grad(face(z, y, SUPPORT), z)[0] for _ in range(2)]
    assert len({x.untyped_storage().data_ptr() for x in found}) == 4
    assert len({x.untyped_storage().data_ptr() for x in (*found, z, y)}) == 6


@every_face
def test_a_gradient_that_was_changed_in_place_is_never_given_again(face) -> None:
    z, y = normal(5, 16).requires_grad_(), normal(5, seed=1)
    loss = face(z, y, SUPPORT)
    (gradient,) = torch.autograd.grad(loss, z, retain_graph=True)
    expected = gradient.clone()
    gradient.zero_()
    try:
        (again,) = torch.autograd.grad(loss, z, retain_graph=True)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
    else:
        assert torch.equal(again, expected)


def test_inputs_that_change_before_backward_are_noticed() -> None:
    for face in (FACES["none"], FACES["readout"]):
        z, y = normal(5, 16), normal(5, seed=1)
        inner = z.requires_grad_() * 1
        loss = face(inner, y, SUPPORT)
        inner.detach().zero_()
        with pytest.raises(RuntimeError, match="inplace operation"):
            loss.backward()


@every_face
def test_a_second_derivative_is_refused(face) -> None:
    z, y = normal(5, 16).requires_grad_(), normal(5, seed=1)

    def penalty() -> Tensor:
        (gradient,) = torch.autograd.grad(face(z, y, SUPPORT), z, create_graph=True)
        return gradient.square().sum()

    with pytest.raises(RuntimeError, match=REFUSED):
        penalty().backward()
    # It must not fall away in silence beside a loss that has a gradient.
    with pytest.raises(RuntimeError, match=REFUSED):
        (face(z, y, SUPPORT) + penalty()).backward()
    with pytest.raises(RuntimeError, match=REFUSED):
        torch.autograd.grad(face(z, y, SUPPORT) + penalty(), z)


def test_the_reference_has_second_derivatives(monkeypatch) -> None:
    monkeypatch.setenv("TWOHOT_BACKEND", "reference")
    z, y = normal(3, 16, dtype=torch.float64).requires_grad_(), normal(3, seed=1, dtype=torch.float64)
    for face in FACES.values():
        assert torch.autograd.gradgradcheck(lambda x, face=face: face(x, y, SUPPORT), (z,))


def test_only_what_asks_for_a_gradient_gets_one() -> None:
    z, y, w = normal(5, 16), normal(5, seed=1), normal(5, seed=2)
    for face in FACES.values():
        assert not face(z, y, SUPPORT).requires_grad
        with torch.no_grad():
            assert not face(z.clone().requires_grad_(), y, SUPPORT).requires_grad
        with torch.inference_mode():
            face(z, y, SUPPORT)
    loss, value = two_hot_cross_entropy(z.requires_grad_(), y.requires_grad_(), SUPPORT, weight=w, return_readout=True)
    assert loss.requires_grad
    assert not value.requires_grad
    loss.backward()
    assert y.grad is None
    arguments = (z, y.detach(), None, None, True, *SUPPORT.support, "two_hot", 0.0, False, False)
    with pytest.raises(RuntimeError, match="called without its gradient"):
        op.cross_entropy(*arguments)[0].backward()


# torch.library, torch.compile, torch.func


@pytest.fixture
def no_vmap_fallback():
    """An operation without a rule of its own is an error, not a loop."""
    torch._C._functorch._set_vmap_fallback_enabled(False)
    yield
    torch._C._functorch._set_vmap_fallback_enabled(True)


def test_registered_as_torch_asks() -> None:
    z, y, u = normal(6, 9), normal(3, seed=1), normal(6, seed=2)
    mask = torch.tensor([True, False, True])
    support = (-10.0, 10.0, "symlog", "transformed")

    def leaf() -> Tensor:
        return z.clone().requires_grad_()

    def check(operation, *arguments) -> None:
        results = torch.library.opcheck(operation, arguments)
        assert set(results.values()) == {"SUCCESS"}

    check(op.cross_entropy_rows_op, leaf(), y, mask, *support, "two_hot", 0.0, True)
    check(op.cross_entropy_rows_backward_op, z, y, mask, u, *support[:3], "two_hot", 0.0)
    check(op.cross_entropy_op, leaf(), y, mask, u, True, *support, "two_hot", 0.0, True, True)
    check(op.cross_entropy_op, z.bfloat16(), y, None, None, False, *support, "hl_gauss", 0.75, False, False)
    check(op.expectation_op, leaf(), *support)
    check(op.expectation_backward_op, z, u, *support)


def every_loss(z: Tensor, y: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Each face and each way through it, for those who transform functions."""
    mean, value = two_hot_cross_entropy(z, y, SUPPORT, mask=mask, return_readout=True)
    weighted = hl_gauss_cross_entropy(z, y, SUPPORT, weight=weight, reduction="sum")
    rows = two_hot_cross_entropy(z, y, SUPPORT, weight=weight, mask=mask, reduction="none")
    return mean, value, weighted, rows, bin_expectation(z, SUPPORT)


def combined(outputs: tuple[Tensor, ...]) -> Tensor:
    mean, _, weighted, rows, value = outputs
    return mean + 0.5 * weighted + (rows * torch.arange(rows.numel()).view_as(rows)).sum() + value.sum()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # of inductor's own imports
def test_compiles_by_inductor() -> None:
    bins = ValueBins(-4.0, 4.0, 16)  # made here, for bins remember what was computed from them

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return two_hot_cross_entropy(z, y, bins, reduction="sum")

    torch.compiler.reset()
    z, y = normal(4, 3, 16).requires_grad_(), normal(3, seed=1)
    options = {"compile_threads": 1, "cpp_cache_precompile_headers": False}  # cheaper for one small graph
    actual, expected = torch.compile(loss, fullgraph=True, options=options)(z, y), loss(z, y)
    assert_accurate(actual, expected.detach().double())
    assert_accurate(truth.gradient(actual, z), truth.gradient(expected, z).double())
    torch.compiler.reset()


def test_compiles_without_a_break() -> None:
    torch.compiler.reset()
    compiled = torch.compile(every_loss, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in (3, 5):
        z, y = normal(4, size, 16).requires_grad_(), normal(size, seed=1)
        mask, weight = normal(size, seed=2) > -0.5, normal(4, 1, seed=3).requires_grad_()
        expected, actual = every_loss(z, y, mask, weight), compiled(z, y, mask, weight)
        for a, b in zip(actual, expected, strict=True):
            assert_accurate(a, b.detach().double())
        gradients = [torch.autograd.grad(combined(outputs), (z, weight)) for outputs in (actual, expected)]
        for a, b in zip(*gradients, strict=True):
            assert_accurate(a, b.double(), floor=16)
    torch.compiler.reset()


@pytest.mark.parametrize(
    "mapped",
    [dict(zip("zymw", chosen, strict=True)) for chosen in itertools.product((True, False), repeat=4) if any(chosen)],
    ids=lambda mapped: "".join(name for name, yes in mapped.items() if yes),
)
def test_vmap_equals_a_loop(mapped: dict[str, bool], no_vmap_fallback) -> None:
    size = 3
    single = {"z": normal(2, 4, 16), "y": normal(4, seed=1), "m": normal(4, seed=2) > -0.5, "w": normal(2, 1, seed=3)}
    inputs = {
        name: torch.stack([x.roll(i, 0).roll(i, -1) for i in range(size)], 1) if mapped[name] else x
        for name, x in single.items()
    }
    axes = tuple(1 if mapped[name] else None for name in inputs)

    def gradients(z: Tensor, y: Tensor, m: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        return grad(lambda z, w: combined(every_loss(z, y, m, w)), argnums=(0, 1))(z, w)

    for function in (every_loss, gradients):
        actual = vmap(function, in_dims=axes)(*inputs.values())
        for i in range(size):
            own = [x.select(1, i) if mapped[name] else x for name, x in inputs.items()]
            for a, b in zip(actual, function(*own), strict=True):
                assert_accurate(a[i], b.double())


def test_transforms_nest() -> None:
    z, y = normal(3, 2, 4, 16), normal(2, 4, seed=1)
    nested = vmap(vmap(lambda z, y: two_hot_cross_entropy(z, y, SUPPORT)), in_dims=(0, None))(z, y)
    assert_accurate(
        nested, torch.stack([two_hot_cross_entropy(x, y, SUPPORT, reduction="none").mean(1) for x in z]).double()
    )

    rows = jacrev(lambda z: two_hot_cross_entropy(z, y[0], SUPPORT, reduction="none"))(z[0, 0])
    values = jacrev(lambda z: bin_expectation(z, SUPPORT))(z[0, 0])
    leaf = z[0, 0].clone().requires_grad_()
    for jacobian, output in (
        (rows, two_hot_cross_entropy(leaf, y[0], SUPPORT, reduction="none")),
        (values, bin_expectation(leaf, SUPPORT)),
    ):
        expected = [torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in output]
        assert_accurate(jacobian, torch.stack(expected).double())
    with pytest.raises(RuntimeError, match=REFUSED):
        grad(lambda z: grad(lambda z: two_hot_cross_entropy(z, y[0], SUPPORT))(z).square().sum())(z[0, 0])


@every_face
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_tracing_reads_no_data(face, mode: str) -> None:
    def gradient(z: Tensor, y: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        return torch.autograd.grad(face(z, y, SUPPORT), z)[0]

    z, y = normal(5, 16), normal(5, seed=1)
    graph = make_fx(gradient, tracing_mode=mode)(z, y)
    names = {str(node.target) for node in graph.graph.nodes}
    assert any(name.startswith("twohot.") for name in names)
    other, target = normal(5, 16, seed=2), normal(5, seed=3)
    assert_accurate(graph(other, target), gradient(other, target).double())


@every_face
def test_fake_tensors_have_no_data(face) -> None:
    with FakeTensorMode():
        z, y = torch.empty(5, 16, requires_grad=True), torch.empty(5)
        loss = face(z, y, SUPPORT)
        loss.backward()
        (2 * face(z, y, SUPPORT)).backward()
        assert (loss.shape, z.grad.shape) == ((), (5, 16))
