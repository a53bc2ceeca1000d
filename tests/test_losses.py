"""Value bins, two-hot labels, their cross-entropy and their readout, against loops in float64."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compare import assert_accurate
from twohot.losses import BinsError, ValueBins, bin_expectation, symexp, symlog, two_hot, two_hot_cross_entropy

SUPPORTS = {
    "amago2": ValueBins.amago2(),
    "two bins": ValueBins.amago2(2),
    "three bins": ValueBins.amago2(3),
    "tdmpc2": ValueBins.tdmpc2(),
    "dreamerv3": ValueBins.dreamerv3(),
    "dreamerv3 of 2023": ValueBins.dreamerv3("transformed"),
    "muzero": ValueBins.muzero(),
    "c51": ValueBins.c51(),
    "retro": ValueBins(-10_000, 60_000, 96),
    "linear": ValueBins(-3.0, 7.0, 5, "linear", "transformed"),
    "unit": ValueBins(0.0, 1.0, 2, "linear", "raw"),
}
every_support = pytest.mark.parametrize("bins", SUPPORTS.values(), ids=SUPPORTS.keys())


def forward(y, transform):
    """f(y) of method.md, one number in float64."""
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


def label(y, bins):
    """The two-hot label of one target: the two bins around it share the mass in proportion to nearness."""
    b = centers(bins)
    x = min(max(forward(y, bins.transform), b[0]), b[-1])
    row = [0.0] * bins.count
    k = next(k for k in range(bins.count - 1) if x <= b[k + 1] or k == bins.count - 2)
    row[k + 1] = (x - b[k]) / (b[k + 1] - b[k])
    row[k] = 1 - row[k + 1]
    return row


def labels(targets, bins):
    flat = [label(y, bins) for y in targets.flatten().tolist()]
    return torch.tensor(flat, dtype=torch.float64).reshape(*targets.shape, bins.count)


def log_softmax(row):
    top = max(row)
    total = math.log(sum(math.exp(x - top) for x in row))
    return [x - top - total for x in row]


def cross_entropies(logits, targets, bins):
    """- sum_k label_k log softmax_k of each row; `targets` already has the shape of the rows."""
    rows = [
        -sum(p * q for p, q in zip(label(y, bins), log_softmax(row), strict=True))
        for row, y in zip(logits.reshape(-1, bins.count).tolist(), targets.flatten().tolist(), strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64).reshape(targets.shape)


def readout(row, bins):
    probability = [math.exp(x) for x in log_softmax(row)]
    if bins.readout == "raw":
        return sum(p * inverse(b, bins.transform) for p, b in zip(probability, centers(bins), strict=True))
    return inverse(sum(p * b for p, b in zip(probability, centers(bins), strict=True)), bins.transform)


def plain_two_hot(target, bins):
    """Labels as TD-MPC2's code makes them: bin number by rounding down, the offset from it, two scatters."""
    low, high = forward(bins.low, bins.transform), forward(bins.high, bins.transform)
    if bins.transform == "symlog":
        x = target.sign() * target.abs().log1p()
    elif bins.transform == "signed_sqrt":
        x = target.sign() * ((target.abs() + 1).sqrt() - 1) + 1e-3 * target
    else:
        x = target
    x = (x.clamp(low, high) - low) / ((high - low) / (bins.count - 1))
    k = x.floor().clamp(0, bins.count - 2).long().unsqueeze(-1)
    share = x.unsqueeze(-1) - k
    zeros = target.new_zeros(*target.shape, bins.count)
    return zeros.scatter(-1, k, 1 - share).scatter(-1, k + 1, share)


def targets_of(bins, dtype=torch.float64):
    """Targets on the bins, between them, just inside and beyond the ends, infinite, and zero."""
    generator = torch.Generator().manual_seed(1)
    b = torch.tensor(centers(bins), dtype=torch.float64)
    inside = b[0] + (b[-1] - b[0]) * torch.rand(200, generator=generator, dtype=torch.float64)
    values = [inverse(x, bins.transform) for x in (*b.tolist(), *inside.tolist())]
    extra = [
        bins.low,
        bins.high,
        2 * bins.low - 1,
        2 * bins.high + 1,
        1e30,
        -1e30,
        math.inf,
        -math.inf,
        0.0,
        -0.0,
        1e-30,
    ]
    return torch.tensor(values + extra, dtype=torch.float64).to(dtype)


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
    ],
)
def test_presets_have_the_centers_of_the_codes_that_they_name(bins, expected):
    assert bins.centers(torch.float64).numpy() == pytest.approx(expected, abs=1e-12, rel=1e-12)
    assert bins.transformed_ends == pytest.approx((expected[0], expected[-1]), rel=1e-14)
    in_float32 = bins.centers()
    assert in_float32.dtype == torch.float32
    assert torch.equal(in_float32, bins.centers(torch.float64).float())


def test_presets_read_values_as_the_codes_that_they_name():
    readouts = {name: bins.readout for name, bins in SUPPORTS.items()}
    assert readouts["amago2"] == readouts["tdmpc2"] == readouts["dreamerv3 of 2023"] == "transformed"
    assert readouts["muzero"] == "transformed"
    assert readouts["dreamerv3"] == readouts["c51"] == "raw"


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
        ({"high": math.inf}, "expected finite low < high"),
        ({"low": math.nan}, "expected finite low < high"),
        ({"transform": "log"}, "expected one of .'linear', 'signed_sqrt', 'symlog'., got 'log'"),
        ({"readout": "mode"}, "ValueBins.readout: expected 'transformed' or 'raw', got 'mode'"),
    ],
)
def test_impossible_bins_are_refused(arguments, message):
    with pytest.raises(BinsError, match=message):
        ValueBins(**arguments)


# Transforms


def test_symlog_and_symexp_by_hand_and_as_inverses():
    x = torch.tensor([0.0, math.e - 1, -(math.e - 1), 1e-20, math.inf, -math.inf], dtype=torch.float64)
    assert symlog(x).tolist() == pytest.approx([0, 1, -1, 1e-20, math.inf, -math.inf], rel=1e-15)
    huge = 10.0 ** torch.linspace(-300, 300, 601, dtype=torch.float64)
    for y in (huge, -huge):
        # An error of eps in symlog(y), which is about 700 at most, is one of 700 eps in the relative error of y.
        assert (symexp(symlog(y)) / y - 1).abs().max() < 4 * 700 * torch.finfo(torch.float64).eps
    y = torch.cat((10.0 ** torch.linspace(-30, 38, 500), torch.zeros(1)))
    assert torch.allclose(symexp(symlog(y)), y, rtol=4 * 88 * torch.finfo(torch.float32).eps, atol=0)
    assert symlog(torch.tensor(math.nan)).isnan()


def test_signed_square_root_values_invert():
    bins = ValueBins.muzero()
    expected = torch.tensor([inverse(x, "signed_sqrt") for x in centers(bins)], dtype=torch.float64)
    assert (bins.values(torch.float64) - expected).abs().max() < 1e-9 * expected.abs().max()


# Labels


@every_support
def test_labels_in_float64(bins):
    target = targets_of(bins)
    assert_accurate(two_hot(target, bins), labels(target, bins), floor=8 * bins.count)


@every_support
def test_labels_in_float32_are_as_accurate_as_plain_ones(bins):
    target = targets_of(bins, torch.float32)
    assert_accurate(two_hot(target, bins), labels(target.double(), bins), plain_two_hot(target, bins), floor=bins.count)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@every_support
def test_labels_are_distributions_over_two_neighbours(bins, dtype):
    label = two_hot(targets_of(bins, dtype), bins)
    assert label.dtype == dtype
    assert (label >= 0).all()
    assert (label > 0).sum(-1).amax() <= 2
    # The position of a target among the bins is at most N, so its rounding error is at most N eps.
    assert (label.double().sum(-1) - 1).abs().amax() <= bins.count * torch.finfo(dtype).eps


def test_labels_by_hand():
    bins = ValueBins(-1.0, 3.0, 5, "linear")
    target = torch.tensor([-1.0, 0.25, 3.0, 9.0, -math.inf, math.inf])
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


@every_support
def test_a_target_on_a_bin_is_one_hot(bins):
    target = bins.values(torch.float64)
    label = two_hot(target, bins)
    assert torch.equal(label.argmax(-1), torch.arange(bins.count))
    assert label.amax(-1).min() > 1 - 1e-9


def test_a_nan_target_spoils_its_own_row_only():
    label = two_hot(torch.tensor([1.0, math.nan, 2.0]), ValueBins.amago2())
    assert label.isnan().all(-1).tolist() == [False, True, False]
    assert label.isnan().any(-1).tolist() == [False, True, False]


# Readout


@every_support
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_readout(bins, dtype):
    generator = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(64, bins.count, generator=generator, dtype=dtype)
    truth = torch.tensor([readout(row, bins) for row in logits.tolist()], dtype=torch.float64)
    probability = logits.softmax(-1)
    b = torch.tensor(centers(bins), dtype=dtype)
    if bins.readout == "raw":
        plain = (probability * torch.tensor([inverse(x, bins.transform) for x in centers(bins)], dtype=dtype)).sum(-1)
    elif bins.transform == "symlog":
        x = (probability * b).sum(-1)
        plain = x.sign() * x.abs().expm1()
    elif bins.transform == "signed_sqrt":
        x = (probability * b).sum(-1)
        s = ((1 + 4e-3 * (x.abs() + 1.001)).sqrt() - 1) / 2e-3
        plain = x.sign() * (s * s - 1)
    else:
        plain = (probability * b).sum(-1)
    assert_accurate(bin_expectation(logits, bins), truth, plain, floor=64)


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


@pytest.mark.parametrize("name", ["amago2", "three bins", "tdmpc2", "dreamerv3 of 2023", "muzero", "c51"])
def test_a_symmetric_distribution_reads_as_zero(name):
    bins = SUPPORTS[name]
    half = torch.randn(100, bins.count, generator=torch.Generator().manual_seed(3))
    value = bin_expectation(half + half.flip(-1), bins)
    assert value.abs().max() <= 4 * torch.finfo(torch.float32).eps * max(bins.transformed_ends)


def test_uniform_logits_read_as_zero_in_dreamerv3():
    # DreamerV3's code adds the bins in mirrored pairs, so that its zero-initialised value head predicts exactly 0;
    # summed in order, bins of 5e8 in float32 leave a remainder of order 1.
    assert bin_expectation(torch.zeros(255), ValueBins.dreamerv3()).item() == pytest.approx(0, abs=1e-3)


def test_readout_of_enormous_logits_is_the_bin():
    for bins in (ValueBins.amago2(), ValueBins.tdmpc2()):
        for top in (1e4, 1e30):
            logits = torch.full((bins.count, bins.count), -top)
            logits.fill_diagonal_(top)
            assert_accurate(bin_expectation(logits, bins), bins.values(torch.float64), floor=64)


# Cross-entropy


@every_support
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cross_entropy_and_its_gradient(bins, dtype):
    target = targets_of(bins, dtype)
    logits = torch.randn(len(target), bins.count, generator=torch.Generator().manual_seed(4), dtype=dtype)
    logits.requires_grad_()
    upstream = torch.randn(len(target), generator=torch.Generator().manual_seed(5), dtype=dtype)
    loss = two_hot_cross_entropy(logits, target, bins, reduction="none")
    (loss * upstream).sum().backward()

    again = logits.detach().clone().requires_grad_()
    plain = -(plain_two_hot(target, bins) * again.log_softmax(-1)).sum(-1)
    (plain * upstream).sum().backward()
    assert_accurate(loss, cross_entropies(logits.detach().double(), target.double(), bins), plain.detach(), floor=64)
    softmax = torch.tensor([[math.exp(x) for x in log_softmax(row)] for row in logits.tolist()], dtype=torch.float64)
    truth = upstream.double().unsqueeze(-1) * (softmax - labels(target.double(), bins))
    assert_accurate(logits.grad, truth, again.grad, floor=bins.count)


def test_cross_entropy_by_hand():
    bins = ValueBins(0.0, 1.0, 2, "linear")
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    loss = two_hot_cross_entropy(logits, torch.tensor([0.3, 0.25]), bins, reduction="none")
    assert loss.tolist() == pytest.approx([math.log(2), 0.75 * math.log(4 / 3) + 0.25 * math.log(4)])


def test_enormous_logits():
    bins = ValueBins.amago2(4)
    logits = torch.tensor([[1e4, -1e4, -1e4, -1e4], [-1e4, -1e4, -1e4, 1e4]], requires_grad=True)
    loss = two_hot_cross_entropy(logits, torch.tensor([-math.inf, -math.inf]), bins, reduction="none")
    assert loss.tolist() == [0, 2e4]
    loss.sum().backward()
    assert logits.grad.tolist() == [[0, 0, 0, 0], [-1, 0, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["amago2", "muzero"])
def test_half_precision_is_as_accurate_as_plain(name, dtype):
    bins = SUPPORTS[name]
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(256, bins.count, generator=generator).to(dtype)
    target = 100 * torch.randn(256, generator=generator)  # float32, as targets are under autocast
    plain = -(plain_two_hot(target, bins).to(dtype) * logits.log_softmax(-1)).sum(-1)
    loss = two_hot_cross_entropy(logits, target, bins, reduction="none")
    assert_accurate(loss, cross_entropies(logits.double(), target.double(), bins), plain)


def test_gradients_numerically():
    bins = ValueBins(-5.0, 20.0, 4)
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    target = 10 * torch.randn(3, generator=generator, dtype=torch.float64)
    weight = torch.rand(2, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, False, True])
    for reduction in ("none", "sum", "mean"):
        assert torch.autograd.gradcheck(
            lambda x, w, reduction=reduction: two_hot_cross_entropy(
                x, target, bins, weight=w, mask=mask, reduction=reduction
            ),
            (logits, weight),
        )
    for readout in ("transformed", "raw"):
        for transform in ("symlog", "signed_sqrt", "linear"):
            support = ValueBins(-5.0, 20.0, 4, transform, readout)
            assert torch.autograd.gradcheck(lambda x, s=support: bin_expectation(x, s), (logits[0],))


def test_the_readout_has_a_gradient_where_it_is_zero():
    # d symexp(x) / dx = exp(|x|), which is 1 at 0; there, the gradient is p (b - sum p b) = b / N for uniform p.
    bins = ValueBins.amago2(5)
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    value = bin_expectation(logits, bins)
    assert value.item() == 0
    value.backward()
    assert logits.grad.tolist() == pytest.approx([b / 5 for b in centers(bins)])


def test_the_target_gets_no_gradient():
    bins = ValueBins.amago2(8)
    target = torch.tensor([3.0], requires_grad=True)
    loss = two_hot_cross_entropy(torch.zeros(1, 8, requires_grad=True), target, bins)
    loss.backward()
    assert target.grad is None


# Mask, weight, reduction


def example(bins=ValueBins.amago2(9)):  # noqa: B008
    generator = torch.Generator().manual_seed(8)
    logits = torch.randn(3, 4, 2, bins.count, generator=generator, dtype=torch.float64)
    target = 100 * torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    weight = torch.rand(3, 4, 2, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 4, 2, generator=generator) < 0.6
    return bins, logits, target, weight, mask


def test_reductions_weights_and_masks():
    bins, logits, target, weight, mask = example()
    rows = cross_entropies(logits, target, bins)
    for use_weight, use_mask in itertools.product((False, True), repeat=2):
        w, m = weight if use_weight else None, mask if use_mask else None
        expected = rows * (weight if use_weight else 1) * (mask if use_mask else 1)
        count = mask.sum().item() if use_mask else mask.numel()
        call = {"weight": w, "mask": m}
        assert_accurate(two_hot_cross_entropy(logits, target, bins, reduction="none", **call), expected, floor=64)
        assert_accurate(two_hot_cross_entropy(logits, target, bins, reduction="sum", **call), expected.sum(), floor=64)
        assert_accurate(two_hot_cross_entropy(logits, target, bins, **call), expected.sum() / count, floor=64)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_masked_rows_contribute_exactly_nothing_even_nan(reduction):
    bins, logits, target, weight, mask = example()

    def value_and_gradients(logits, target, weight):
        logits, weight = logits.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = two_hot_cross_entropy(logits, target, bins, weight=weight, mask=mask, reduction=reduction)
        loss.sum().backward()
        return loss.detach(), logits.grad, weight.grad

    clean = value_and_gradients(logits, target, weight)
    poison = torch.tensor(math.nan, dtype=torch.float64)
    poisoned = value_and_gradients(
        torch.where(mask.unsqueeze(-1), logits, poison), torch.where(mask, target, poison), weight
    )
    for a, b in zip(clean, poisoned, strict=True):
        assert torch.equal(a, b)
    assert poisoned[1][~mask].eq(0).all()
    value, gradient, _ = value_and_gradients(logits, target, torch.where(mask, weight, poison))
    assert torch.equal(value, clean[0])
    assert torch.equal(gradient, clean[1])


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_nothing_but_masked_rows_is_zero(reduction):
    bins, logits, _, _, mask = example()
    logits = torch.full_like(logits, math.nan, requires_grad=True)
    target = torch.full(mask.shape, math.nan, dtype=torch.float64)
    loss = two_hot_cross_entropy(logits, target, bins, mask=torch.zeros_like(mask), reduction=reduction)
    loss.sum().backward()
    assert loss.eq(0).all()
    assert logits.grad.eq(0).all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_no_rows_at_all_is_zero(reduction):
    bins = ValueBins.amago2(4)
    assert two_hot_cross_entropy(torch.zeros(0, 4), torch.zeros(0), bins, reduction=reduction).item() == 0
    assert two_hot(torch.zeros(2, 0), bins).shape == (2, 0, 4)
    assert bin_expectation(torch.zeros(0, 4), bins).shape == (0,)


def test_a_nan_row_stays_alone():
    bins, logits, target, _, _ = example()
    target[1, 2, 0] = math.nan
    logits[0, 0, 1] = math.nan
    logits.requires_grad_()
    loss = two_hot_cross_entropy(logits, target, bins, reduction="none")
    loss.sum().backward()
    expected = torch.zeros(3, 4, 2, dtype=torch.bool)
    expected[1, 2, 0] = expected[0, 0, 1] = True
    assert torch.equal(loss.isnan(), expected)
    assert torch.equal(logits.grad.isnan().any(-1), expected)


def test_one_target_for_several_critics():
    bins = ValueBins.amago2(9)
    generator = torch.Generator().manual_seed(9)
    logits = torch.randn(4, 3, 5, 2, 9, generator=generator, dtype=torch.float64)  # [C, B, L, G, N]
    target = 10 * torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 5, 1, generator=generator) < 0.7
    rows = cross_entropies(logits, target.expand(4, 3, 5, 2), bins)
    loss = two_hot_cross_entropy(logits, target, bins, mask=mask)
    assert_accurate(loss, rows[mask.expand(4, 3, 5, 2)].mean(), floor=64)
    assert two_hot_cross_entropy(logits, target[0, 0, 0], bins, reduction="none").shape == (4, 3, 5, 2)


@st.composite
def problems(draw):
    rows = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    shared = tuple(1 if draw(st.booleans()) else size for size in rows[draw(st.integers(0, len(rows))) :])
    transform = draw(st.sampled_from(["symlog", "linear", "signed_sqrt"]))
    low = draw(st.floats(-1e4, 1e4))
    bins = ValueBins(low, low + draw(st.floats(0.5, 1e5)), draw(st.integers(2, 12)), transform)
    return rows, shared, bins, draw(st.integers(0, 2**31))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problems())
def test_any_shape(problem):
    rows, shared, bins, seed = problem
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(*rows, bins.count, generator=generator, dtype=torch.float64)
    width = bins.high - bins.low
    target = bins.low + width * (1.4 * torch.rand(shared, generator=generator, dtype=torch.float64) - 0.2)
    weight = torch.rand(shared, generator=generator, dtype=torch.float64)
    mask = torch.rand(shared, generator=generator) < 0.7
    expected = cross_entropies(logits, target.expand(rows), bins) * (weight * mask).expand(rows)
    loss = two_hot_cross_entropy(logits, target, bins, weight=weight, mask=mask, reduction="none")
    # A narrow support far from zero loses digits in f(y) - f(low); its position is then off by more than an eps.
    ends = [abs(forward(end, bins.transform)) for end in (bins.low, bins.high)]
    digits = 1 + max(ends) / (forward(bins.high, bins.transform) - forward(bins.low, bins.transform))
    assert_accurate(loss, expected, floor=400 * bins.count * digits)
    mean = two_hot_cross_entropy(logits, target, bins, weight=weight, mask=mask)
    count = max(1, int(mask.expand(rows).sum()))
    assert_accurate(mean, expected.sum() / count, floor=400 * bins.count * digits)
    truth = torch.tensor([readout(row, bins) for row in logits.reshape(-1, bins.count).tolist()], dtype=torch.float64)
    assert_accurate(bin_expectation(logits, bins), truth.reshape(rows), floor=1e6)


# What is refused


LOGITS, TARGET, BINS = torch.zeros(2, 3, 8), torch.zeros(2, 3), ValueBins.amago2(8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits": torch.zeros(2, 3, 7)}, r"expected logits with 8 bins in the last dimension, got shape \(2, 3, 7\)"),
        ({"logits": LOGITS.long()}, "expected a floating point logits, got torch.int64"),
        ({"target": TARGET.int()}, "expected a floating point target, got torch.int32"),
        ({"target": torch.zeros(2)}, r"expected a target whose shape broadcasts to the rows \(2, 3\), got \(2,\)"),
        ({"target": torch.zeros(5, 2, 3)}, r"expected a target whose shape broadcasts .*, got \(5, 2, 3\)"),
        ({"weight": torch.zeros(2)}, r"expected a weight whose shape broadcasts .*, got \(2,\)"),
        ({"mask": torch.ones(4, 3, dtype=torch.bool)}, r"expected a mask whose shape broadcasts .*, got \(4, 3\)"),
        ({"mask": torch.ones(2, 3)}, "expected a bool mask, got torch.float32"),
        ({"reduction": "average"}, "expected reduction 'none', 'mean' or 'sum', got 'average'"),
    ],
)
def test_bad_arguments_of_cross_entropy(arguments, message):
    call = {"logits": LOGITS, "target": TARGET, "bins": BINS, **arguments}
    with pytest.raises(ValueError, match=f"two_hot_cross_entropy: {message}"):
        two_hot_cross_entropy(**call)


def test_bad_arguments_of_labels_and_readout():
    with pytest.raises(ValueError, match="two_hot: expected a floating point target, got"):
        two_hot(torch.zeros(3, dtype=torch.int64), BINS)
    with pytest.raises(ValueError, match=r"bin_expectation: expected logits with 8 bins .* got shape \(2, 9\)"):
        bin_expectation(torch.zeros(2, 9), BINS)
    with pytest.raises(ValueError, match="bin_expectation: expected a floating point logits, got"):
        bin_expectation(LOGITS.long(), BINS)


def test_losses_stand_alone():
    program = """
import sys, twohot.losses
ours = {name for name in sys.modules if name.startswith("twohot")}
allowed = {"twohot", "twohot.losses", "twohot._native", "twohot.errors"}
allowed |= {name for name in ours if name.startswith("twohot.kernels")}
print(sorted(ours - allowed), sorted({"gymnasium", "tyro", "popgym", "tensorboard"} & set(sys.modules)))
"""
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[] []"
