"""Checks, modules, autocast, refusals and imports of the value losses, and training by either implementation."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import two_hot_truth as truth
from loss_loops import (
    INFINITY,
    NAN,
    example,
)
from twohot.losses import (
    BinExpectation,
    HLGaussCrossEntropy,
    TwoHotCrossEntropy,
    ValueBins,
    bin_expectation,
    hl_gauss,
    hl_gauss_cross_entropy,
    linear_bin_expectation,
    linear_two_hot_cross_entropy,
    set_checks,
    two_hot,
    two_hot_cross_entropy,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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
        "twohot._moved",
        "twohot._native",
        "twohot.errors",
        "twohot.losses",
        "twohot.losses.bins",
        "twohot.losses.functional",
        "twohot.losses.linear",
        "twohot.losses.rows",
        "twohot.tensors",
        "twohot.kernels",
        "twohot.kernels.backend",
        "twohot.kernels.needs_torch",
        "twohot.kernels.torch_private",
        "twohot.kernels.linear_two_hot",
        "twohot.kernels.linear_two_hot.reference",
        "twohot.kernels.two_hot",
        "twohot.kernels.two_hot.reference",
        "twohot.rl",
        "twohot.rl.advantages",
        "twohot.rl.ensembles",
        "twohot.rl.popart",
        "twohot.rl.returns",
    }
    assert heavy == "[]"
