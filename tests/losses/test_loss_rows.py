"""Masks, weights, reductions and shapes of the value losses, by every implementation on a CPU."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import two_hot_truth as truth
from compare import assert_accurate
from loss_loops import (
    INFINITY,
    NAN,
    compute_dtype,
    cross_entropies,
    cross_entropy_of,
    example,
    forward,
    readout,
)
from two_hot_truth import normal
from twohot.losses import (
    ValueBins,
    bin_expectation,
    hl_gauss,
    two_hot,
    two_hot_cross_entropy,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# Mask, weight, reduction, readout beside the loss


def test_reductions_weights_and_masks(dtype):
    bins, logits, target, weight, mask = example(dtype)
    values = truth.readout(logits.double(), bins)
    for use_weight, use_mask, sigma in itertools.product((False, True), (False, True), (0.0, 0.75)):
        rows = cross_entropies(logits.double(), target.double(), bins, sigma)
        expected = rows * (weight.double() if use_weight else 1) * (mask if use_mask else 1)
        count = mask.sum().item() if use_mask else mask.numel()
        exact = {"none": expected, "sum": expected.sum(), "mean": expected.sum() / count}
        for reduction, with_readout in itertools.product(exact, (False, True)):
            loss = cross_entropy_of(
                logits,
                target,
                bins,
                sigma,
                weight=weight if use_weight else None,
                mask=mask if use_mask else None,
                reduction=reduction,
                return_readout=with_readout,
            )
            if with_readout:
                loss, value = loss
                assert value.dtype == compute_dtype(dtype)
                assert_accurate(value, torch.where(mask, values, 0) if use_mask else values, floor=64)
            assert loss.dtype == compute_dtype(dtype)
            assert_accurate(loss, exact[reduction], floor=64)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_masked_rows_contribute_exactly_nothing_even_nan(reduction, dtype):
    bins, logits, target, weight, mask = example(dtype)

    def value_and_gradients(logits, target, weight, learnt_weight):
        logits, weight = logits.clone().requires_grad_(), weight.clone().requires_grad_(learnt_weight)
        loss, value = two_hot_cross_entropy(
            logits, target, bins, weight=weight, mask=mask, reduction=reduction, return_readout=True
        )
        found = truth.gradient(loss, (logits, weight) if learnt_weight else (logits,))
        return loss.detach(), value, *found

    def spoilt(x, mask):
        return torch.where(mask, x, torch.tensor(NAN, dtype=x.dtype))

    for learnt_weight in (False, True):
        clean = value_and_gradients(logits, target, weight, learnt_weight)
        poisoned = value_and_gradients(
            spoilt(logits, mask.unsqueeze(-1)), spoilt(target, mask), spoilt(weight, mask), learnt_weight
        )
        for a, b in zip(clean, poisoned, strict=True):
            assert torch.equal(a, b)
        assert poisoned[1][~mask].eq(0).all()
        assert poisoned[2][~mask].eq(0).all()
        assert poisoned[2][mask].ne(0).all()
    assert poisoned[3][~mask].eq(0).all()
    assert poisoned[3][mask].ne(0).all()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_nothing_but_masked_rows_is_zero(reduction, dtype):
    bins, logits, _, _, mask = example(dtype)
    logits = torch.full_like(logits, NAN, requires_grad=True)
    target = torch.full(mask.shape, NAN)
    for nothing in (torch.zeros_like(mask), torch.zeros((), dtype=torch.bool)):
        loss, value = two_hot_cross_entropy(
            logits, target, bins, mask=nothing, reduction=reduction, return_readout=True
        )
        assert loss.eq(0).all()
        assert value.eq(0).all()
        assert truth.gradient(loss, logits).eq(0).all()


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_no_rows_at_all_is_zero(reduction, dtype):
    bins = ValueBins.amago2(4)
    for shape in ((0,), (3, 0), (0, 2)):
        logits = torch.zeros(*shape, 4, dtype=dtype, requires_grad=True)
        loss, value = two_hot_cross_entropy(
            logits, torch.zeros(shape), bins, weight=torch.ones(()), reduction=reduction, return_readout=True
        )
        assert loss.sum().item() == 0
        assert value.shape == bin_expectation(logits, bins).shape == shape
        assert truth.gradient(loss.sum(), logits).shape == logits.shape
    assert two_hot(torch.zeros(2, 0), bins).shape == hl_gauss(torch.zeros(2, 0), bins).shape == (2, 0, 4)


def test_a_row_without_dimensions(dtype):
    bins = ValueBins.amago2(6)
    logits, target = normal(6, dtype=dtype).requires_grad_(), torch.tensor(4.0)
    exact = cross_entropies(logits.detach().double(), target, bins)
    for reduction in ("none", "sum", "mean"):
        loss, value = two_hot_cross_entropy(logits, target, bins, reduction=reduction, return_readout=True)
        assert loss.shape == value.shape == ()
        assert_accurate(loss, exact, floor=16)
        assert truth.gradient(loss, logits).shape == (6,)
    assert bin_expectation(logits, bins).shape == ()


@pytest.mark.parametrize("return_readout", [False, True])
@pytest.mark.parametrize("sigma", [0.0, 0.75])
def test_a_nan_row_stays_alone(sigma, return_readout, dtype):
    bins, logits, target, _, _ = example(dtype)
    clean = bin_expectation(logits, bins)
    target[1, 2, 0] = NAN
    logits[0, 0, 1, 3] = NAN
    logits.requires_grad_()
    loss = cross_entropy_of(logits, target, bins, sigma, reduction="none", return_readout=return_readout)
    expected = torch.zeros(3, 4, 2, dtype=torch.bool)
    expected[1, 2, 0] = expected[0, 0, 1] = True
    if return_readout:
        loss, value = loss
        # The readout knows no target.
        assert value.isnan().nonzero().tolist() == [[0, 0, 1]]
        assert torch.equal(value[1:], clean[1:])
    assert torch.equal(loss.isnan(), expected)
    gradient = truth.gradient(loss, logits)
    assert torch.equal(gradient.isnan().any(-1), expected)
    assert torch.equal(gradient.isnan().all(-1), expected)
    for reduction in ("sum", "mean"):
        loss = cross_entropy_of(logits, target, bins, sigma, reduction=reduction)
        assert loss.isnan()
        assert torch.equal(truth.gradient(loss, logits).isnan().any(-1), expected)


def test_targets_beyond_the_ends_are_the_ends(dtype):
    for bins in (ValueBins.amago2(9), ValueBins(-2.0, 5.0, 7, "linear"), ValueBins(1.0, 9.0, 4, "signed_sqrt")):
        logits = normal(8, bins.count, dtype=dtype)
        low, high = bins.low, bins.high
        target = torch.tensor([low - 1, -3e38, -INFINITY, low, high + 1, 3e38, INFINITY, high])
        for sigma in (0.0, 0.75):
            loss = cross_entropy_of(logits[:1].expand(8, -1), target, bins, sigma, reduction="none")
            assert_accurate(loss[:4], loss[3].double().expand(4), floor=16)
            assert_accurate(loss[4:], loss[7].double().expand(4), floor=16)
            assert torch.equal(loss[1], loss[2])
            assert torch.equal(loss[5], loss[6])


def test_one_target_for_several_critics(dtype):
    bins = ValueBins.amago2(9)
    logits = normal(4, 3, 5, 2, 9, dtype=dtype)  # [C, B, L, G, N]
    target = 10 * normal(3, 5, 2, seed=1, dtype=compute_dtype(dtype))
    mask = normal(3, 5, 1, seed=2) < 0.5
    rows = cross_entropies(logits.double(), target.double().expand(4, 3, 5, 2), bins)
    loss = two_hot_cross_entropy(logits, target, bins, mask=mask)
    assert_accurate(loss, rows[mask.expand(4, 3, 5, 2)].mean(), floor=64)
    assert two_hot_cross_entropy(logits, target[0, 0, 0], bins, reduction="none").shape == (4, 3, 5, 2)


@st.composite
def problems(draw):
    rows = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))

    def shared():
        return tuple(1 if draw(st.booleans()) else size for size in rows[draw(st.integers(0, len(rows))) :])

    transform = draw(st.sampled_from(["symlog", "linear", "signed_sqrt"]))
    low = draw(st.floats(-1e4, 1e4))
    readout = draw(st.sampled_from(["transformed", "raw"]))
    bins = ValueBins(low, low + draw(st.floats(0.5, 1e5)), draw(st.integers(2, 12)), transform, readout)
    sigma = draw(st.sampled_from([0.0, 0.3, 0.75, 3.0]))
    return rows, (shared(), shared(), shared()), bins, sigma, draw(st.integers(0, 2**31))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(problems())
def test_any_shape(problem):
    """float64 by plain PyTorch against loops; float32 by native code against float64."""
    rows, (of_target, of_weight, of_mask), bins, sigma, seed = problem
    logits, width = 5 * normal(*rows, bins.count, seed=seed, dtype=torch.float64), bins.high - bins.low
    logits = logits.float().double().requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    target = (bins.low + width * (1.4 * torch.rand(of_target, generator=generator) - 0.2)).double()
    weight = torch.rand(of_weight, generator=generator).double().requires_grad_()
    mask = torch.rand(of_mask, generator=generator) < 0.7
    with torch.no_grad():
        expected = cross_entropies(logits, target.expand(rows), bins, sigma) * weight * mask
        values = [readout(row, bins) for row in logits.reshape(-1, bins.count).tolist()]
        values = torch.tensor(values, dtype=torch.float64).reshape(rows)
    # A narrow support far from zero loses digits in f(y) - f(low); its place is then off by more than an eps.
    ends = [abs(forward(end, bins.transform)) for end in (bins.low, bins.high)]
    digits = 1 + max(ends) / (forward(bins.high, bins.transform) - forward(bins.low, bins.transform))
    floor = 400 * bins.count * digits

    def results(logits, weight):
        options = {"weight": weight, "mask": mask, "return_readout": True}
        loss, value = cross_entropy_of(logits, target, bins, sigma, reduction="none", **options)
        mean, again = cross_entropy_of(logits, target, bins, sigma, **options)
        # Without a weight that learns, mean and gradient come from one pass.
        fixed = cross_entropy_of(logits, target, bins, sigma, weight=weight.detach(), mask=mask, reduction="sum")
        assert torch.equal(value, again)
        return loss, mean, value, *truth.gradient(mean, (logits, weight)), truth.gradient(fixed, logits)

    exact = results(logits, weight)
    count = max(1, int(mask.expand(rows).sum()))
    assert_accurate(exact[0], expected, floor=floor)
    assert_accurate(exact[1], expected.sum() / count, floor=floor)
    assert_accurate(exact[2], values * mask, floor=1e6 * digits)
    assert_accurate(exact[5], exact[3] * count, floor=floor)
    single = results(logits.detach().float().requires_grad_(), weight.detach().float().requires_grad_())
    for a, b, bound in zip(single, exact, (floor, floor, 1e3 * digits, floor, floor, floor), strict=True):
        assert_accurate(a, b.detach(), floor=bound)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_a_weight_learns_where_it_asks_to(reduction, dtype):
    bins, logits, target, _, mask = example(dtype)
    for shape in ((), (2,), (4, 1), (3, 1, 2), (3, 4, 2)):
        weight = normal(*shape, seed=1, dtype=compute_dtype(dtype)).requires_grad_()
        for learnt_logits in (False, True):
            z = logits.clone().requires_grad_(learnt_logits)
            loss = two_hot_cross_entropy(z, target, bins, weight=weight, mask=mask, reduction=reduction)
            gradient = truth.gradient(loss, weight)
            rows = cross_entropies(logits.double(), target.double(), bins) * mask
            exact = rows.sum_to_size(shape) if shape else rows.sum()
            exact = exact / mask.sum() if reduction == "mean" else exact
            assert_accurate(gradient, exact, floor=64)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_target_for_each_row_in_any_layout_and_dtype(implementation, reduction):
    bins, logits, target = ValueBins.amago2(9), normal(6, 9).requires_grad_(), (100 * normal(12)).half().float()

    def results(y):
        loss = two_hot_cross_entropy(logits, y, bins, reduction=reduction)
        return loss.detach(), truth.gradient(loss, logits)

    expected = results(target[::2].clone())
    for y in (target[::2], target[::2].double(), target[::2].half(), target.clone().requires_grad_()[::2]):
        for one, other in zip(results(y), expected, strict=True):
            assert torch.equal(one, other)
