"""Gradients that are found in advance: kept graphs, recomputed ones, changes in place, and memory of the pool."""

import gc
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from twohot import losses
from twohot.attention import causal_attention
from twohot.kernels.critics import op as critics_op
from twohot.kernels.images.op import max_pool, residual_norm
from twohot.losses import ValueBins
from twohot.nets.transformer import TransformerLayer

pytestmark = pytest.mark.usefixtures("one_thread")
BINS = ValueBins.amago2(64)
ROWS = 4500  # whose gradient is large enough to come from the pool


def tensors(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def two_hot(reduction, function=losses.two_hot_cross_entropy, rows=ROWS):
    x, target = tensors((rows, 64), (rows,))
    return [x], lambda x: function(x, target, BINS, reduction=reduction).sum()


def linear(reduction, function=losses.linear_two_hot_cross_entropy):
    given, target = tensors((ROWS, 64), (64, 64), (64,)), tensors((ROWS,), seed=1)[0]
    return given, lambda *layer: function(*layer, target, BINS, reduction=reduction).sum()


def readout():
    return tensors((ROWS, 64)), lambda x: losses.bin_expectation(x, BINS).sum()


def attention():
    return tensors(*[(2, 9, 2, 16)] * 3), lambda q, k, v: (causal_attention(q, k, v) ** 2).sum()


def critics():
    steps, entries, rows, width = 30, 4, 60, 16
    given = tensors(
        (2, steps, width), (2, entries, width), (1, 2, width, width), (1, 2, width), (2, width, 64), (2, 64)
    )
    step, entry = torch.arange(rows) % steps, torch.arange(rows) % entries
    target = tensors((rows,), seed=1)[0].detach()
    ends = (*BINS.support, "two_hot", 0.0)

    def loss(state, table, weights, biases, head, head_bias):
        parts = state, table, None, weights, biases, head, head_bias
        return critics_op.cross_entropy(*parts, step, entry, None, target, None, *ends)[0]

    return given, loss


def images():
    given = tensors((2, 16, 7, 7), (2, 16, 7, 7), (16,), (16,))
    return given, lambda x, y, w, b: (max_pool(residual_norm(x, y, 4, w, b, 1e-5)) ** 2).sum()


def layer():
    torch.manual_seed(0)
    module = TransformerLayer(32, 2, 64, 0.0)
    return tensors((2, 9, 32)), lambda x: (module(x) ** 2).sum()


CASES = {
    **{f"two-hot {name}": lambda name=name: two_hot(name) for name in ("none", "mean", "sum")},
    "hl-gauss": lambda: two_hot("mean", losses.hl_gauss_cross_entropy),
    **{f"linear {name}": lambda name=name: linear(name) for name in ("none", "mean", "sum")},
    "linear hl-gauss": lambda: linear("mean", losses.linear_hl_gauss_cross_entropy),
    **{make.__name__: make for make in (readout, attention, critics, images, layer)},
}
every_case = pytest.mark.parametrize("make", CASES.values(), ids=CASES)


def gradients(output, given, **options):
    return torch.autograd.grad(output, given, **options)


def same(found, expected):
    return all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@every_case
@pytest.mark.parametrize("reentrant", [False, True])
def test_activations_may_be_recomputed(make, reentrant):
    given, call = make()
    expected = gradients(call(*given), given)

    def backward(output):
        for x in given:
            x.grad = None
        output.backward()
        return [x.grad for x in given]

    assert same(backward(checkpoint(call, *given, use_reentrant=reentrant)), expected)
    if reentrant:
        return

    def nested(*given):
        return checkpoint(call, *given, use_reentrant=False) * 1.0

    assert same(gradients(checkpoint(nested, *given, use_reentrant=False), given), expected)
    kept = checkpoint(call, *given, use_reentrant=False)
    first = [x.clone() for x in gradients(kept, given, retain_graph=True)]
    assert same(first, expected)
    assert same(gradients(kept, given, retain_graph=True), expected)
    assert same(gradients(kept, given), expected)
    with torch.autograd.graph.save_on_cpu():
        output = call(*given)
    assert same(gradients(output, given), expected)


@pytest.mark.parametrize("make", [CASES["two-hot mean"], CASES["linear sum"], critics, layer])
def test_activations_may_be_recomputed_under_autocast(make):
    given, call = make()

    def cast(*given):
        with torch.autocast("cpu", torch.bfloat16):
            return call(*given)

    expected = gradients(cast(*given), given)
    assert same(gradients(checkpoint(cast, *given, use_reentrant=False), given), expected)


@every_case
def test_who_keeps_a_graph_may_change_what_it_gave(make):
    given, call = make()
    expected = [x.clone() for x in gradients(call(*given), given)]
    output = call(*given)
    for _ in range(3):
        found = gradients(output, given, retain_graph=True)
        assert same(found, expected)
        for x in found:
            x.fill_(float("nan"))
    scaled = gradients(output * 2, given)
    for x, y in zip(scaled, expected, strict=True):
        torch.testing.assert_close(x, 2 * y)


@every_case
def test_gradients_of_several_losses_live_side_by_side(make):
    given, call = make()
    expected = [x.clone() for x in gradients(call(*given), given)]
    first, second = call(*given), call(*given)
    held = [gradients(second, given), gradients(first, given)]
    for _ in range(2):
        gradients(call(*(x.detach().neg().requires_grad_() for x in given)).neg(), given, allow_unused=True)
        losses.release_memory()
        gc.collect()
    assert all(same(found, expected) for found in held)
    for x in given:
        x.grad = None
    for _ in range(2):  # accumulated
        call(*given).backward()
    for x, y in zip(given, expected, strict=True):
        torch.testing.assert_close(x.grad, 2 * y)


@every_case
def test_a_change_of_the_inputs_is_harmless_or_told(make):
    given, call = make()
    expected = [x.clone() for x in gradients(call(*given), given)]
    output = call(*given)
    with torch.no_grad():
        for x in given:
            x.add_(1)
    try:
        found = gradients(output, given)
    except RuntimeError as error:
        told = str(error)
    else:
        told = "" if same(found, expected) else "other gradients"
    assert not told or "modified by an inplace operation" in told


@every_case
def test_second_derivatives_are_refused_in_a_sentence(make):
    given, call = make()

    def twice():
        found = gradients(call(*given), given, create_graph=True)
        return gradients(sum((x**2).sum() for x in found), given)

    with pytest.raises(RuntimeError, match=r"can be differentiated once.*TWOHOT_BACKEND=reference"):
        twice()


@every_case
def test_hooks_may_keep_the_gradient_that_they_see(make):
    given, call = make()
    expected = [x.clone() for x in gradients(call(*given), given)]
    seen = {index: [] for index in range(len(given))}

    def twice(gradient, index):
        seen[index].append(gradient)
        return gradient * 2

    hooks = [x.register_hook(partial(twice, index=index)) for index, x in enumerate(given)]
    output = call(*given)
    found = gradients(output, given, retain_graph=True), gradients(-output, given)
    for hook in hooks:
        hook.remove()
    assert same([first for first, _ in seen.values()], expected)
    assert same([-second for _, second in seen.values()], expected)
    assert same([x / 2 for x in found[0]], expected)
    assert same([x / -2 for x in found[1]], expected)
