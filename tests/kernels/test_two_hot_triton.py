"""The Triton kernels of the value-classification losses against float64: on a GPU where there is one, else interpreted.

Triton chooses between compiler and interpreter when it is imported, so the interpreted tests run in a process of their
own, started by `test_in_the_interpreter`.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from compare import assert_accurate
from two_hot_truth import cross_entropy_shift, label_shift, readout_sensitivity
from twohot.kernels.two_hot import reference
from twohot.kernels.two_hot.reference import Labels

if sys.platform == "linux":
    from twohot.kernels.two_hot import launchers
else:
    pytest.skip("the development environment has Triton on Linux alone", allow_module_level=True)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NAN = float("nan")


if not INTERPRETED:

    def test_in_the_interpreter() -> None:
        """The tests below, in a process whose Triton interprets: none fails, none is skipped."""
        environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", str(Path(__file__)), "-p", "no:cacheprovider"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-3000:]
        assert "skipped" not in result.stdout, result.stdout[-3000:]


@pytest.fixture(params=[pytest.param(DEVICE, marks=[] if INTERPRETED else GPU)])
def device(request) -> Iterator[str]:
    """Where kernels run. NumPy, which interprets, would warn of 0 * inf and of overflow; a GPU does not."""
    with np.errstate(all="ignore"):
        yield request.param


@dataclass(frozen=True)
class Support:
    """Bins as the kernels are told of them; `low` and `high` are the outer centers in transformed space."""

    low: float
    high: float
    bins: int
    transform: str
    readout: str

    @property
    def symmetric(self) -> bool:
        return self.low == -self.high

    def call(self) -> dict:
        return {"low": self.low, "high": self.high, "transform": self.transform}


SUPPORTS = {
    "amago2": Support(-11.5129, 11.5129, 128, "symlog", "transformed"),
    "tdmpc2": Support(-10.0, 10.0, 101, "symlog", "transformed"),
    "dreamerv3": Support(-20.0, 20.0, 255, "symlog", "raw"),
    "muzero": Support(-300.0, 300.0, 601, "signed_sqrt", "transformed"),
    "c51": Support(-10.0, 10.0, 51, "linear", "raw"),
    "two": Support(-2.0, 2.0, 2, "symlog", "transformed"),
    "three": Support(-1.0, 2.0, 3, "signed_sqrt", "raw"),
    "four": Support(-3.0, 3.0, 4, "linear", "transformed"),
    "eight": Support(-1.0, 4.0, 8, "symlog", "raw"),
    "asymmetric": Support(-9.2, 11.0, 96, "symlog", "transformed"),
}
if not INTERPRETED:
    SUPPORTS["large"] = Support(-11.5, 11.5, 4096, "symlog", "raw")
    SUPPORTS["large, odd"] = Support(-3.0, 11.5, 4095, "symlog", "transformed")
every_support = pytest.mark.parametrize("support", SUPPORTS.values(), ids=SUPPORTS.keys())
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
every_form = pytest.mark.parametrize(
    ("dtype", "labels", "sigma"),
    [
        pytest.param(torch.float32, "two_hot", 0.0, id="float32, two-hot"),
        pytest.param(torch.float32, "two_hot_raw", 0.0, id="float32, raw two-hot"),
        pytest.param(torch.float32, "hl_gauss", 0.75, id="float32, HL-Gauss"),
        pytest.param(torch.float32, "hl_gauss", 3.0, id="float32, wide HL-Gauss"),
        pytest.param(torch.bfloat16, "two_hot", 0.0, id="bfloat16, two-hot"),
        pytest.param(torch.float16, "hl_gauss", 0.75, id="float16, HL-Gauss"),
    ],
)
every_label = pytest.mark.parametrize(
    ("labels", "sigma"),
    [("two_hot", 0.0), ("hl_gauss", 0.75), ("hl_gauss", 3.0)],
    ids=["two-hot", "HL-Gauss", "wide HL-Gauss"],
)


def row_count(support: Support) -> int:
    """Rows that fill a program and begin another, or many more on a GPU."""
    rows = launchers.tile(support.bins, 4, 32, None)["BLOCK_R"] + 3
    return rows if INTERPRETED else 40 * max(rows, 21)


@dataclass
class Problem:
    """Inputs of `launch_cross_entropy` on the CPU."""

    support: Support
    labels: Labels
    sigma: float
    logits: Tensor
    target: Tensor
    mask: Tensor | None = None
    weight: Tensor | None = None
    scale: Tensor | None = None


def problem(
    support: Support,
    labels: Labels = "two_hot",
    sigma: float = 0.0,
    dtype: torch.dtype = torch.float32,
    rows: int | None = None,
) -> Problem:
    """Random logits and weights, and targets evenly spread over the support, a tenth of them beyond its ends."""
    generator = torch.Generator().manual_seed(support.bins)
    rows = row_count(support) if rows is None else rows
    logits = (3 * torch.randn(rows, support.bins, generator=generator)).to(dtype)
    place = 1.1 * torch.rand(rows, generator=generator, dtype=torch.float64) - 0.05
    _, inverse = reference.TRANSFORMS[support.transform]
    target = inverse(support.low + place * (support.high - support.low)).float()
    weight = 2 * torch.rand(rows, generator=generator) - 0.5
    return Problem(support, labels, sigma, logits, target, None, weight, torch.tensor(0.7))


@dataclass
class Results:
    """What a launch writes, on the CPU."""

    loss: Tensor
    readout: Tensor
    gradient: Tensor


def launch(given: Problem, device: str, *, in_place: bool = False, without: tuple[str, ...] = ()) -> Results:
    """Run the kernel on outputs that hold NaN."""
    rows = given.logits.shape[0]
    logits, target, mask, weight, scale = (
        None if x is None else x.clone().to(device)
        for x in (given.logits, given.target, given.mask, given.weight, given.scale)
    )
    loss, readout = (torch.full((rows,), NAN, device=device) for _ in range(2))
    gradient = logits if in_place else torch.full_like(logits, NAN)
    outputs = {"loss": loss, "readout": readout, "gradient": gradient}
    launchers.launch_cross_entropy(
        logits,
        target,
        mask,
        weight,
        scale,
        **given.support.call(),
        labels=given.labels,
        sigma=given.sigma,
        readout_kind=given.support.readout,
        **{name: None if name in without else tensor for name, tensor in outputs.items()},
    )
    if not in_place:
        assert torch.equal(logits.nan_to_num(NAN).isnan().cpu(), given.logits.isnan()), "the logits were written into"
    return Results(loss.cpu(), readout.cpu(), gradient.cpu())


def label(given: Problem, dtype: torch.dtype) -> Tensor:
    """Labels [T, N] in some precision."""
    support = given.support
    arguments = (support.low, support.high, support.bins, support.transform)
    if given.labels != "hl_gauss":
        return reference.two_hot(given.target.to(dtype), *arguments, given.labels)
    forward, _ = reference.TRANSFORMS[support.transform]
    width = (support.high - support.low) / (support.bins - 1)
    x = forward(given.target.to(dtype)).clamp(support.low, support.high).unsqueeze(-1)
    edges = support.low + width * (torch.arange(support.bins + 1, dtype=dtype) - 0.5)
    mass = torch.special.ndtr((edges - x) / (given.sigma * width))
    return mass.diff() / (mass[:, -1:] - mass[:, :1])


def formula(given: Problem, dtype: torch.dtype) -> Results:
    """What a launch should write, by plain PyTorch in some precision."""
    support, rows = given.support, given.logits.shape[0]
    logits = given.logits.to(dtype)
    labels = label(given, dtype)
    labels = labels.repeat(rows // max(len(labels), 1), 1)
    weight = torch.ones(rows, dtype=dtype) if given.weight is None else given.weight.to(dtype)
    scale = 1.0 if given.scale is None else given.scale.to(dtype)
    log_p = logits.log_softmax(-1)
    loss = -weight * torch.where(labels == 0, 0, labels * log_p).sum(-1)
    gradient = (scale * weight).unsqueeze(-1) * (log_p.exp() - labels)
    readout = reference.bin_expectation(logits, support.low, support.high, support.transform, support.readout)
    if given.mask is not None:
        counts = given.mask.repeat(rows // len(given.mask))
        loss, readout = (torch.where(counts, x, 0) for x in (loss, readout))
        gradient = torch.where(counts.unsqueeze(-1), gradient, 0)
    return Results(loss, readout, gradient)


def sensitivities(given: Problem) -> tuple[Tensor, Tensor]:
    """Of losses [R] and gradients [R, 1] to an eps in f(y)."""
    logits, transform = given.logits.double(), given.support.transform
    shift = label_shift(lambda y: label(replace(given, target=y), y.dtype), given.target.double(), transform)
    shift = shift.repeat(len(logits) // max(len(shift), 1), 1)
    weight = 1 if given.weight is None else given.weight.abs().double()
    scale = 1 if given.scale is None else given.scale.abs().double()
    return weight * cross_entropy_shift(logits, shift), (scale * weight * shift.abs().amax(-1)).unsqueeze(-1)


def assert_right(actual: Results, given: Problem) -> None:
    """Every result is as near to float64 as plain PyTorch in float32, rounded to its dtype."""
    truth, plain = formula(given, torch.float64), formula(given, torch.float32)
    of_loss, of_gradient = sensitivities(given)
    assert_accurate(actual.loss, truth.loss, plain.loss, sensitivity=of_loss)
    sensitivity = of_readout(given.logits.double(), given.support)
    assert_accurate(actual.readout, truth.readout, plain.readout, sensitivity=sensitivity)
    assert actual.gradient.dtype == given.logits.dtype
    plain_gradient = plain.gradient.to(given.logits.dtype)
    assert_accurate(actual.gradient, truth.gradient, plain_gradient, sensitivity=of_gradient)


def of_readout(logits: Tensor, support: Support) -> Tensor:
    """The sensitivity of readouts of float64 logits."""
    place = {"dtype": torch.float64, "device": "cpu"}
    centers = reference.bin_centers(support.low, support.high, support.bins, **place)
    return readout_sensitivity(logits, centers, support.transform, support.readout)[0]


@every_form
@every_support
def test_loss_gradient_and_readout(
    support: Support, dtype: torch.dtype, labels: Labels, sigma: float, device: str
) -> None:
    given = problem(support, labels, sigma, dtype)
    assert_right(launch(given, device), given)


@pytest.mark.parametrize(
    ("name", "labels", "sigma", "weighted"),
    [
        pytest.param("tdmpc2", "two_hot", 0.0, True, id="two-hot"),
        pytest.param("asymmetric", "hl_gauss", 0.75, False, id="HL-Gauss"),
    ],
)
@pytest.mark.parametrize("targets", [1, 3, 32, 37])
def test_shared_targets_and_rows_that_do_not_count(
    targets: int, name: str, labels: Labels, sigma: float, weighted: bool, device: str
) -> None:
    copies = 3
    given = problem(SUPPORTS[name], labels, sigma, rows=copies * targets)
    given.weight = given.weight if weighted else None
    given.target = given.target[:targets]
    given.mask = torch.arange(targets) % 3 != 1
    truth = launch(given, device)
    assert_right(truth, given)
    counts = given.mask.repeat(copies)
    poisoned = replace(
        given,
        logits=torch.where(counts.unsqueeze(-1), given.logits, NAN),
        target=torch.where(given.mask, given.target, NAN),
        weight=torch.where(counts, given.weight, NAN) if weighted else None,
    )
    again = launch(poisoned, device)
    for output in ("loss", "readout", "gradient"):
        assert torch.equal(getattr(again, output), getattr(truth, output)), output
        assert getattr(again, output)[~counts].eq(0).all(), output


@pytest.mark.parametrize(
    ("labels", "sigma"), [(labels, 0.75 * (labels == "hl_gauss")) for labels in reference.LABELS], ids=reference.LABELS
)
@pytest.mark.parametrize("name", ["amago2", "three", "c51"])
def test_targets_out_of_range(name: str, labels: Labels, sigma: float, device: str) -> None:
    support = SUPPORTS[name]
    _, inverse = reference.TRANSFORMS[support.transform]
    ends = inverse(torch.tensor([support.low, support.high], dtype=torch.float64)).float()
    far = torch.tensor([NAN, math.inf, -math.inf, 3.4e38, -3.4e38, 1e30, -1e30, 0.0, -0.0, 1e-30])
    given = problem(support, labels, sigma, rows=12)
    given.target = torch.cat([ends, far])
    actual = launch(given, device)
    assert torch.equal(actual.loss.isnan(), given.target.isnan())
    assert torch.equal(actual.gradient.isnan(), given.target.isnan().unsqueeze(-1).expand_as(given.logits))
    given.target = given.target.clamp(*ends.tolist())
    truth = formula(given, torch.float64)
    plain = formula(given, torch.float32)
    finite = ~given.target.isnan()
    assert_accurate(actual.loss[finite], truth.loss[finite], plain.loss[finite])
    assert_accurate(actual.gradient[finite], truth.gradient[finite], plain.gradient[finite])
    sensitivity = of_readout(given.logits.double(), support)
    assert_accurate(actual.readout, truth.readout, plain.readout, sensitivity=sensitivity)


@pytest.mark.parametrize("readout", ["transformed", "raw"])
@pytest.mark.parametrize("transform", ["symlog", "signed_sqrt"])
def test_a_narrow_support_near_0_loses_no_digits(transform: str, readout: str, device: str) -> None:
    """Where f(y) is nearly y: a position from 1 + y, or a value from exp(x) - 1, would be off by far more than this."""
    given = problem(Support(-1e-3, 2e-3, 64, transform, readout))
    actual, truth = launch(given, device), formula(given, torch.float64)
    of_loss, of_gradient = sensitivities(given)
    assert_accurate(actual.loss, truth.loss, sensitivity=of_loss)
    assert_accurate(actual.gradient, truth.gradient, sensitivity=of_gradient)
    assert_accurate(actual.readout * 1000, truth.readout * 1000, floor=16)
    value, gradient = expectation(given.logits, given.support, device, given.weight * 1000)
    assert torch.equal(value, actual.readout)
    p = given.logits.double().softmax(-1)
    centers = torch.linspace(-1e-3, 2e-3, 64, dtype=torch.float64)
    slope = 1000 * given.weight.double() * (1 if transform == "symlog" else 1 / 0.501)  # to 0.2 % near 0
    expected = slope.unsqueeze(-1) * p * (centers - (p * centers).sum(-1, keepdim=True))
    assert (gradient - expected).abs().max() < 4e-3 * expected.abs().max()


@every_label
def test_extreme_logits(labels: Labels, sigma: float, device: str) -> None:
    support = SUPPORTS["c51"]
    given = problem(support, labels, sigma, rows=8)
    generator = torch.Generator().manual_seed(1)
    signs = torch.where(torch.rand(8, support.bins, generator=generator) < 0.5, -1.0, 1.0)
    given.logits = 1e4 * signs
    given.logits[0] = 1e4
    given.logits[1] = -1e4
    given.logits[2] = torch.where(torch.arange(support.bins) == 7, 1e4, -1e4)
    given.logits[3] = 3e38 * signs[3]
    assert_right(launch(given, device), given)


def test_logits_of_minus_infinity_with_label_0_do_not_poison(device: str) -> None:
    given = problem(SUPPORTS["amago2"], rows=4)
    given.target = torch.tensor([0.3, 5.0, -5.0, 0.0])
    given.logits[:, 100:] = -math.inf
    given.logits[3, :64] = -math.inf
    actual, truth = launch(given, device), formula(given, torch.float64)
    assert truth.loss[:3].isfinite().all()
    assert truth.loss[3].abs() == math.inf
    assert_right(actual, given)


@pytest.mark.parametrize("readout", ["transformed", "raw"])
@every_support
def test_a_symmetric_distribution_reads_as_exactly_0(support: Support, readout: str, device: str) -> None:
    support = replace(support, low=-support.high, readout=readout)
    given = problem(support, rows=6)
    given.logits = given.logits + given.logits.flip(-1)
    given.logits[0] = 1e4
    actual = launch(given, device)
    assert actual.readout.eq(0).all()
    assert expectation(given.logits, support, device)[0].eq(0).all()
    assert_right(actual, given)


@every_form
def test_the_gradient_may_replace_the_logits(dtype: torch.dtype, labels: Labels, sigma: float, device: str) -> None:
    given = problem(SUPPORTS["tdmpc2"], labels, sigma, dtype)
    apart, in_place = launch(given, device), launch(given, device, in_place=True)
    for output in ("loss", "readout", "gradient"):
        assert torch.equal(getattr(apart, output), getattr(in_place, output)), output


def test_each_output_alone(device: str) -> None:
    given = problem(SUPPORTS["amago2"])
    together = launch(given, device)
    names = ("loss", "readout", "gradient")
    for name in names:
        alone = launch(given, device, without=tuple(other for other in names if other != name))
        assert torch.equal(getattr(alone, name), getattr(together, name)), name
        assert all(getattr(alone, other).isnan().all() for other in names if other != name)


def test_no_weight_and_no_scale_are_ones(device: str) -> None:
    given = problem(SUPPORTS["c51"])
    plain = launch(replace(given, weight=None, scale=None), device)
    ones = launch(replace(given, weight=torch.ones_like(given.target), scale=torch.tensor(1.0)), device)
    assert torch.equal(plain.loss, ones.loss)
    assert torch.equal(plain.gradient, ones.gradient)


def test_no_rows(device: str) -> None:
    for support in (SUPPORTS["amago2"], SUPPORTS["two"]):
        actual = launch(problem(support, rows=0), device)
        assert actual.gradient.shape == (0, support.bins)
        assert expectation(torch.zeros(0, support.bins), support, device)[0].shape == (0,)


def expectation(
    logits: Tensor, support: Support, device: str, grad_output: Tensor | None = None, *, in_place: bool = False
) -> tuple[Tensor, Tensor]:
    """Readout and, with a `grad_output`, its gradient, from outputs that hold NaN."""
    logits = logits.clone().to(device)
    readout = torch.full((len(logits),), NAN, device=device)
    gradient = logits if in_place else torch.full_like(logits, NAN)
    launchers.launch_expectation(
        logits,
        **support.call(),
        readout_kind=support.readout,
        readout=readout,
        grad_output=None if grad_output is None else grad_output.to(device),
        gradient=None if grad_output is None else gradient,
    )
    return readout.cpu(), gradient.cpu()


@every_dtype
@every_support
def test_expectation_and_its_gradient(support: Support, dtype: torch.dtype, device: str) -> None:
    logits = (problem(support).logits / 3).to(dtype)  # flat enough that values are of order 1 where bins reach far
    generator = torch.Generator().manual_seed(2)
    grad_output = torch.randn(len(logits), generator=generator)

    def plain(precision: torch.dtype) -> tuple[Tensor, Tensor]:
        z = logits.to(precision).requires_grad_()
        value = reference.bin_expectation(z, support.low, support.high, support.transform, support.readout)
        return value.detach(), torch.autograd.grad(value, z, grad_output.to(precision))[0]

    truth, float32 = plain(torch.float64), plain(torch.float32)
    readout, gradient = expectation(logits, support, device, grad_output)
    assert_accurate(readout, truth[0], float32[0], sensitivity=of_readout(logits.double(), support))
    assert_accurate(gradient, truth[1], float32[1].to(dtype), floor=8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["amago2", "asymmetric", "two"])
def test_the_gradient_of_an_expectation_may_replace_the_logits(name: str, dtype: torch.dtype, device: str) -> None:
    given = problem(SUPPORTS[name], dtype=dtype)
    readout, gradient = expectation(given.logits, given.support, device, given.weight)
    again, in_place = expectation(given.logits, given.support, device, given.weight, in_place=True)
    assert torch.equal(in_place, gradient)
    assert torch.equal(again, readout)
    assert torch.equal(expectation(given.logits, given.support, device)[0], readout)


@every_dtype
@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4099])
def test_scale(count: int, dtype: torch.dtype, device: str) -> None:
    start = torch.randn(count, generator=torch.Generator().manual_seed(3)).to(dtype)
    for factor in (1.0, 0.5, -3.0, 0.0, NAN):
        gradient = start.clone().to(device)
        launchers.launch_scale(gradient, torch.tensor(factor, device=device))
        assert_accurate(gradient.cpu(), start.double() * factor, floor=1)


def test_a_factor_of_1_touches_nothing(device: str) -> None:
    gradient = torch.tensor([0x7F800001, 0x7FC00123], dtype=torch.int32).view(torch.float32)  # odd bits of NaN
    on_device = gradient.clone().to(device)
    launchers.launch_scale(on_device, torch.tensor(1.0, device=device))
    assert torch.equal(on_device.cpu().view(torch.int32), gradient.view(torch.int32))


if not INTERPRETED:

    def test_more_than_2_to_the_31_elements(device: str) -> None:
        support = SUPPORTS["amago2"]
        rows = 2**31 // support.bins + 100
        tail = problem(support, rows=200)
        logits = torch.zeros(rows, support.bins, dtype=torch.float16, device=device)
        logits[-200:] = tail.logits.to(device)
        target = torch.zeros(rows, device=device)
        target[-200:] = tail.target.to(device)
        loss, readout = torch.full((2, rows), NAN, device=device)
        call = {**support.call(), "labels": "two_hot", "sigma": 0.0, "readout_kind": support.readout}
        outputs = {"loss": loss, "readout": readout, "gradient": logits}
        launchers.launch_cross_entropy(logits, target, None, None, None, **call, **outputs)
        given = replace(tail, logits=tail.logits.half(), weight=None, scale=None)
        assert_right(Results(loss[-200:].cpu(), readout[-200:].cpu(), logits[-200:].cpu()), given)
        assert loss.isfinite().all()
