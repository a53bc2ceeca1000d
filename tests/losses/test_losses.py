"""Readouts and cross-entropies by every implementation on a CPU, against float64."""

import itertools
import math

import pytest
import torch

import two_hot_truth as truth
from compare import assert_accurate
from loss_loops import (
    INFINITY,
    centers,
    compute_dtype,
    cross_entropy_of,
    every_support,
    inverse,
    labels,
    targets_of,
)
from two_hot_truth import SUPPORTS, normal
from twohot.losses import (
    BinExpectation,
    ValueBins,
    bin_expectation,
    hl_gauss_cross_entropy,
    two_hot,
    two_hot_cross_entropy,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# Readout


@every_support
def test_readout(bins, dtype):
    logits = (3 * normal(64, bins.count, seed=2)).to(dtype)
    exact = truth.readout(logits.double(), bins)
    value = bin_expectation(logits, bins)
    assert value.dtype == compute_dtype(dtype)
    plain = None if dtype == torch.float64 else truth.readout(logits.to(compute_dtype(dtype)), bins)
    # Of large values of both signs little may remain.
    share = logits.double().softmax(-1) @ truth.bin_values(bins).abs() / exact.abs().clamp(min=1)
    assert_accurate(value, exact, plain, floor=(8 + 2 * share.amax().item()) * (64 if dtype == torch.float64 else 1))
    assert_accurate(BinExpectation(bins)(logits), value.double())


@every_support
def test_the_readout_of_a_label_is_its_target(bins):
    target = targets_of(bins)
    logits = two_hot(target, bins).log()
    value = bin_expectation(logits, bins)
    if bins.readout == bins.labels or bins.transform == "linear":
        expected = target.clamp(bins.low, bins.high)
    else:
        on_bins = torch.tensor([inverse(b, bins.transform) for b in centers(bins)], dtype=torch.float64)
        expected = labels(target, bins) @ on_bins
    assert ((value - expected).abs() <= 1e-9 * (1 + expected.abs())).all()


@pytest.mark.parametrize("name", [name for name, bins in SUPPORTS.items() if bins.low == -bins.high])
def test_a_symmetric_distribution_reads_as_exactly_zero(name, implementation):
    bins = SUPPORTS[name]
    for dtype in (torch.float32, torch.bfloat16):
        half = 5 * normal(100, bins.count, seed=3, dtype=dtype)
        half[0] = 0
        half[1] = -INFINITY
        half[1, 1 % bins.count] = 0
        symmetric = torch.maximum(half, half.flip(-1))
        assert bin_expectation(symmetric, bins).eq(0).all()
        loss = two_hot_cross_entropy(symmetric, torch.zeros(100), bins, reduction="none", return_readout=True)
        assert loss[1].eq(0).all()


def test_readout_of_enormous_logits_is_the_bin(implementation):
    for bins in (ValueBins.amago2(), ValueBins.tdmpc2()):
        for top in (1e4, 1e30):
            logits = torch.full((bins.count, bins.count), -top)
            logits.fill_diagonal_(top)
            assert_accurate(bin_expectation(logits, bins), bins.values(torch.float64), floor=64)


@every_support
def test_gradient_of_the_readout(bins, dtype):
    logits = (3 * normal(64, bins.count, seed=2)).to(dtype)
    grad_output = normal(64, seed=3, dtype=compute_dtype(dtype)) / bins.values().abs().amax()

    def found(function, logits, grad_output):
        logits = logits.detach().clone().requires_grad_()
        return truth.gradient(function(logits), logits, grad_output)

    exact = found(lambda z: truth.readout(z, bins), logits.double(), grad_output.double())
    plain = found(lambda z: truth.readout(z.to(compute_dtype(dtype)), bins), logits, grad_output)
    assert_accurate(found(lambda z: bin_expectation(z, bins), logits, grad_output), exact, plain, floor=16)


def test_the_readout_has_a_gradient_where_it_is_zero(dtype):
    # d symexp(x) / dx = exp(|x|), which is 1 at 0; there, the gradient is p (b - sum p b) = b / N for uniform p.
    bins = ValueBins.amago2(5)
    logits = torch.zeros(5, dtype=dtype, requires_grad=True)
    value = bin_expectation(logits, bins)
    assert value.item() == 0
    value.backward()
    assert_accurate(logits.grad, torch.tensor([b / 5 for b in centers(bins)], dtype=torch.float64))


# Cross-entropy


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.75, 3.0, 40.0])
@every_support
def test_cross_entropy_and_its_gradient(bins, sigma, dtype):
    target = targets_of(bins, compute_dtype(dtype))
    logits, grad_output = (
        normal(len(target), bins.count, seed=4, dtype=dtype),
        normal(len(target), seed=5, dtype=compute_dtype(dtype)),
    )

    def run(loss, logits, grad_output):
        logits = logits.detach().clone().requires_grad_()
        rows = loss(logits)
        return rows.detach(), truth.gradient(rows, logits, grad_output)

    actual = run(lambda z: cross_entropy_of(z, target, bins, sigma, reduction="none"), logits, grad_output)
    label = truth.labels(target.double(), bins, sigma)
    exact = run(lambda z: truth.cross_entropy(z, label), logits.double(), grad_output.double())
    plain_label = truth.labels(target, bins, sigma)
    plain = run(lambda z: truth.cross_entropy(z.to(compute_dtype(dtype)), plain_label), logits, grad_output)
    assert (actual[0].dtype, actual[1].dtype) == (compute_dtype(dtype), dtype)
    # An eps in f(y) moves the place among the bins by N eps, and the label by its slope as much; a label of HL-Gauss
    # is divided by the mass inside the bins.
    slope = max(1.0, 0.4 / sigma) if sigma > 0 else 1.0
    inside = math.erf((bins.count - 0.5) / sigma / 2**0.5) / 2 + math.erf(0.5 / sigma / 2**0.5) / 2 if sigma else 1.0
    floor = (4 + 2 * bins.count * slope + 2 / inside) * (2 if dtype == torch.float64 else 1)
    assert_accurate(actual[0], exact[0], plain[0], floor=floor)
    assert_accurate(actual[1], exact[1], plain[1], floor=floor if dtype == compute_dtype(dtype) else 4.0)


def test_cross_entropy_by_hand(implementation):
    bins = ValueBins(0.0, 1.0, 2, "linear")
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    loss = two_hot_cross_entropy(logits, torch.tensor([0.3, 0.25]), bins, reduction="none")
    assert loss.tolist() == pytest.approx([math.log(2), 0.75 * math.log(4 / 3) + 0.25 * math.log(4)])
    # HL-Gauss at the middle: half and half.
    loss = hl_gauss_cross_entropy(logits, torch.tensor([0.5, 0.5]), bins, reduction="none")
    assert loss.tolist() == pytest.approx([math.log(2), 0.5 * math.log(4 / 3) + 0.5 * math.log(4)])


def test_enormous_logits(dtype):
    bins = ValueBins.amago2(4)
    logits = torch.tensor([[1e4, -1e4, -1e4, -1e4], [-1e4, -1e4, -1e4, 1e4]], dtype=dtype, requires_grad=True)
    loss = two_hot_cross_entropy(logits, torch.tensor([-INFINITY, -INFINITY]), bins, reduction="none")
    assert loss.tolist() == [0, 2 * logits[0, 0].item()]
    loss.sum().backward()
    assert logits.grad.tolist() == [[0, 0, 0, 0], [-1, 0, 0, 1]]


def test_equal_logits(dtype):
    for count in (2, 8, 100):
        bins = ValueBins.amago2(count)
        logits = torch.full((5, count), -300.0, dtype=dtype)
        target = torch.tensor([-INFINITY, -5.0, 0.0, 7.0, 1e9])
        exact = torch.full((5,), math.log(count), dtype=torch.float64)
        for sigma in (0.0, 0.75):
            loss, value = cross_entropy_of(logits, target, bins, sigma, reduction="none", return_readout=True)
            assert_accurate(loss, exact)
            assert value.eq(0).all()


def test_a_logit_of_minus_infinity(dtype):
    bins = ValueBins(0.0, 4.0, 5, "linear")
    logits = torch.tensor([[0.0, 0.0, -INFINITY, 0.0, 0.0]] * 2, dtype=dtype, requires_grad=True)
    loss, value = two_hot_cross_entropy(logits, torch.tensor([0.5, 2.0]), bins, reduction="none", return_readout=True)
    assert loss.tolist() == pytest.approx([math.log(4), INFINITY])
    assert value.tolist() == pytest.approx([2, 2])
    assert truth.gradient(loss, logits).tolist() == [[-0.25, -0.25, 0, 0.25, 0.25], [0.25, 0.25, -1, 0.25, 0.25]]


def test_gradients_numerically():
    bins = ValueBins(-5.0, 20.0, 4)
    logits = normal(2, 3, 4, seed=7, dtype=torch.float64).requires_grad_()
    target = 10 * normal(3, seed=8, dtype=torch.float64)
    weight = normal(2, 1, seed=9, dtype=torch.float64).abs().requires_grad_()
    mask = torch.tensor([True, False, True])
    for reduction, sigma in itertools.product(("none", "sum", "mean"), (0.0, 0.75)):
        options = {"mask": mask, "reduction": reduction}
        assert torch.autograd.gradcheck(
            lambda x, w, sigma=sigma, options=options: cross_entropy_of(x, target, bins, sigma, weight=w, **options),
            (logits, weight),
        )
    for readout in ("transformed", "raw"):
        for transform in ("symlog", "signed_sqrt", "linear"):
            support = ValueBins(-5.0, 20.0, 4, transform, readout)
            assert torch.autograd.gradcheck(lambda x, s=support: bin_expectation(x, s), (logits[0],))


def test_the_target_gets_no_gradient(implementation):
    bins = ValueBins.amago2(8)
    target = torch.tensor([3.0], requires_grad=True)
    for reduction in ("mean", "none"):
        loss = two_hot_cross_entropy(torch.zeros(1, 8, requires_grad=True), target, bins, reduction=reduction)
        loss.sum().backward()
        assert target.grad is None


def test_more_bins_than_fused_code_takes():
    bins = ValueBins.amago2(4097)
    logits, target = 3 * normal(5, 4097), 1000 * normal(5, seed=1)
    loss, value = two_hot_cross_entropy(logits, target, bins, reduction="none", return_readout=True)
    exact = truth.cross_entropy(logits.double(), truth.labels(target.double(), bins))
    assert_accurate(loss, exact, truth.cross_entropy(logits, truth.labels(target, bins)), floor=4100)
    assert_accurate(value, truth.readout(logits.double(), bins), truth.readout(logits, bins))
