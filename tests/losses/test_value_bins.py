"""Value bins, their transforms and their labels, against loops."""

import math

import numpy as np
import pytest
import torch

import two_hot_truth as truth
from compare import assert_accurate
from loss_loops import (
    INFINITY,
    NAN,
    centers,
    cross_entropies,
    cross_entropy_of,
    every_support,
    inverse,
    labels,
    readout,
    targets_of,
)
from two_hot_truth import SUPPORTS, normal
from twohot.losses import (
    BinsError,
    ValueBins,
    bin_expectation,
    hl_gauss,
    symexp,
    symlog,
    two_hot,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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
    assert [name for name, bins in SUPPORTS.items() if bins.labels == "raw"] == ["dreamerv3", "raw labels"]
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
        ({"labels": "even"}, "ValueBins.labels: expected 'transformed' or 'raw', got 'even'"),
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
@pytest.mark.parametrize("kind", ["transformed", "raw"])
def test_supports_that_float32_cannot_tell_apart_are_refused_or_finite(low, high, transform, kind, implementation):
    try:
        bins = ValueBins(low, high, 9, transform, kind, kind)
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
    # Raw labels interpolate between the values 0 and exp(4) - 1.
    bins = ValueBins(0.0, math.expm1(4.0), 2, labels="raw")
    share = (math.e - 1) / math.expm1(4.0)
    assert two_hot(torch.tensor(math.e - 1), bins).tolist() == pytest.approx([1 - share, share])


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
