"""The last layer fused with its loss under autograd, torch.library, torch.compile and torch.func."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from compare import OF_TWO, assert_accurate
from layer_examples import (
    BINS,
    BINS_64,
    NAN,
    by_formulas,
    gradients,
    layer_example,
    leaves,
    sensitivities,
)
from two_hot_truth import normal
from twohot.kernels.linear_two_hot import op
from twohot.kernels.two_hot import op as rows_op
from twohot.losses import (
    linear_bin_expectation,
    linear_hl_gauss_cross_entropy,
    linear_two_hot_cross_entropy,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# Gradients as autograd wants them


FACES = {
    "mean": linear_two_hot_cross_entropy,
    "sum": lambda h, w, b, y, bins: linear_hl_gauss_cross_entropy(h, w, b, y, bins, reduction="sum"),
    "none": lambda h, w, b, y, bins: linear_two_hot_cross_entropy(h, w, b, y, bins, reduction="none").sum(),
    "readout": lambda h, w, b, y, bins: linear_bin_expectation(h, w, b, bins).sum(),
}
every_face = pytest.mark.parametrize("face", FACES.values(), ids=FACES.keys())
REFUSED = r"can be differentiated once\. .*TWOHOT_BACKEND=reference"


@every_face
def test_one_graph_may_go_backward_again_and_again(face) -> None:
    tensors, y = leaves(layer_example(2, (5,), 4, 16)), normal(5, seed=1)
    loss = face(*tensors, y, BINS)
    first, second = (torch.autograd.grad(loss, tensors, retain_graph=True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    assert len({x.untyped_storage().data_ptr() for x in (*first, *second, *tensors)}) == 9
    expected = [x.clone() for x in first]
    for count in (1, 2, 3):
        loss.backward(retain_graph=True)
        for x, once in zip(tensors, expected, strict=True):
            assert_accurate(x.grad, (count * once).double())


@every_face
@pytest.mark.parametrize("factor", [2.0, -0.5, 0.0, NAN])
def test_a_loss_may_be_used_with_a_factor(face, factor) -> None:
    tensors, y = leaves(layer_example(2, (5,), 4, 16)), normal(5, seed=1)
    once = torch.autograd.grad(face(*tensors, y, BINS), tensors)
    scaled = torch.autograd.grad(factor * face(*tensors, y, BINS), tensors)
    of = sensitivities(tensors, y, BINS, 0.75 if face is FACES["sum"] else 0.0)
    bounds = of.of_value if face is FACES["readout"] else of.of_loss
    for a, b, bound in zip(scaled, once, bounds.values(), strict=True):
        size = 0.0 if math.isnan(factor) else abs(factor) / (10 if face is FACES["mean"] else 1)
        assert_accurate(a, factor * b.double(), floor=OF_TWO, sensitivity=size * bound)


def test_a_loss_scale_saves_the_gradients_of_float16() -> None:
    rows, scale = 30_000, 2.0**16
    inputs = layer_example(None, (rows,), 8, 64, torch.float16)
    tensors, exact = leaves(inputs), leaves(inputs, torch.float64)
    target = normal(rows, seed=4)
    found = gradients(scale * linear_two_hot_cross_entropy(*tensors, target, BINS_64), tensors)
    expected = gradients(scale * by_formulas(exact, target, BINS_64, 0.0, None, None, "mean")[0], exact)
    for name, x in found.items():
        size = expected[name].abs().amax()
        assert_accurate((x.double() / size).half(), expected[name] / size, floor=16)


@every_face
def test_a_gradient_that_was_changed_in_place_is_never_given_again(face) -> None:
    tensors, y = leaves(layer_example(2, (5,), 4, 16)), normal(5, seed=1)
    loss = face(*tensors, y, BINS)
    found = torch.autograd.grad(loss, tensors, retain_graph=True)
    expected = [x.clone() for x in found]
    found[1].zero_()
    try:
        again = torch.autograd.grad(loss, tensors, retain_graph=True)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
    else:
        assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


@every_face
@pytest.mark.parametrize("asked", [(0, 1, 2), (0,), (1,), (2,)])
def test_a_second_derivative_is_refused(face, asked) -> None:
    inputs, y = layer_example(2, (5,), 4, 16), normal(5, seed=1)
    tensors = [x.requires_grad_(i in asked) for i, x in enumerate(inputs)]
    leaf = tensors[asked[0]]

    def penalty() -> Tensor:
        (gradient,) = torch.autograd.grad(face(*tensors, y, BINS), leaf, create_graph=True)
        return gradient.square().sum()

    with pytest.raises(RuntimeError, match=REFUSED):
        penalty().backward()
    # It must not fall away in silence beside a loss that has a gradient.
    with pytest.raises(RuntimeError, match=REFUSED):
        (face(*tensors, y, BINS) + penalty()).backward()
    with pytest.raises(RuntimeError, match=REFUSED):
        torch.autograd.grad(face(*tensors, y, BINS) + penalty(), leaf)


def test_outputs_do_not_depend_on_what_their_memory_held() -> None:
    hidden, weight, bias = layer_example(2, (3000,), 256, 16)  # the gradient of hidden is in pooled memory
    target, mask = normal(3000, seed=4), normal(3000, seed=5) < 0.5
    results = []
    for fill in (NAN, 0.0):
        found = []
        torch.utils.deterministic.fill_uninitialized_memory = True  # with NaN, what torch itself allocates
        torch.use_deterministic_algorithms(True)
        try:
            for options in ({}, {"mask": mask}, {"mask": mask, "reduction": "none"}):
                rows_op.empty_from_pool(hidden.shape, hidden).fill_(fill)
                tensors = leaves((hidden, weight, bias))
                loss, value = linear_two_hot_cross_entropy(*tensors, target, BINS, return_readout=True, **options)
                found += [loss.detach(), value, *(x.clone() for x in gradients(loss, tensors).values())]
        finally:
            torch.use_deterministic_algorithms(False)
        results.append(found)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


# torch.library, torch.compile, torch.func


def test_registered_as_torch_asks() -> None:
    inputs = layer_example(2, (3,), 4, 9)
    y, mask, u = normal(3, seed=4), torch.tensor([True, False, True]), normal(6, seed=5)
    support = (-10.0, 10.0, "symlog", "transformed")

    def check(operation, *arguments) -> None:
        results = torch.library.opcheck(operation, arguments)
        assert set(results.values()) == {"SUCCESS"}

    check(op.linear_cross_entropy_op, *leaves(inputs), y, mask, u, True, *support, "two_hot", 0.0, True, [True] * 3)
    check(
        op.linear_cross_entropy_op,
        *inputs[:2],
        None,
        y,
        None,
        None,
        False,
        *support,
        "hl_gauss",
        0.75,
        False,
        [False] * 3,
    )
    check(op.linear_cross_entropy_rows_op, *leaves(inputs), y, mask, *support, "two_hot", 0.0, True)
    check(
        op.linear_cross_entropy_rows_backward_op, *inputs, y, mask, u, *support[:3], "two_hot", 0.0, [True, True, False]
    )
    check(op.linear_expectation, *inputs, *support)


def every_loss(h: Tensor, w: Tensor, b: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    mean, value = linear_two_hot_cross_entropy(h, w, b, y, BINS, mask=mask, return_readout=True)
    rows = linear_hl_gauss_cross_entropy(h, w, None, y, BINS, reduction="none")
    return (
        mean,
        value,
        rows,
        linear_bin_expectation(h, w, b, BINS),
        linear_bin_expectation(h.detach(), w.detach(), None, BINS),
    )


def sensitivity_of_every_loss(h: Tensor, w: Tensor, b: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """Of each output."""
    masked, rows = sensitivities((h, w, b), y, BINS, mask=mask), sensitivities((h, w, None), y, BINS, 0.75)
    return masked.loss.sum() / (2 * mask.sum()), masked.value, rows.loss, masked.value, rows.value


def sensitivity_of_combined(h: Tensor, w: Tensor, b: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """Of its gradients."""
    masked, whole = (sensitivities((h, w, b), y, BINS, mask=m) for m in (mask, None))
    rows = sensitivities((h, w, None), y, BINS, 0.75, row_weight=torch.arange(10.0).view(2, 5))
    return tuple(
        masked.of_loss[name] / (2 * mask.sum()) + rows.of_loss.get(name, 0) + 0.5 * whole.of_value[name]
        for name in masked.of_loss
    )


def combined(outputs: tuple[Tensor, ...]) -> Tensor:
    mean, _, rows, value, _ = outputs
    return mean + (rows * torch.arange(rows.numel()).view_as(rows)).sum() + 0.5 * value.sum()


def test_compiles_without_a_break() -> None:
    torch.compiler.reset()
    compiled = torch.compile(every_loss, backend="aot_eager", fullgraph=True)
    tensors, y, mask = leaves(layer_example(2, (5,), 4, 16)), normal(5, seed=4), torch.arange(5) != 3
    actual, expected = compiled(*tensors, y, mask), every_loss(*tensors, y, mask)
    for a, b in zip(actual, expected, strict=True):
        assert_accurate(a, b.detach().double(), floor=16)
    found = [torch.autograd.grad(combined(outputs), tensors) for outputs in (actual, expected)]
    for a, b in zip(*found, strict=True):
        assert_accurate(a, b.double(), floor=16)
    torch.compiler.reset()


@pytest.mark.parametrize(
    "mapped", [(1, None, None, 0, None), (None, 0, 0, None, None), (0, 0, 0, 0, 0), (2, 1, 1, None, 0)]
)
def test_vmap_equals_a_loop(mapped) -> None:
    size = 3
    single = (*layer_example(2, (5,), 4, 16), normal(5, seed=4), normal(5, seed=5) < 0.7)
    inputs = [
        x if dim is None else torch.stack([x.roll(i, 0).roll(i, -1) for i in range(size)], dim)
        for x, dim in zip(single, mapped, strict=True)
    ]

    def found(*given):
        return grad(lambda h, w, b: combined(every_loss(h, w, b, *given[3:])), argnums=(0, 1, 2))(*given[:3])

    for function, bounds in ((every_loss, sensitivity_of_every_loss), (found, sensitivity_of_combined)):
        actual = vmap(function, in_dims=mapped)(*inputs)
        for i in range(size):
            own = [x if dim is None else x.select(dim, i) for x, dim in zip(inputs, mapped, strict=True)]
            for a, b, sensitivity in zip(actual, function(*own), bounds(*own), strict=True):
                assert_accurate(a[i], b.double(), floor=OF_TWO, sensitivity=sensitivity)


@pytest.mark.parametrize(
    "face",
    [
        pytest.param(FACES["mean"], id="mean"),
        pytest.param(FACES["none"], id="none"),
        pytest.param(
            FACES["readout"], id="readout", marks=pytest.mark.xfail(reason="linear_expectation has no rule for vmap")
        ),
    ],
)
def test_no_operation_is_mapped_over_by_a_slow_loop(face) -> None:
    h, w, b = layer_example(2, (5,), 4, 16)
    torch._C._functorch._set_vmap_fallback_enabled(False)
    try:
        vmap(lambda h: face(h, w, b, torch.zeros(5), BINS))(h.expand(3, 2, 5, 4))
    finally:
        torch._C._functorch._set_vmap_fallback_enabled(True)


@every_face
@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_tracing_reads_no_data(face, mode) -> None:
    def found(h: Tensor, w: Tensor, b: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        tensors = [x.detach().requires_grad_() for x in (h, w, b)]
        return torch.autograd.grad(face(*tensors, y, BINS), tensors)

    inputs = (*layer_example(2, (5,), 4, 16), normal(5, seed=4))
    graph = make_fx(found, tracing_mode=mode)(*inputs)
    assert any(str(node.target).startswith("twohot.") for node in graph.graph.nodes)
    other = [x.flip(0) for x in inputs]
    for a, b in zip(graph(*other), found(*other), strict=True):
        assert_accurate(a, b.double(), floor=16)


@every_face
def test_fake_tensors_have_no_data(face) -> None:
    with FakeTensorMode():
        tensors = [torch.empty(shape, requires_grad=True) for shape in ((2, 5, 4), (2, 16, 4), (2, 16))]
        y = torch.empty(5)
        loss = face(*tensors, y, BINS)
        loss.backward()
        (2 * face(*tensors, y, BINS)).backward()
        assert loss.shape == ()
        assert [x.grad.shape for x in tensors] == [x.shape for x in tensors]
