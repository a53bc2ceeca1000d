"""Value bins, labels, cross-entropies and readouts by every implementation on a CPU, against float64."""

import itertools
import math
import os
import subprocess
import sys
from functools import cache
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import two_hot_truth as truth
from compare import assert_accurate
from two_hot_truth import SUPPORTS, normal
from twohot.losses import (
    BinExpectation,
    BinsError,
    HLGaussCrossEntropy,
    TwoHotCrossEntropy,
    ValueBins,
    bin_expectation,
    hl_gauss,
    hl_gauss_cross_entropy,
    linear_bin_expectation,
    linear_two_hot_cross_entropy,
    set_checks,
    symexp,
    symlog,
    two_hot,
    two_hot_cross_entropy,
)

NAN, INFINITY = math.nan, math.inf
every_support = pytest.mark.parametrize("bins", SUPPORTS.values(), ids=SUPPORTS.keys())
IMPLEMENTATIONS = [
    ("native", torch.float32),
    ("native", torch.bfloat16),
    ("native", torch.float16),
    ("reference", torch.float32),
    ("reference", torch.bfloat16),
    ("auto", torch.float64),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda pair: f"{pair[0]} {str(pair[1]).removeprefix('torch.')}")
def dtype(request, monkeypatch):
    """The dtype of logits; the implementation that it is paired with is forced."""
    name, dtype = request.param
    monkeypatch.setenv("TWOHOT_BACKEND", name)
    return dtype


@pytest.fixture(params=["native", "reference"])
def implementation(request, monkeypatch):
    """The name of the implementation that is forced."""
    monkeypatch.setenv("TWOHOT_BACKEND", request.param)
    return request.param


def wide(dtype):
    """The dtype of the losses of logits of this dtype."""
    return torch.promote_types(dtype, torch.float32)


def cross_entropy_of(logits, target, bins, sigma, **options):
    """The face that has labels of this sigma; 0 is two-hot."""
    if sigma > 0:
        return hl_gauss_cross_entropy(logits, target, bins, sigma, **options)
    return two_hot_cross_entropy(logits, target, bins, **options)


# One number at a time


def forward(y, transform):
    """f(y) of method.md, one number in float64."""
    if math.isinf(y):
        return y
    if transform == "symlog":
        return math.copysign(math.log1p(abs(y)), y)
    if transform == "signed_sqrt":
        return math.copysign(math.sqrt(abs(y) + 1) - 1, y) + 1e-3 * y
    return y


def inverse(x, transform):
    """f^-1(x), one number in float64; the signed square root's by bisection."""
    if transform == "symlog":
        return math.copysign(math.expm1(abs(x)), x)
    if transform == "linear":
        return x
    low, high = -1e7, 1e7
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if forward(middle, transform) < x else (low, middle)
    return high


def centers(bins):
    low, high = forward(bins.low, bins.transform), forward(bins.high, bins.transform)
    return [low + k * (high - low) / (bins.count - 1) for k in range(bins.count)]


def two_hot_of_one(y, bins):
    """The two bins around a target share the mass in proportion to nearness."""
    b = centers(bins)
    x = min(max(forward(y, bins.transform), b[0]), b[-1])
    row = [0.0] * bins.count
    k = next(k for k in range(bins.count - 1) if x <= b[k + 1] or k == bins.count - 2)
    row[k + 1] = (x - b[k]) / (b[k + 1] - b[k])
    row[k] = 1 - row[k + 1]
    return row


def hl_gauss_of_one(y, bins, sigma):
    """The mass of a Gaussian in each bin, of the mass in all of them; each by the tail that loses no digits."""
    b = centers(bins)
    x, width = min(max(forward(y, bins.transform), b[0]), b[-1]), (b[-1] - b[0]) / (bins.count - 1)

    def mass(low, high):
        low, high = (low - x) / (sigma * width * math.sqrt(2)), (high - x) / (sigma * width * math.sqrt(2))
        if low > 0:
            return (math.erfc(low) - math.erfc(high)) / 2
        return (math.erfc(-high) - math.erfc(-low)) / 2

    whole = mass(b[0] - width / 2, b[-1] + width / 2)
    return [mass(c - width / 2, c + width / 2) / whole for c in b]


def label_of_one(y, bins, sigma):
    return hl_gauss_of_one(y, bins, sigma) if sigma > 0 else two_hot_of_one(y, bins)


def labels(targets, bins, sigma=0.0):
    flat = [label_of_one(y, bins, sigma) for y in targets.flatten().tolist()]
    return torch.tensor(flat, dtype=torch.float64).reshape(*targets.shape, bins.count)


def log_softmax(row):
    top = max(row)
    total = math.log(sum(math.exp(x - top) for x in row))
    return [x - top - total for x in row]


def cross_entropies(logits, targets, bins, sigma=0.0):
    """- sum_k label_k log softmax_k of each row; `targets` already has the shape of the rows."""
    rows = [
        -sum(p * q for p, q in zip(label_of_one(y, bins, sigma), log_softmax(row), strict=True))
        for row, y in zip(logits.reshape(-1, bins.count).tolist(), targets.flatten().tolist(), strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64).reshape(targets.shape)


def readout(row, bins):
    probability = [math.exp(x) for x in log_softmax(row)]
    if bins.readout == "raw":
        return sum(p * inverse(b, bins.transform) for p, b in zip(probability, centers(bins), strict=True))
    return inverse(sum(p * b for p, b in zip(probability, centers(bins), strict=True)), bins.transform)


@cache
def targets_of(bins, dtype=torch.float64):
    """Targets on the bins, between them, just inside and beyond the ends, infinite, and zero."""
    b = torch.tensor(centers(bins), dtype=torch.float64)
    inside = b[0] + (b[-1] - b[0]) * torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = [inverse(x, bins.transform) for x in (*b.tolist(), *inside.tolist())]
    ends = [bins.low, bins.high, 2 * bins.low - 1, 2 * bins.high + 1, 1e30, -1e30, INFINITY, -INFINITY]
    return torch.tensor([*values, *ends, 0.0, -0.0, 1e-30], dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.75, 3.0, 40.0])
@every_support
def test_the_formulas_of_these_tests_equal_loops(bins, sigma):
    target = targets_of(bins)[::7]
    logits = 3 * normal(len(target), bins.count, dtype=torch.float64)
    assert_accurate(truth.labels(target, bins, sigma), labels(target, bins, sigma), floor=64 * bins.count)
    found = truth.cross_entropy(logits, truth.labels(target, bins, sigma))
    assert_accurate(found, cross_entropies(logits, target, bins, sigma), floor=256 * bins.count)
    values = torch.tensor([readout(row, bins) for row in logits.tolist()], dtype=torch.float64)
    assert_accurate(truth.readout(logits, bins), values, floor=1e5)


# Bins


@pytest.mark.parametrize(
    ("bins", "expected"),
    [
        (ValueBins.amago2(), np.linspace(-math.log(100_001), math.log(100_001), 128)),
        (ValueBins(), np.linspace(-math.log(100_001), math.log(100_001), 128)),
        (ValueBins.amago2(64), np.linspace(-math.log(100_001), math.log(100_001), 64)),
        (ValueBins.tdmpc2(), np.linspace(-10, 10, 101)),
        (ValueBins.dreamerv3(), np.linspace(-20, 20, 255)),
        (ValueBins.muzero(), np.linspace(-300, 300, 601)),
        (ValueBins.c51(), np.linspace(-10, 10, 51)),
        (ValueBins(-10_000, 60_000, 96), np.linspace(-math.log(10_001), math.log(60_001), 96)),
        # 20 bins of a width of 0.5 between the edges -3 and 7: the first center lies a quarter inside.
        (ValueBins.from_edges(-3.0, 7.0, 20), np.linspace(-2.75, 6.75, 20)),
        (ValueBins.from_edges(-math.expm1(2), math.expm1(2), 4, "symlog"), np.array([-1.5, -0.5, 0.5, 1.5])),
    ],
)
def test_presets_have_the_centers_of_the_codes_that_they_name(bins, expected):
    assert bins.centers(torch.float64).numpy() == pytest.approx(expected, abs=1e-12, rel=1e-12)
    assert bins.transformed_ends == pytest.approx((expected[0], expected[-1]), rel=1e-12)
    in_float32 = bins.centers()
    assert in_float32.dtype == torch.float32
    assert torch.equal(in_float32, bins.centers(torch.float64).float())


def test_presets_read_values_as_the_codes_that_they_name():
    readouts = {name: bins.readout for name, bins in SUPPORTS.items()}
    assert readouts["amago2"] == readouts["tdmpc2"] == readouts["dreamerv3 of 2023"] == "transformed"
    assert readouts["muzero"] == "transformed"
    assert readouts["dreamerv3"] == readouts["c51"] == "raw"
    assert ValueBins.from_edges(0.0, 1.0, 4, readout="raw").readout == "raw"
    assert ValueBins.from_edges(0.0, 1.0, 4).transform == "linear"


def test_values_of_presets_by_hand():
    # h(x) = 300 is 0.001 s^2 + s = 301.001 with s = sqrt(x + 1).
    end = ((math.sqrt(1 + 4 * 0.001 * 301.001) - 1) / 0.002) ** 2 - 1
    assert ValueBins.muzero().values(torch.float64)[[0, 300, -1]].tolist() == pytest.approx([-end, 0, end], rel=1e-12)
    assert ValueBins.tdmpc2().values(torch.float64)[[50, 55, 100]].tolist() == pytest.approx(
        [0, math.e - 1, math.exp(10) - 1], rel=1e-12
    )
    assert ValueBins.c51().values()[:3].tolist() == pytest.approx([-10, -9.6, -9.2])
    assert ValueBins.amago2().values(torch.float64)[-1].item() == pytest.approx(100_000, rel=1e-12)


@every_support
def test_bins_mirror_where_the_support_does(bins):
    if bins.low == -bins.high:
        for dtype in (torch.float32, torch.float64):
            assert torch.equal(bins.centers(dtype), -bins.centers(dtype).flip(0))
    assert (bins.centers().diff() > 0).all()
    assert (bins.values().diff() > 0).all()


def test_bins_are_hashable_values():
    assert len({ValueBins.amago2(), ValueBins(), ValueBins.amago2(64)}) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 1}, "ValueBins.count: expected an integer of at least 2 bins, got 1"),
        ({"count": 8.0}, "ValueBins.count: expected an integer of at least 2 bins, got 8.0"),
        ({"low": 1.0, "high": 1.0}, "expected finite low < high, got low=1.0, high=1.0"),
        ({"low": 2.0, "high": 1.0}, "expected finite low < high, got low=2.0, high=1.0"),
        ({"high": INFINITY}, "expected finite low < high"),
        ({"low": NAN}, "expected finite low < high"),
        ({"transform": "log"}, "expected one of .'linear', 'signed_sqrt', 'symlog'., got 'log'"),
        ({"readout": "mode"}, "ValueBins.readout: expected 'transformed' or 'raw', got 'mode'"),
        ({"low": 1e16, "high": 1e16 + 2}, r"low=1e\+16 and high=1.*e\+16 are the same after symlog"),
    ],
)
def test_impossible_bins_are_refused(arguments, message):
    with pytest.raises(BinsError, match=message):
        ValueBins(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 1.0, 4), r"from_edges: expected finite low < high, got low=1\.0, high=1\.0"),
        ((0.0, INFINITY, 4), "from_edges: expected finite low < high"),
        ((NAN, 1.0, 4), "from_edges: expected finite low < high"),
        ((0.0, 1.0, 1), "from_edges: expected an integer of at least 2 bins, got 1"),
        ((0.0, 1.0, 2.0), r"from_edges: expected an integer of at least 2 bins, got 2\.0"),
        ((0.0, 1.0, 4, "log"), "from_edges: expected one of .'linear', 'signed_sqrt', 'symlog'., got 'log'"),
        ((0.0, 1.0, 4, "linear", "mode"), "expected 'transformed' or 'raw', got 'mode'"),
    ],
)
def test_impossible_edges_are_refused(arguments, message):
    with pytest.raises(BinsError, match=message):
        ValueBins.from_edges(*arguments)


NARROW = [(1e8, 1e8 + 1e-3), (-1e8 - 1e-3, -1e8), (16_777_216.0, 16_777_217.0), (3.0, 3.0 + 1e-14), (-1e-30, 1e-30)]
BEYOND = [(0.0, 1e-40), (-1e-45, 1e-45), (-1e300, 1e300), (0.0, 1e39), (-1e40, -1e39)]


@pytest.mark.parametrize("transform", ["linear", "symlog", "signed_sqrt"])
@pytest.mark.parametrize(("low", "high"), NARROW + BEYOND)
def test_supports_that_float32_cannot_tell_apart_are_refused_or_finite(low, high, transform, implementation):
    try:
        bins = ValueBins(low, high, 9, transform)
    except BinsError:
        return
    logits = (3 * normal(5, 9)).requires_grad_()
    target = torch.tensor([low, high, (low + high) / 2, INFINITY, -INFINITY])
    for sigma in (0.0, 0.75):
        loss, value = cross_entropy_of(logits, target, bins, sigma, reduction="sum", return_readout=True)
        assert loss.isfinite()
        assert value.isfinite().all()
        assert truth.gradient(loss, logits).isfinite().all()
    assert truth.gradient(bin_expectation(logits, bins), logits).isfinite().all()


# Transforms


def test_symlog_and_symexp_by_hand_and_as_inverses():
    x = torch.tensor([0.0, math.e - 1, -(math.e - 1), 1e-20, INFINITY, -INFINITY], dtype=torch.float64)
    assert symlog(x).tolist() == pytest.approx([0, 1, -1, 1e-20, INFINITY, -INFINITY], rel=1e-15)
    huge = 10.0 ** torch.linspace(-300, 300, 601, dtype=torch.float64)
    for y in (huge, -huge):
        # An error of eps in symlog(y), which is about 700 at most, is one of 700 eps in the relative error of y.
        assert (symexp(symlog(y)) / y - 1).abs().max() < 4 * 700 * torch.finfo(torch.float64).eps
    y = torch.cat((10.0 ** torch.linspace(-30, 38, 500), torch.zeros(1)))
    assert torch.allclose(symexp(symlog(y)), y, rtol=4 * 88 * torch.finfo(torch.float32).eps, atol=0)
    assert symlog(torch.tensor(NAN)).isnan()


def test_signed_square_root_values_invert():
    bins = ValueBins.muzero()
    expected = torch.tensor([inverse(x, "signed_sqrt") for x in centers(bins)], dtype=torch.float64)
    assert (bins.values(torch.float64) - expected).abs().max() < 1e-9 * expected.abs().max()


# Labels


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.75, 3.0, 40.0])
@every_support
def test_labels(bins, sigma):
    def label(target):
        return hl_gauss(target, bins, sigma) if sigma > 0 else two_hot(target, bins)

    target = targets_of(bins)
    slope = max(1.0, 0.4 / sigma) if sigma > 0 else 1.0  # of a label in the place of its target
    assert_accurate(label(target), truth.labels(target, bins, sigma), floor=64 + 8 * bins.count * slope)
    target = targets_of(bins, torch.float32)
    exact, plain = truth.labels(target.double(), bins, sigma), truth.labels(target, bins, sigma)
    assert_accurate(label(target), exact, plain, floor=4 + bins.count * slope)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@every_support
def test_labels_are_distributions(bins, dtype):
    target = targets_of(bins, dtype)
    for label in (two_hot(target, bins), hl_gauss(target, bins), hl_gauss(target, bins, 40.0)):
        assert label.dtype == dtype
        assert (label >= 0).all()
        # The position of a target among the bins is at most N, so its rounding error is at most N eps.
        assert (label.double().sum(-1) - 1).abs().amax() <= bins.count * torch.finfo(dtype).eps
    assert (two_hot(target, bins) > 0).sum(-1).amax() <= 2


def test_labels_by_hand():
    bins = ValueBins(-1.0, 3.0, 5, "linear")
    target = torch.tensor([-1.0, 0.25, 3.0, 9.0, -INFINITY, INFINITY])
    expected = [
        [1, 0, 0, 0, 0],
        [0, 0.75, 0.25, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
    ]
    assert two_hot(target, bins).tolist() == expected
    # Interpolation is in transformed space: symlog(e - 1) = 1, a quarter of the way from 0 to 4.
    bins = ValueBins(0.0, math.expm1(4.0), 2)
    assert two_hot(torch.tensor(math.e - 1), bins).tolist() == pytest.approx([0.75, 0.25])


def test_gaussian_labels_by_hand():
    # Two bins with their edges at -2, 0 and 2, a target of 0: half of the mass in each, whatever sigma.
    bins = ValueBins.from_edges(-2.0, 2.0, 2)
    for sigma in (0.1, 0.75, 5.0):
        assert hl_gauss(torch.tensor(0.0), bins, sigma).tolist() == pytest.approx([0.5, 0.5])
    # Bins of width 1 with centers 0, 1, 2, a target on the middle one, sigma = 1: Phi(1/2) - Phi(-1/2) of
    # Phi(3/2) - Phi(-3/2).
    label = hl_gauss(torch.tensor(1.0, dtype=torch.float64), ValueBins(0.0, 2.0, 3, "linear"), 1.0)
    middle = 0.38292492254802620728 / 0.86638559746228386799
    assert label.tolist() == pytest.approx([(1 - middle) / 2, middle, (1 - middle) / 2], rel=1e-14)
    # Beyond the ends is the end; the label reads the place after the transform.
    bins = ValueBins.amago2(32)
    ends = hl_gauss(torch.tensor([-1e9, -100_000.0, 100_000.0, INFINITY], dtype=torch.float64), bins)
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[2], ends[3])
    assert_accurate(ends[0], ends[3].flip(0))
    assert torch.equal(ends.argmax(-1), torch.tensor([0, 0, 31, 31]))


@every_support
def test_a_target_on_a_bin_is_one_hot(bins):
    target = bins.values(torch.float64)
    for label in (two_hot(target, bins), hl_gauss(target, bins, 0.05)):
        assert torch.equal(label.argmax(-1), torch.arange(bins.count))
        assert label.amax(-1).min() > 1 - 1e-9


def test_a_nan_target_spoils_its_own_label_only():
    for label in (two_hot, hl_gauss):
        row = label(torch.tensor([1.0, NAN, 2.0]), ValueBins.amago2())
        assert row.isnan().all(-1).tolist() == [False, True, False]
        assert row.isnan().any(-1).tolist() == [False, True, False]


# Readout


@every_support
def test_readout(bins, dtype):
    logits = (3 * normal(64, bins.count, seed=2)).to(dtype)
    exact = truth.readout(logits.double(), bins)
    value = bin_expectation(logits, bins)
    assert value.dtype == wide(dtype)
    plain = None if dtype == torch.float64 else truth.readout(logits.to(wide(dtype)), bins)
    # Of large values of both signs little may remain.
    share = logits.double().softmax(-1) @ truth.bin_values(bins).abs() / exact.abs().clamp(min=1)
    assert_accurate(value, exact, plain, floor=(8 + 2 * share.amax().item()) * (64 if dtype == torch.float64 else 1))
    assert_accurate(BinExpectation(bins)(logits), value.double())


@every_support
def test_the_readout_of_a_label_is_its_target(bins):
    target = targets_of(bins)
    logits = two_hot(target, bins).log()
    value = bin_expectation(logits, bins)
    if bins.readout == "transformed" or bins.transform == "linear":
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
    upstream = normal(64, seed=3, dtype=wide(dtype)) / bins.values().abs().amax()

    def found(function, logits, upstream):
        logits = logits.detach().clone().requires_grad_()
        return truth.gradient(function(logits), logits, upstream)

    exact = found(lambda z: truth.readout(z, bins), logits.double(), upstream.double())
    plain = found(lambda z: truth.readout(z.to(wide(dtype)), bins), logits, upstream)
    assert_accurate(found(lambda z: bin_expectation(z, bins), logits, upstream), exact, plain, floor=16)


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
    target = targets_of(bins, wide(dtype))
    logits, upstream = (
        normal(len(target), bins.count, seed=4, dtype=dtype),
        normal(len(target), seed=5, dtype=wide(dtype)),
    )

    def run(loss, logits, upstream):
        logits = logits.detach().clone().requires_grad_()
        rows = loss(logits)
        return rows.detach(), truth.gradient(rows, logits, upstream)

    actual = run(lambda z: cross_entropy_of(z, target, bins, sigma, reduction="none"), logits, upstream)
    label = truth.labels(target.double(), bins, sigma)
    exact = run(lambda z: truth.cross_entropy(z, label), logits.double(), upstream.double())
    plain_label = truth.labels(target, bins, sigma)
    plain = run(lambda z: truth.cross_entropy(z.to(wide(dtype)), plain_label), logits, upstream)
    assert (actual[0].dtype, actual[1].dtype) == (wide(dtype), dtype)
    # An eps in f(y) moves the place among the bins by N eps, and the label by its slope as much; a label of HL-Gauss
    # is divided by the mass inside the bins.
    slope = max(1.0, 0.4 / sigma) if sigma > 0 else 1.0
    inside = math.erf((bins.count - 0.5) / sigma / 2**0.5) / 2 + math.erf(0.5 / sigma / 2**0.5) / 2 if sigma else 1.0
    floor = (4 + 2 * bins.count * slope + 2 / inside) * (2 if dtype == torch.float64 else 1)
    assert_accurate(actual[0], exact[0], plain[0], floor=floor)
    assert_accurate(actual[1], exact[1], plain[1], floor=floor if dtype == wide(dtype) else 4.0)


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


# Mask, weight, reduction, readout beside the loss


def example(dtype=torch.float64):
    bins = ValueBins.amago2(9)
    logits, target = normal(3, 4, 2, 9, seed=8, dtype=dtype), 100 * normal(3, 4, 2, seed=9, dtype=wide(dtype))
    weight, mask = normal(3, 4, 2, seed=10, dtype=wide(dtype)).abs(), normal(3, 4, 2, seed=11) < 0.3
    return bins, logits, target, weight, mask


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
                assert value.dtype == wide(dtype)
                assert_accurate(value, torch.where(mask, values, 0) if use_mask else values, floor=64)
            assert loss.dtype == wide(dtype)
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
    target = 10 * normal(3, 5, 2, seed=1, dtype=wide(dtype))
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
        weight = normal(*shape, seed=1, dtype=wide(dtype)).requires_grad_()
        for learnt_logits in (False, True):
            z = logits.clone().requires_grad_(learnt_logits)
            loss = two_hot_cross_entropy(z, target, bins, weight=weight, mask=mask, reduction=reduction)
            gradient = truth.gradient(loss, weight)
            rows = cross_entropies(logits.double(), target.double(), bins) * mask
            exact = rows.sum_to_size(shape) if shape else rows.sum()
            exact = exact / mask.sum() if reduction == "mean" else exact
            assert_accurate(gradient, exact, floor=64)


# Checks


def test_checks_name_the_nan(dtype):
    bins, logits, target, _, mask = example(dtype)
    target[2, 1, 0] = target[2, 3, 1] = NAN
    mask = torch.ones_like(mask)
    set_checks(True)
    try:
        for call in (
            lambda **options: two_hot_cross_entropy(logits, target, bins, **options),
            lambda **options: hl_gauss_cross_entropy(logits, target, bins, **options),
            lambda **options: linear_two_hot_cross_entropy(
                logits, torch.eye(9, dtype=dtype), None, target, bins, **options
            ),
        ):
            message = r"cross_entropy: the target holds 2 NaN, the first at \(2, 1, 0\)"
            with pytest.raises(ValueError, match=message):
                call()
            mask[2, 1, 0] = False
            with pytest.raises(ValueError, match=r"the target holds 1 NaN, the first at \(2, 3, 1\)"):
                call(mask=mask)
            mask[2, 3, 1] = False
            assert call(mask=mask).isfinite()
            mask[:] = True
        two_hot_cross_entropy(logits, torch.full((), INFINITY), bins)  # the end, and no error
    finally:
        set_checks(False)
    assert two_hot_cross_entropy(logits, target, bins).isnan()


def run_python(program, **environment):
    """What a program prints in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.strip()


def test_checks_from_the_environment():
    program = """
import torch
from twohot.losses import ValueBins, two_hot_cross_entropy
try:
    print(two_hot_cross_entropy(torch.zeros(2, 4), torch.tensor([0.0, float("nan")]), ValueBins.amago2(4)).item())
except ValueError as error:
    print(error)
"""
    expected = "two_hot_cross_entropy: the target holds 1 NaN, the first at (1,)"
    assert run_python(program, TWOHOT_CHECKS="1") == expected


# Faces and surroundings


def test_modules_are_the_functions():
    bins, logits, target, weight, mask = example(torch.float32)
    for reduction in ("none", "sum", "mean"):
        module = TwoHotCrossEntropy(bins, reduction)
        expected = two_hot_cross_entropy(logits, target, bins, weight=weight, mask=mask, reduction=reduction)
        assert torch.equal(module(logits, target, weight, mask), expected)
        assert torch.equal(module(logits, target), two_hot_cross_entropy(logits, target, bins, reduction=reduction))
        module = HLGaussCrossEntropy(bins, 2.0, reduction)
        expected = hl_gauss_cross_entropy(logits, target, bins, 2.0, weight=weight, mask=mask, reduction=reduction)
        assert torch.equal(module(logits, target, weight, mask), expected)
    assert TwoHotCrossEntropy(bins).reduction == HLGaussCrossEntropy(bins).reduction == "mean"
    assert HLGaussCrossEntropy(bins).sigma == 0.75
    assert torch.equal(BinExpectation(bins)(logits), bin_expectation(logits, bins))
    assert repr(HLGaussCrossEntropy(bins, 2.0, "sum")).endswith(f"({bins}, sigma=2.0, reduction='sum')")
    assert repr(TwoHotCrossEntropy(bins)).endswith(f"({bins}, reduction='mean')")
    assert repr(BinExpectation(bins)).endswith(f"({bins})")
    assert torch.equal(hl_gauss_cross_entropy(logits, target, bins), hl_gauss_cross_entropy(logits, target, bins, 0.75))


def test_autocast_changes_nothing(dtype):
    bins, logits, target, weight, mask = example(dtype)

    def results():
        z = logits.clone().requires_grad_()
        options = {"weight": weight, "mask": mask, "return_readout": True}
        loss, value = two_hot_cross_entropy(z, target, bins, **options)
        rows, _ = hl_gauss_cross_entropy(z, target, bins, reduction="none", **options)
        read = bin_expectation(z, bins)
        return [x.detach() for x in (loss, value, rows, read, *(truth.gradient(x, z) for x in (loss, rows, read)))]

    expected = results()
    with torch.autocast("cpu", torch.bfloat16):
        actual = results()
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def train(steps):
    """Losses of a small critic that learns a sum of its observation, by both labels, a mask and its own readout."""
    torch.manual_seed(0)
    bins = ValueBins.amago2(64)
    critic = nn.Sequential(nn.Linear(16, 64), nn.LeakyReLU(), nn.Linear(64, 64), nn.LeakyReLU())
    heads = nn.Parameter(torch.randn(2, 64, 64) / 8)
    last = nn.Linear(64, 64)
    optimizer = torch.optim.SGD([*critic.parameters(), heads, *last.parameters()], lr=0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        observation, mask = torch.randn(96, 16), torch.rand(96) < 0.8
        features = critic(observation)
        reward = 100 * observation[:, :4].sum(-1)
        with torch.no_grad():
            target = reward + 0.5 * linear_bin_expectation(features, last.weight, last.bias, bins)
        ensemble = torch.einsum("re,cen->crn", features, heads)
        loss = two_hot_cross_entropy(ensemble, target, bins, mask=mask)
        loss = loss + 0.5 * hl_gauss_cross_entropy(
            last(features), target, bins, weight=torch.rand(96), reduction="mean"
        )
        loss = loss + linear_two_hot_cross_entropy(features, last.weight, last.bias, target, bins, mask=mask)
        loss = loss - 1e-5 * bin_expectation(last(features.detach()), bins).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_is_the_same_by_both_implementations(monkeypatch):
    losses = {}
    for name in ("native", "reference"):
        monkeypatch.setenv("TWOHOT_BACKEND", name)
        losses[name] = train(50)
    assert losses["native"][-1] < 0.8 * losses["native"][0]
    assert losses["native"] == pytest.approx(losses["reference"], rel=1e-5)


# What is refused


LOGITS, TARGET, BINS = torch.zeros(2, 3, 8), torch.zeros(2, 3), ValueBins.amago2(8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits": torch.zeros(2, 3, 7)}, r"expected logits with 8 bins in the last dimension, got shape \(2, 3, 7\)"),
        ({"logits": torch.zeros(())}, r"expected logits with 8 bins in the last dimension, got shape \(\)"),
        ({"logits": LOGITS.long()}, "expected a floating point logits, got torch.int64"),
        ({"target": TARGET.int()}, "expected a floating point target, got torch.int32"),
        ({"target": torch.zeros(2)}, r"expected a target whose shape broadcasts to the rows \(2, 3\), got \(2,\)"),
        ({"target": torch.zeros(5, 2, 3)}, r"expected a target whose shape broadcasts .*, got \(5, 2, 3\)"),
        ({"target": torch.zeros(1, 2, 3)}, r"expected a target whose shape broadcasts .*, got \(1, 2, 3\)"),
        ({"weight": torch.zeros(2)}, r"expected a weight whose shape broadcasts .*, got \(2,\)"),
        ({"mask": torch.ones(4, 3, dtype=torch.bool)}, r"expected a mask whose shape broadcasts .*, got \(4, 3\)"),
        ({"mask": torch.ones(2, 3)}, "expected a bool mask, got torch.float32"),
        ({"reduction": "average"}, "expected reduction 'none', 'mean' or 'sum', got 'average'"),
    ],
)
def test_bad_arguments_of_cross_entropy(arguments, message, implementation):
    call = {"logits": LOGITS, "target": TARGET, "bins": BINS, **arguments}
    for face in (two_hot_cross_entropy, hl_gauss_cross_entropy):
        with pytest.raises(ValueError, match=f"{face.__name__}: {message}"):
            face(**call)


def test_bad_arguments_of_labels_and_readout(implementation):
    with pytest.raises(ValueError, match="two_hot: expected a floating point target, got"):
        two_hot(torch.zeros(3, dtype=torch.int64), BINS)
    with pytest.raises(ValueError, match="hl_gauss: expected a floating point target, got"):
        hl_gauss(torch.zeros(3, dtype=torch.int64), BINS)
    for sigma in (0.0, -1.0, NAN):
        message = "expected sigma > 0, in bin widths, got"
        with pytest.raises(ValueError, match=f"hl_gauss: {message}"):
            hl_gauss(TARGET, BINS, sigma)
        with pytest.raises(ValueError, match=f"hl_gauss_cross_entropy: {message}"):
            hl_gauss_cross_entropy(LOGITS, TARGET, BINS, sigma)
        with pytest.raises(ValueError, match=f"HLGaussCrossEntropy: {message}"):
            HLGaussCrossEntropy(BINS, sigma)
    with pytest.raises(ValueError, match=r"bin_expectation: expected logits with 8 bins .* got shape \(2, 9\)"):
        bin_expectation(torch.zeros(2, 9), BINS)
    with pytest.raises(ValueError, match="bin_expectation: expected a floating point logits, got"):
        bin_expectation(LOGITS.long(), BINS)


# What an import brings


def test_losses_stand_alone():
    program = """
import sys, torch
before = set(sys.modules)
import twohot.losses
print(sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
print(sorted(name for name in sys.modules if name.startswith("twohot")))
import twohot.losses as l
l.two_hot_cross_entropy(torch.zeros(2, 8), torch.zeros(2), l.ValueBins.amago2(8))
print(sorted({"gymnasium", "triton", "matplotlib", "tyro", "tensorboard"} & (set(sys.modules) - before)))
"""
    others, ours, heavy = run_python(program).splitlines()
    assert others == "['twohot']"
    assert set(eval(ours)) <= {
        "twohot",
        "twohot._native",
        "twohot.bins",
        "twohot.errors",
        "twohot.loss_rows",
        "twohot.losses",
        "twohot.kernels",
        "twohot.kernels.backend",
        "twohot.kernels.two_hot",
        "twohot.kernels.two_hot.reference",
        "twohot.rl",
        "twohot.rl.advantages",
        "twohot.rl.popart",
        "twohot.rl.returns",
    }
    assert heavy == "[]"


def test_losses_are_imported_in_a_moment():
    program = """
from time import perf_counter
import torch
before = perf_counter()
import twohot.losses
print(perf_counter() - before)
"""
    # A few hundredths of a second on a quiet machine.
    assert median(float(run_python(program)) for _ in range(5)) < 0.2
