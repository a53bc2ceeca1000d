"""Numbers at both ends of what float32 and float64 hold: right, or refused."""

import math

import pytest
import torch

import two_hot_truth as truth
from twohot.losses import (
    ValueBins,
    bin_expectation,
    hl_gauss_cross_entropy,
    linear_two_hot_cross_entropy,
    two_hot_cross_entropy,
)

pytestmark = pytest.mark.usefixtures("one_thread")
MAX = torch.finfo(torch.float32).max
SUPPORTS = {
    "amago2": ValueBins.amago2(),
    "dreamerv3": ValueBins.dreamerv3(),
    "muzero": ValueBins.muzero(),
    "two bins": ValueBins(-1, 1, 2, "linear"),
    "the largest, linear": ValueBins(-MAX / 2.01, MAX / 2.01, 101, "linear"),
    "the largest, symlog": ValueBins(-3.4e38, 3.4e38, 101),
    "the largest, raw": ValueBins(-MAX / 2.01, MAX / 2.01, 101, "symlog", "raw", "raw"),
    "the largest, roots": ValueBins(-3.4e38, 3.4e38, 101, "signed_sqrt"),
    "the smallest": ValueBins(-1e-30, 1e-30, 5, "linear"),
    "the most bins": ValueBins(-1e5, 1e5, 4096),
}
TARGETS = [0.0, -0.0, 1e-45, -1e-45, 1e-38, 1e-30, 1.0, -1.0, 1.5e30, 3e38, MAX, -MAX, math.inf, -math.inf, math.nan]
every_support = pytest.mark.parametrize("bins", SUPPORTS.values(), ids=SUPPORTS)


def rows(bins, dtype):
    return (5 * truth.normal(len(TARGETS), bins.count)).to(dtype), torch.tensor(TARGETS)


def require_near(found, expected, relative=1e-4, absolute=0.0):
    torch.testing.assert_close(found.double(), expected, rtol=relative, atol=absolute, equal_nan=True)


@every_support
def test_any_target_is_right(bins, dtype):
    """Off by the rounding of a target's place among the bins, times the step from a logit to the next."""
    logits, target = rows(bins, dtype)
    low, high = truth.ends(bins)
    place = 8 * torch.finfo(torch.float32).eps * max(abs(low), abs(high)) * (bins.count - 1) / (high - low)
    step = logits.double().diff().abs().max().item()
    for call, sigma in ((two_hot_cross_entropy, 0.0), (hl_gauss_cross_entropy, 0.75)):
        loss = call(logits, target, bins, reduction="none")
        expected = truth.cross_entropy(logits.double(), truth.labels(target.double(), bins, sigma))
        require_near(loss, expected, 1e-5, (place + 1e-5) * step + 1e-5)
        assert loss[:-1].isfinite().all()
        assert loss[-1].isnan()


@every_support
def test_any_readout_is_right_and_finite(bins, dtype):
    logits, _ = rows(bins, dtype)
    logits[0] = -math.inf
    logits[0, -1] = 0  # nothing but the last bin
    logits[1] = 0
    found, expected = bin_expectation(logits, bins), truth.readout(logits.double(), bins)
    assert found.isfinite().all()
    scale = max(abs(bins.low), abs(bins.high))
    if bins.transform == "linear" or bins.readout == "raw":
        require_near(found, expected, 1e-5, 1e-5 * scale)
    else:  # what is left of a number behind its exponential
        low, high = truth.ends(bins)
        require_near(found, expected, 32 * torch.finfo(torch.float32).eps * max(abs(low), abs(high), 1), 1e-3)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_infinite_logits_and_those_that_leave_nothing(dtype, reduction):
    bins = ValueBins(-1, 1, 4, "linear")
    logits = torch.tensor([[0.0, -math.inf, 0.0, -math.inf], [-math.inf] * 4, [math.inf, 0.0, 0.0, 0.0]]).to(dtype)
    target = torch.tensor([-1.0, 0.0, 1.0])
    first = two_hot_cross_entropy(logits[:1], target[:1], bins, reduction=reduction)
    assert first.sum().item() == pytest.approx(math.log(2), rel=1e-6)
    for row in (1, 2):  # no softmax
        assert two_hot_cross_entropy(logits[row:][:1], target[row:][:1], bins, reduction=reduction).sum().isnan()
        assert bin_expectation(logits[row:][:1], bins).isnan().all()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_no_rows_have_no_loss(dtype, shape, reduction):
    bins = ValueBins.amago2(16)
    logits, layer = torch.zeros(*shape, 16, dtype=dtype, requires_grad=True), torch.zeros(16, 4, dtype=dtype)
    hidden = torch.zeros(*shape, 4, dtype=dtype)
    for mask in (None, torch.zeros(shape, dtype=torch.bool)):
        loss = two_hot_cross_entropy(logits, torch.zeros(shape), bins, mask=mask, reduction=reduction)
        assert loss.sum() == 0
        loss.sum().backward()
        assert logits.grad.shape == logits.shape
        assert linear_two_hot_cross_entropy(hidden, layer, None, torch.zeros(shape), bins, mask=mask).sum() == 0


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_any_weight_and_no_mask_are_as_they_say(dtype, reduction):
    bins, target = ValueBins.amago2(16), torch.linspace(-9, 9, 6)
    logits = truth.normal(6, 16).to(dtype)
    each = two_hot_cross_entropy(logits, target, bins, reduction="none")
    given = {"none": lambda x: x, "sum": torch.sum, "mean": torch.mean}[reduction]
    for weight in (torch.tensor([True, False] * 3), torch.arange(-3, 3), torch.linspace(-2, 2, 6), torch.zeros(6)):
        found = two_hot_cross_entropy(logits, target, bins, weight=weight, reduction=reduction)
        torch.testing.assert_close(found, given(each * weight.to(each.dtype)))
    nothing = torch.zeros(6, dtype=torch.bool)
    odd = torch.full((6,), math.nan)
    masked = two_hot_cross_entropy(logits, odd, bins, weight=odd, mask=nothing, reduction=reduction)
    assert not masked.any()
