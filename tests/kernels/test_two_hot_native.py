"""The native code of the two-hot operations, in every form that this processor can run, and what chooses it."""

from __future__ import annotations

import itertools
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import two_hot_truth as truth
from compare import assert_accurate
from two_hot_truth import normal
from twohot import _native
from twohot.kernels import backend
from twohot.kernels.two_hot import op
from twohot.losses import ValueBins, bin_expectation, two_hot_cross_entropy

BINS = (2, 3, 7, 15, 16, 17, 33, 51, 64, 101, 127, 128, 129, 255, 601, 4095, 4096)
SIGMAS = (0.0, 0.05, 0.75, 3.0, 40.0)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NAN, INFINITY = math.nan, math.inf
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def label_floor(bins: int, sigma: float) -> float:
    """What the erf of HL-Gauss, right to an eps, costs a label: it is divided by the mass inside the bins."""
    if sigma == 0:
        return 4.0
    return 4 + 4 / (math.erf((bins - 0.5) / sigma / math.sqrt(2)) + math.erf(0.5 / sigma / math.sqrt(2)))


# Accuracy


@every_dtype
@pytest.mark.parametrize("bins", BINS)
def test_where_places_are_exact_the_error_is_some_eps(bins: int, dtype: torch.dtype) -> None:
    support = ValueBins(0.0, bins - 1.0, bins, "linear")  # the place among the bins is the target itself
    rows = 67
    logits = 3 * normal(rows, bins, seed=bins)
    logits[-1] *= 1e3
    logits, grad_output = logits.to(dtype), normal(rows, seed=1)
    target = torch.rand(rows, generator=torch.Generator().manual_seed(2)) * (bins - 1)
    target[:6] = torch.tensor([0.0, bins - 1.0, 1.0, bins + 5.0, -INFINITY, INFINITY])
    places = target.clamp(0, bins - 1)
    for sigma in SIGMAS:

        def expected(z: Tensor, y: Tensor, sigma: float = sigma) -> tuple[Tensor, Tensor]:
            z = z.detach().requires_grad_()
            loss = truth.cross_entropy(z.to(y.dtype), truth.labels(y, support, sigma))
            return loss.detach(), truth.gradient(loss, z, grad_output.to(y.dtype))

        exact, plain = expected(logits.double(), places.double()), expected(logits, places)
        z = logits.clone().requires_grad_()
        loss, readout = op.cross_entropy_rows(z, target, None, *support.support, *truth.labelling(support, sigma), True)
        gradient = truth.gradient(loss, z, grad_output)
        assert (loss.dtype, readout.dtype, gradient.dtype) == (torch.float32, torch.float32, dtype)
        floor = label_floor(bins, sigma)
        assert_accurate(loss, exact[0], plain[0], floor=floor)
        assert_accurate(gradient, exact[1], plain[1], floor=floor)

        # The sum finds the same gradient on its way.
        z = logits.clone().requires_grad_()
        arguments = (False, *support.support, *truth.labelling(support, sigma), True, True)
        total, again = op.cross_entropy(z, target, None, grad_output, *arguments)
        assert torch.equal(truth.gradient(total, z), gradient)
        assert torch.equal(again, readout)
        assert_accurate(total, (exact[0] * grad_output).sum(), floor=floor * rows**0.5)

    exact = truth.readout(logits.double(), support)
    assert_accurate(readout, exact, truth.readout(logits.float(), support))
    assert torch.equal(op.expectation(logits, *support.support), readout)


@every_dtype
@pytest.mark.parametrize("name", truth.SUPPORTS)
def test_every_support(name: str, dtype: torch.dtype) -> None:
    bins, rows = truth.SUPPORTS[name], 200
    logits, grad_output = (3 * normal(rows, bins.count, seed=3)).to(dtype), normal(rows, seed=4)
    target = truth.targets(bins, rows, seed=5)

    def run(loss, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.detach().clone().requires_grad_()
        out = loss(z)
        return out.detach(), truth.gradient(out, z, grad_output.to(out.dtype))

    for sigma in SIGMAS:
        arguments = (target, None, *bins.support, *truth.labelling(bins, sigma), False)
        actual = run(lambda z, given=arguments: op.cross_entropy_rows(z, *given)[0], logits)
        label = truth.labels(target.double(), bins, sigma)
        exact = run(lambda z, label=label: truth.cross_entropy(z, label), logits.double())
        label = truth.labels(target, bins, sigma)
        plain = run(lambda z, label=label: truth.cross_entropy(z.float(), label), logits)
        # An eps in f(y) moves the place among the bins by N eps, and the label by its slope as much.
        floor = label_floor(bins.count, sigma) + 2 * bins.count * (max(1.0, 0.4 / sigma) if sigma else 1.0)
        assert_accurate(actual[0], exact[0], plain[0], floor=floor)
        assert_accurate(actual[1], exact[1], plain[1], floor=floor if dtype == torch.float32 else 4.0)

    # Readouts reach 5e8, beyond float16; grad_output brings theirs back to order 1.
    sensitivity, _ = truth.readout_sensitivity(logits.double(), truth.centers(bins), bins.transform, bins.readout)
    grad_output = grad_output / bins.values().abs().amax()
    actual = run(lambda z: op.expectation(z, *bins.support), logits)
    exact = run(lambda z: truth.readout(z, bins), logits.double())
    plain = run(lambda z: truth.readout(z.float(), bins), logits)
    assert actual[0].dtype == torch.float32
    # Of vectors of 4 numbers, the fewest, N / 4 are added one after the other.
    assert_accurate(actual[0], exact[0], plain[0], floor=4 + bins.count / 8, sensitivity=sensitivity)
    assert_accurate(actual[1], exact[1], plain[1])


SMALL_BINS = (
    ValueBins.amago2(2),
    ValueBins(-4.0, 9.0, 9),
    ValueBins.c51(count=18),
    ValueBins(-4.0, 9.0, 9, labels="raw"),
)
numbers = st.floats(width=32, allow_nan=True, allow_infinity=True) | st.floats(-20, 20, width=32)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_numbers_give_what_the_formulas_give(data) -> None:
    """Logits, targets and weights of any size, infinities and NaN; bins of any kind; masks; shared targets."""
    bins = data.draw(st.sampled_from(SMALL_BINS))
    sigma = data.draw(st.sampled_from((0.0, 0.75)))
    repeat, count = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    rows = repeat * count
    # Some numbers of hypothesis, strewn among ordinary ones.
    special = torch.tensor(data.draw(st.lists(numbers, min_size=1, max_size=6)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))

    def strewn(*shape: int) -> Tensor:
        chosen = special[torch.randint(len(special), shape, generator=generator)]
        ordinary = torch.randn(shape, generator=generator)
        return torch.where(torch.rand(shape, generator=generator) < 0.2, chosen, ordinary)

    logits, target = strewn(rows, bins.count), 9 * strewn(count)
    # Beyond 1e4 the rounding of a label, times the logit, is all that a loss shows.
    logits = torch.where(logits.isfinite(), logits.clamp(-1e4, 1e4), logits)
    factors = torch.tensor((0.0, 0.5, -2.0, 1e30, NAN))
    weight = factors[torch.randint(len(factors), (rows,), generator=generator)]
    mask = torch.rand(count, generator=generator) < 0.7 if data.draw(st.booleans()) else None

    z = logits.clone().requires_grad_()
    labelling = truth.labelling(bins, sigma)
    arguments = (False, *bins.support, *labelling, True, True)
    total, readout, gradient = op.cross_entropy_op(z, target, mask, weight, *arguments)
    rows_loss, again = op.cross_entropy_rows(z, target, mask, *bins.support, *labelling, True)

    counts = torch.ones(rows, dtype=torch.bool) if mask is None else mask.repeat(repeat)
    exact_z = torch.where(counts.unsqueeze(-1), logits, 0).double().requires_grad_()
    label = truth.labels(target.double().repeat(repeat), bins, sigma)
    label = torch.where(target.repeat(repeat).isnan().unsqueeze(-1), NAN, label)
    loss = truth.cross_entropy(exact_z, label)
    exact_loss = torch.where(counts, loss, 0)
    factor = torch.where(counts, weight, 0)
    exact_gradient = (exact_z.softmax(-1) - label) * factor.double().unsqueeze(-1)
    exact_gradient = torch.where((factor == 0).unsqueeze(-1), 0, exact_gradient)

    def compare(actual: Tensor, exact: Tensor, tolerance: float = 1e-4) -> None:
        exact = torch.where(exact.abs() > torch.finfo(torch.float32).max, exact.sign() * INFINITY, exact).detach()
        near = actual.isinf() & (exact.abs() > 3e38)  # of two that overflow, one may just not
        actual = torch.where(near, exact, actual.double())
        torch.testing.assert_close(actual, exact, rtol=tolerance, atol=tolerance, equal_nan=True)

    compare(rows_loss, exact_loss)
    assert torch.equal(again.isnan(), readout.isnan())
    compare(readout, torch.where(counts, truth.readout(exact_z, bins), 0))
    size = factor.abs().clamp(min=1).nan_to_num().unsqueeze(-1)
    compare(gradient / size, exact_gradient / size)
    if factor.abs().max() < 1e3:
        compare(total, (rows_loss.double() * factor).sum())


def test_equal_logits_give_the_logarithm_of_their_number() -> None:
    for bins, value in itertools.product((2, 8, 128, 1024), (0.0, -3.5, 1e4, 3e38)):
        support = ValueBins.amago2(bins)
        logits = torch.full((3, bins), value, requires_grad=True)
        target = torch.tensor([-INFINITY, 1e6, -1e6])
        loss, readout = op.cross_entropy_rows(logits, target, None, *support.support, "two_hot", 0.0, True)
        assert loss.tolist() == pytest.approx([math.log(bins)] * 3, rel=2e-7)
        assert readout.tolist() == [0, 0, 0]
        gradient = truth.gradient(loss, logits)
        assert gradient[:, 1:-1].unique().tolist() == ([1 / bins] if bins > 2 else [])
        assert gradient[0, 0] == gradient[1, -1] == 1 / bins - 1


def test_a_logit_of_minus_infinity_is_a_bin_without_mass() -> None:
    support = ValueBins(0.0, 4.0, 5, "linear")
    logits = torch.tensor([[0.0, 0.0, -INFINITY, 0.0, 0.0]] * 3, requires_grad=True)
    target = torch.tensor([0.5, 2.0, NAN])
    loss, readout = op.cross_entropy_rows(logits, target, None, *support.support, "two_hot", 0.0, True)
    assert loss[:2].tolist() == pytest.approx([math.log(4), INFINITY])
    assert loss[2].isnan()
    assert readout.tolist() == [2, 2, 2]
    gradient = truth.gradient(loss, logits)
    assert gradient[:2].tolist() == [[-0.25, -0.25, 0, 0.25, 0.25], [0.25, 0.25, -1, 0.25, 0.25]]
    assert gradient[2].isnan().all()


@every_dtype
def test_a_row_that_does_not_count_is_neither_read_nor_learnt_from(dtype: torch.dtype) -> None:
    support, rows = ValueBins.amago2(19), 131
    counts = torch.rand(rows, generator=torch.Generator().manual_seed(6)) < 0.5
    logits, target, weight = normal(rows, 19, dtype=dtype), 9 * normal(rows, seed=1), normal(rows, seed=2)
    spoilt = [torch.where(counts, x, NAN) for x in (target, weight)]
    spoilt_logits = torch.where(counts.unsqueeze(-1), logits, torch.tensor(NAN, dtype=dtype))
    arguments = (True, *support.support, "hl_gauss", 0.75, True, True)
    clean = op.cross_entropy_op(logits[counts], target[counts], None, weight[counts], *arguments)
    loss, readout, gradient = op.cross_entropy_op(spoilt_logits, spoilt[0], counts, spoilt[1], *arguments)
    assert_accurate(loss, clean[0].double(), floor=16)
    assert torch.equal(readout[counts], clean[1])
    assert torch.equal(gradient[counts], clean[2])
    assert readout[~counts].eq(0).all()
    assert gradient[~counts].eq(0).all()
    z = spoilt_logits.clone().requires_grad_()
    rows_loss, readout = op.cross_entropy_rows(z, spoilt[0], counts, *support.support, "hl_gauss", 0.75, True)
    assert rows_loss[~counts].eq(0).all()
    assert readout[~counts].eq(0).all()
    found = truth.gradient(rows_loss, z, spoilt[1])
    assert found[~counts].eq(0).all()
    assert found[counts].isfinite().all()


# Memory, threads, sizes


@pytest.mark.parametrize(
    ("rows", "bins", "dtype"),
    [
        (2100, 128, torch.float32),
        (1301, 255, torch.float32),
        (33_000, 128, torch.float32),  # so large that the gradient is written past the caches
        (4200, 129, torch.bfloat16),
    ],
)
def test_outputs_do_not_depend_on_what_their_memory_held(rows: int, bins: int, dtype: torch.dtype) -> None:
    support = ValueBins.amago2(bins)
    logits, target = normal(rows, bins, dtype=dtype), normal(rows, seed=1)
    mask = torch.rand(rows, generator=torch.Generator().manual_seed(2)) < 0.8
    weight = normal(rows, seed=3).clamp(min=0)  # half of them 0
    addresses = []

    def passes(fill: float) -> list[Tensor]:
        torch.utils.deterministic.fill_uninitialized_memory = True  # with NaN, what torch itself allocates
        torch.use_deterministic_algorithms(True)
        try:
            results = []
            for call in (
                lambda z: two_hot_cross_entropy(z, target, support, mask=mask, weight=weight, return_readout=True),
                lambda z: (two_hot_cross_entropy(z, target, support, mask=mask, reduction="none"),),
                lambda z: (bin_expectation(z, support),),
            ):
                kept = op.empty_from_pool(logits.shape, logits).fill_(fill)
                addresses.append(kept.data_ptr())
                del kept
                z = logits.clone().requires_grad_()
                outputs = call(z)
                outputs[0].sum().backward()
                addresses.append(z.grad.data_ptr())
                results += [*(output.detach() for output in outputs), z.grad.clone()]
                z.grad = None
                outputs = None
        finally:
            torch.use_deterministic_algorithms(False)
        return results

    _native.release_pool()
    poisoned, clean = passes(NAN), passes(0.0)
    assert len(set(addresses)) == 1, "the gradients lay elsewhere than the poison"
    assert all(torch.equal(a, b) for a, b in zip(poisoned, clean, strict=True))
    _native.release_pool()


def test_threads_change_no_bit() -> None:
    support = ValueBins.amago2(64)
    logits, target, weight = normal(9001, 64), normal(9001, seed=1), normal(9001, seed=2)
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        try:
            z = logits.clone().requires_grad_()
            loss, readout = two_hot_cross_entropy(z, target, support, weight=weight, return_readout=True)
            rows = two_hot_cross_entropy(z, target, support, reduction="none")
            value = bin_expectation(z, support)
            gradients = [truth.gradient(x, z, None if x is loss else weight) for x in (loss, rows, value)]
        finally:
            torch.set_num_threads(1)
        results.append([x.detach() for x in (loss, readout, rows, value, *gradients)])
    assert all(torch.equal(a, b) for result in results[1:] for a, b in zip(result, results[0], strict=True))


def test_more_than_two_to_the_31_elements() -> None:
    """4.3 GB of zeros that nobody has touched: the system lends one page of zeros for all of them."""
    bins, rows = 4096, (1 << 31) // 4096 + 3
    support = ValueBins(0.0, 1.0, bins, "linear", "raw")
    logits = torch.from_numpy(np.zeros((rows, bins), np.int16)).view(torch.bfloat16)
    first = (1 << 31) // bins
    assert first * bins == 1 << 31
    marked = torch.tensor([5, first - 1, first, rows - 1])
    column = torch.tensor([0, 4095, 1, 4095])
    logits[marked, column] = 100.0
    loss, readout = two_hot_cross_entropy(logits, torch.zeros(()), support, reduction="none", return_readout=True)
    value = (torch.arange(bins, dtype=torch.float64) / (bins - 1))[column]
    assert_accurate(loss[marked], torch.tensor([0.0, 100.0, 100.0, 100.0], dtype=torch.float64))
    assert_accurate(readout[marked], value)
    others = torch.ones(rows, dtype=torch.bool)
    others[marked] = False
    assert torch.equal(loss[others], torch.full((rows - 4,), math.log(bins)))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3), (1, 1), (5, 1, 2)])
def test_shapes(shape: tuple[int, ...]) -> None:
    bins = ValueBins.amago2(count=8)
    logits, target = normal(*shape, 8), normal(*shape, seed=1)
    mask = normal(*shape, seed=2) < 0.5
    for reduction, m in itertools.product(("none", "sum", "mean"), (None, mask)):
        results = []
        for dtype in (torch.float32, torch.float64):  # native code and plain PyTorch
            z = logits.to(dtype).requires_grad_()
            loss, value = two_hot_cross_entropy(z, target, bins, mask=m, reduction=reduction, return_readout=True)
            results.append((loss.detach(), value, truth.gradient(loss, z)))
        for a, b in zip(*results, strict=True):
            assert_accurate(a, b, floor=32)
    z = logits.clone().requires_grad_()
    value = bin_expectation(z, bins)
    again = logits.double().requires_grad_()
    exact = bin_expectation(again, bins)
    assert_accurate(value, exact.detach(), floor=32)
    assert_accurate(truth.gradient(value, z), truth.gradient(exact, again), floor=64)


def test_layouts() -> None:
    bins = ValueBins.amago2(count=8)
    base, targets = normal(8, 5, 12, seed=1), normal(6, 5, seed=2)
    weight, mask = normal(6, 1, seed=3).expand(6, 5), (normal(5, 6, seed=4) < 0.7).T
    views = {
        "permuted": base.permute(2, 1, 0)[:6],
        "strided": base.permute(2, 1, 0)[::2],
        "backwards": base.permute(2, 1, 0).flip(0)[:6],
        "expanded": base.permute(2, 1, 0)[:1].expand(6, 5, 8),
        "every other bin": normal(6, 5, 16, seed=5)[..., ::2],
    }
    for name, view in views.items():
        z, again = view.detach().requires_grad_(), view.detach().contiguous().clone().requires_grad_()
        assert not z.is_contiguous() or name == "backwards"
        for target in (targets, targets.T.contiguous().T, targets[:1]):
            losses = [
                two_hot_cross_entropy(x, target, bins, weight=weight, mask=mask, return_readout=True)
                for x in (z, again)
            ]
            assert torch.equal(losses[0][0], losses[1][0]), name
            assert torch.equal(losses[0][1], losses[1][1]), name
            assert torch.equal(truth.gradient(losses[0][0], z), truth.gradient(losses[1][0], again)), name
        assert torch.equal(
            truth.gradient(bin_expectation(z, bins), z), truth.gradient(bin_expectation(again, bins), again)
        )


def test_a_shared_target_is_never_copied(monkeypatch) -> None:
    seen = []
    for name in ("cross_entropy_rows", "cross_entropy"):
        real = getattr(op, name)
        monkeypatch.setattr(op, name, lambda *given, real=real: seen.append(given) or real(*given))
    bins = ValueBins.amago2(count=16)
    logits, target = normal(4, 6, 5, 3, 16), normal(6, 5, 3, seed=1)
    mask = normal(6, 5, 1, seed=2) > 0
    for reduction in ("mean", "none"):
        two_hot_cross_entropy(logits, target, bins, mask=mask, reduction=reduction)
        assert [tuple(x.shape) for x in seen.pop()[:3]] == [(360, 16), (90,), (90,)]
        two_hot_cross_entropy(logits, target, bins, mask=normal(4, 1, 1, 1) > 0, reduction=reduction)
        assert [tuple(x.shape) for x in seen.pop()[1:3]] == [(360,), (360,)]
        two_hot_cross_entropy(logits, target[None], bins, reduction=reduction)
        arguments = seen.pop()
        assert tuple(arguments[1].shape) == (90,)
        assert arguments[1].data_ptr() == target.data_ptr()


# Which implementation runs


CPU = torch.device("cpu")


def test_the_choice_has_a_reason(monkeypatch) -> None:
    monkeypatch.delenv("TWOHOT_BACKEND", raising=False)
    choose = backend.choose_two_hot
    assert choose(CPU, torch.float32, 8) == backend.Choice("native", "torch.float32 on cpu")
    for device, dtype, bins, reason in (
        (CPU, torch.float64, 8, "the logits are torch.float64, fused code takes torch.float32"),
        (CPU, torch.float32, 4097, "there are 4097 bins, fused code takes 2 to 4096"),
        (torch.device("meta"), torch.float32, 8, "meta"),
    ):
        choice = choose(device, dtype, bins)
        assert choice.name == "reference"
        assert reason in choice.reason
        monkeypatch.setenv("TWOHOT_BACKEND", "native")
        with pytest.raises(RuntimeError, match="TWOHOT_BACKEND asks for native, but "):
            choose(device, dtype, bins)
        monkeypatch.delenv("TWOHOT_BACKEND")
    monkeypatch.setenv("TWOHOT_BACKEND", "reference")
    assert choose(CPU, torch.float32, 8) == backend.Choice("reference", "TWOHOT_BACKEND asks for it")
    monkeypatch.setenv("TWOHOT_BACKEND", "native")
    assert choose(CPU, torch.float32, 8).name == "native"
    with pytest.raises(RuntimeError, match=r"asks for native, but the logits are torch\.float64, fused code takes"):
        two_hot_cross_entropy(torch.zeros(2, 8).double(), torch.zeros(2), ValueBins.amago2(8))
    monkeypatch.setenv("TWOHOT_BACKEND", "quantum")
    with pytest.raises(RuntimeError, match="expected one of auto, native, triton, reference, got 'quantum'"):
        bin_expectation(torch.zeros(2, 8), ValueBins.amago2(8))


def test_triton_without_a_device_is_an_error_that_says_so(monkeypatch) -> None:
    monkeypatch.setenv("TWOHOT_BACKEND", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(
        RuntimeError, match=r"TWOHOT_BACKEND asks for triton, but (the logits are on cpu|triton is not)"
    ):
        two_hot_cross_entropy(torch.zeros(2, 8), torch.zeros(2), ValueBins.amago2(8))
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    backend._choose.cache_clear()
    with pytest.raises(RuntimeError, match="asks for triton, but triton is not installed"):
        bin_expectation(torch.zeros(2, 8), ValueBins.amago2(8))
    backend._choose.cache_clear()


def test_without_the_native_module_plain_pytorch_runs(monkeypatch) -> None:
    monkeypatch.setattr(backend, "NATIVE_UNSUPPORTED_REASON", "twohot._native cannot be imported (no such file)")
    backend._choose.cache_clear()
    try:
        monkeypatch.delenv("TWOHOT_BACKEND", raising=False)
        choice = backend.choose_two_hot(CPU, torch.float32, 8)
        assert choice == backend.Choice("reference", "twohot._native cannot be imported (no such file)")
        monkeypatch.setenv("TWOHOT_BACKEND", "native")
        with pytest.raises(RuntimeError, match=r"asks for native, but twohot\._native cannot be imported"):
            bin_expectation(torch.zeros(2, 8), ValueBins.amago2(8))
    finally:
        backend._choose.cache_clear()


def test_native_code_checks_its_arguments() -> None:
    z, y = torch.zeros(4, 8), torch.zeros(4)
    given = {
        "logits": z.data_ptr(),
        "dtype": "float32",
        "rows": 4,
        "bins": 8,
        "support": _native.Support(-1.0, 1.0, "linear", "transformed"),
        "threads": 1,
    }
    targets = {"target": y.data_ptr(), "targets": 4}
    wrong = [
        ({"bins": 1}, "expected rows >= 0 and 2 to 4096 bins, got 4 and 1"),
        ({"bins": 4097}, "2 to 4096 bins, got 4 and 4097"),
        ({"rows": -1}, "expected rows >= 0"),
        ({"logits": 0}, "expected the address of the logits"),
        ({"dtype": "float64"}, "dtype: expected one of 'float32', 'bfloat16', 'float16'; got 'float64'"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            _native.cross_entropy(**{**given, **targets, **change})
        with pytest.raises(ValueError, match=message):
            _native.expectation(**{**given, **change})
    for change, message in (
        ({"targets": 0}, "expected at least one target and an offset of at least 0, got 0 and 0"),
        ({"target": 0}, "expected at least one target"),
        ({"offset": -1}, "an offset of at least 0, got 4 and -1"),
        ({"labels": "hl_gauss"}, "expected sigma > 0"),
        ({"labels": "hl_gauss", "sigma": NAN}, "expected sigma > 0"),
        ({"labels": "gauss"}, "labels: expected one of 'two_hot', 'two_hot_raw', 'hl_gauss'; got 'gauss'"),
    ):
        with pytest.raises(ValueError, match=message):
            _native.cross_entropy(**{**given, **targets, **change})
    for arguments, message in (
        ((1.0, 1.0, "linear", "raw"), "expected low < high"),
        ((-1.0, NAN, "linear", "raw"), "expected low < high"),
        ((-1.0, 1.0, "log", "raw"), "transform: expected one of 'linear', 'symlog', 'signed_sqrt'; got 'log'"),
        ((-1.0, 1.0, "linear", "read"), "readout_kind: expected one of 'transformed', 'raw'; got 'read'"),
    ):
        with pytest.raises(ValueError, match=message):
            _native.Support(*arguments)
    with pytest.raises(ValueError, match="a gradient needs grad_output"):
        _native.expectation(**given, gradient=z.data_ptr())
    assert _native.cross_entropy(**given, **targets) == 0.0
    loss = torch.empty(4)
    assert _native.cross_entropy(**given, **targets, loss=loss.data_ptr()) == pytest.approx(4 * math.log(8))


def test_capability_is_the_one_asked_for() -> None:
    asked = os.environ.get("TWOHOT_CPU_CAPABILITY")
    assert _native.cpu_capability() in _native.cpu_capabilities()
    if asked in _native.cpu_capabilities():
        assert (_native.cpu_capability(), asked in _native.cpu_capability_reason()) == (asked, True)
